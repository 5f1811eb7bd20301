"""What kernels call and Numba lacks: reading and writing raw memory, and which thread they run on.

A kernel gets addresses, not arrays: arrays would be unpacked at every call, and their wrap-around indexing keeps the
compiler from using vector instructions. Addresses are 64-bit integers; indices count elements.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from .. import tuning
from .openmp import address_of, openmp

LINE = tuning.shapes.line

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

# -- writing past the caches ------------------------------------------------------------------------------------------

# A processor that writes a line of memory first reads it into its caches, and later writes it back from there: twice
# the bytes, and three times the time where nobody reads the line before it is back in memory. Lines written whole by
# special stores take neither way. LLVM knows these stores, but uses them in no loop whose addresses it cannot see to be
# whole lines; so what is to be written is laid down in the first-level cache, and `flow` copies it.


def _line(element: Any, size: int) -> Any:
    """Copies a line of values; where it goes begins at a multiple of `LINE`."""
    vector = ir.VectorType(element, LINE // size)

    def line(typingctx: Any, values: Any, to: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values, to = (builder.inttoptr(address, vector.as_pointer()) for address in args)
            store = builder.store(builder.load(values, align=size), to, align=LINE)
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return intrinsic(line)


def _settled(typingctx: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


def _flow(dtype: Any, element: Any) -> Callable[[int, int, int], None]:
    size, name = dtype().itemsize, dtype.__name__
    line, each = _line(element, size), LINE // size
    load, store = globals()[f"load_{name}"], globals()[f"store_{name}"]

    def flow(values: int, count: int, to: int) -> None:
        """Copy values[count], the lines that they fill past the caches."""
        n = 0
        while n < count and (to + size * n) % LINE != 0:
            store(to, n, load(values, n))
            n += 1
        while n + each <= count:
            line(values + size * n, to + size * n)
            n += each
        while n < count:
            store(to, n, load(values, n))
            n += 1

    flow.__qualname__ += f"_{name}"  # machine code that several processes have stored is linked by names
    compiled: Callable[[int, int, int], None] = njit(nogil=True, error_model="numpy")(flow)
    return compiled


flow_float32, flow_float64 = _flow(np.float32, ir.FloatType()), _flow(np.float64, ir.DoubleType())
settled: Any = intrinsic(_settled)
"""Waits until what has flowed is there for other threads."""

# -- which thread of how many a kernel runs on, as OpenMP says ---------------------------------------------------------

if openmp() is not None:
    # by names of our own: another OpenMP runtime in the process may bear the common ones
    for _symbol in ("omp_get_thread_num", "omp_get_num_threads"):
        llvmlite.binding.add_symbol(f"spikeloom_{_symbol}", address_of(_symbol))

thread_number = types.ExternalFunction("spikeloom_omp_get_thread_num", types.int32())
team_size = types.ExternalFunction("spikeloom_omp_get_num_threads", types.int32())
