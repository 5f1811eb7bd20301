"""Reading and writing raw memory inside a kernel: instructions that Numba lacks.

A kernel gets addresses, not arrays: arrays would be unpacked at every call, and their wrap-around indexing keeps the
compiler from using vector instructions. Addresses are 64-bit integers; indices count elements.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_WIDTHS = {
    types.float32: (ir.FloatType(), 4),
    types.float64: (ir.DoubleType(), 8),
    types.uint8: (ir.IntType(8), 1),
    types.int32: (ir.IntType(32), 4),
    types.int64: (ir.IntType(64), 8),
}


def _at(builder: Any, args: Any, element: Any) -> Any:
    pointer = builder.inttoptr(args[0], element.as_pointer())
    return builder.gep(pointer, [args[1]])


def _loader(scalar: Any, name: str) -> Any:
    element, width = _WIDTHS[scalar]

    def load(typingctx: Any, address: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load(_at(builder, args, element), align=width)

        return scalar(types.int64, types.int64), generate

    load.__name__ = name
    return intrinsic(load)


def _storer(scalar: Any, name: str) -> Any:
    element, width = _WIDTHS[scalar]

    def store(typingctx: Any, address: Any, index: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.store(args[2], _at(builder, args, element), align=width)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, scalar), generate

    store.__name__ = name
    return intrinsic(store)


def _mask(scalar: Any, how: str, number: float, ordered: bool = False) -> Any:
    element, width = _WIDTHS[scalar]

    def mask(typingctx: Any, address: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vector = ir.VectorType(element, 64)
            values = builder.load(builder.bitcast(_at(builder, args, element), vector.as_pointer()), align=width)
            compare = builder.fcmp_ordered if ordered else builder.fcmp_unordered
            found = compare(how, values, ir.Constant(vector, [number] * 64))
            return builder.bitcast(found, ir.IntType(64))

        return types.int64(types.int64, types.int64), generate

    return intrinsic(mask)


def _lowest(typingctx: Any, mask: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


def _bits(typingctx: Any, mask: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), generate


load_float32, store_float32 = _loader(types.float32, "load_float32"), _storer(types.float32, "store_float32")
load_float64, store_float64 = _loader(types.float64, "load_float64"), _storer(types.float64, "store_float64")
word, store_word = _loader(types.int64, "word"), _storer(types.int64, "store_word")
byte, store_byte = _loader(types.uint8, "byte"), _storer(types.uint8, "store_byte")
short, store_short = _loader(types.int32, "short"), _storer(types.int32, "store_short")
nonzero_float32, nonzero_float64 = (_mask(kind, "!=", 0.0) for kind in (types.float32, types.float64))
one_float32, one_float64 = (_mask(kind, "==", 1.0, ordered=True) for kind in (types.float32, types.float64))
"""Of the 64 values from an index on, a bit each: whether it is other than zero, NaN included; whether it is 1."""
lowest: Any = intrinsic(_lowest)
bits: Any = intrinsic(_bits)
"""Of such a mask: the place of its lowest bit, and how many there are."""
