"""Reading and writing raw memory inside a kernel: instructions that Numba lacks.

A kernel gets addresses, not arrays: arrays would be unpacked at every call, and their wrap-around indexing keeps the
compiler from using vector instructions. Addresses are 64-bit integers; indices count elements.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_WIDTHS = {types.float32: (ir.FloatType(), 4), types.float64: (ir.DoubleType(), 8), types.int64: (ir.IntType(64), 8)}


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


load_float32, store_float32 = _loader(types.float32, "load_float32"), _storer(types.float32, "store_float32")
load_float64, store_float64 = _loader(types.float64, "load_float64"), _storer(types.float64, "store_float64")
word, store_word = _loader(types.int64, "word"), _storer(types.int64, "store_word")
