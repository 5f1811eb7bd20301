"""Writing past the caches.

A processor that writes a line of memory first reads it into its caches, and later writes it back from there: twice the
bytes, and three times the time where nobody reads the line before it is back in memory. Lines written whole by special
stores take neither way. LLVM knows these stores, but uses them in no loop whose addresses it cannot see to be whole
lines; so what is to be written is laid down in the first-level cache, and `flow` copies it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from . import intrinsics
from .blocking import LINE


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
    load, store = getattr(intrinsics, f"load_{name}"), getattr(intrinsics, f"store_{name}")

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
