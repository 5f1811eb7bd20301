"""The imports of every kernel: operations that Numba lacks (raw memory, the current thread's number), and its compiler.

A kernel gets addresses, not arrays: arrays would be unpacked at every call, and their wrap-around indexing keeps the
compiler from using vector instructions. Addresses are 64-bit integers; indices count elements.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager
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


def emitted(result: Any, arguments: Sequence[Any], build: Callable[..., Any]) -> Any:
    """A function that kernels can call, built from LLVM instructions.

    Args:
        result, arguments: types of Numba's.
        build: from a builder of instructions and the arguments to the result, or None.
    """

    def typed(typingctx: Any, *_: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = build(builder, *args)
            return context.get_dummy_value() if value is None else value

        return result(*arguments), generate

    kind, names = inspect.Parameter.POSITIONAL_OR_KEYWORD, [f"argument{k}" for k in range(len(arguments))]
    typed.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in ("typingctx", *names)])  # type: ignore[attr-defined]
    return intrinsic(typed)


def _at(builder: Any, address: Any, index: Any, element: Any) -> Any:
    return builder.gep(builder.inttoptr(address, element.as_pointer()), [index])


def _loader(scalar: Any) -> Any:
    element, width = _WIDTHS[scalar]

    def load(builder: Any, address: Any, index: Any) -> Any:
        return builder.load(_at(builder, address, index, element), align=width)

    return emitted(scalar, (types.int64, types.int64), load)


def _storer(scalar: Any) -> Any:
    element, width = _WIDTHS[scalar]

    def store(builder: Any, address: Any, index: Any, value: Any) -> None:
        builder.store(value, _at(builder, address, index, element), align=width)

    return emitted(types.void, (types.int64, types.int64, scalar), store)


def _mask(scalar: Any, how: str, number: float, ordered: bool = False) -> Any:
    element, width = _WIDTHS[scalar]
    vector = ir.VectorType(element, 64)

    def mask(builder: Any, address: Any, index: Any) -> Any:
        place = builder.bitcast(_at(builder, address, index, element), vector.as_pointer())
        compare = builder.fcmp_ordered if ordered else builder.fcmp_unordered
        found = compare(how, builder.load(place, align=width), ir.Constant(vector, [number] * 64))
        return builder.bitcast(found, ir.IntType(64))

    return emitted(types.int64, (types.int64, types.int64), mask)


load_float32, store_float32 = _loader(types.float32), _storer(types.float32)
load_float64, store_float64 = _loader(types.float64), _storer(types.float64)
word, store_word = _loader(types.int64), _storer(types.int64)
byte, store_byte = _loader(types.uint8), _storer(types.uint8)
short, store_short = _loader(types.int32), _storer(types.int32)
nonzero_float32, nonzero_float64 = (_mask(kind, "!=", 0.0) for kind in (types.float32, types.float64))
one_float32, one_float64 = (_mask(kind, "==", 1.0, ordered=True) for kind in (types.float32, types.float64))
"""A mask of the 64 values from an index on, one bit each: whether it is nonzero (NaN included); whether it is 1."""
lowest = emitted(types.int64, (types.int64,), lambda builder, mask: builder.cttz(mask, ir.Constant(ir.IntType(1), 1)))
bits = emitted(types.int64, (types.int64,), lambda builder, mask: builder.ctpop(mask))
"""The position of the lowest bit of a mask, and the number of its bits."""

# -- streaming stores -------------------------------------------------------------------------------------------------

# A processor that writes a line of memory first reads it into its caches, and later writes it back from there: twice
# the bytes, and three times the time if the line is not read before it is back in memory. Lines written whole by
# streaming stores avoid both transfers. LLVM has these stores, but only uses them in loops that provably write whole
# lines. So values are first written to a buffer in the L1 cache, and `flow` copies it.


def _line(element: Any, size: int) -> Any:
    """Copies a line of values; where it goes begins at a multiple of `LINE`."""
    vector = ir.VectorType(element, LINE // size)

    def line(builder: Any, values: Any, to: Any) -> None:
        values, to = (builder.inttoptr(address, vector.as_pointer()) for address in (values, to))
        store = builder.store(builder.load(values, align=size), to, align=LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))

    return emitted(types.void, (types.int64, types.int64), line)


def _fence(builder: Any) -> None:
    builder.fence("seq_cst")


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
settled = emitted(types.void, (), _fence)
"""Waits until streaming stores are visible to other threads."""

# -- number of threads and thread number, from OpenMP ------------------------------------------------------------------

if openmp() is not None:
    # under private names: another OpenMP runtime in the process may define the common ones
    for _symbol in ("omp_get_thread_num", "omp_get_num_threads"):
        llvmlite.binding.add_symbol(f"spikeloom_{_symbol}", address_of(_symbol))

thread_number = types.ExternalFunction("spikeloom_omp_get_thread_num", types.int32())
team_size = types.ExternalFunction("spikeloom_omp_get_num_threads", types.int32())

# -- the compiler: Numba without the passes that generated source does not need ---------------------------------------

UNUSED = frozenset(
    {
        "WithLifting",
        "InlineClosureLikes",
        "RewriteSemanticConstants",
        "DeadBranchPrune",
        "GenericRewrites",
        "RewriteDynamicRaises",
        "MakeFunctionToJitFunction",
        "InlineInlinables",
        "FindLiterallyCalls",
        "LiteralUnroll",
        "LiteralPropagationSubPipelinePass",
        "InlineOverloads",
        "NopythonRewrites",
        "NoPythonSupportedFeatureValidation",
        "AnnotateTypes",
        "DumpParforDiagnostics",
    }
)
"""Passes for closures, comprehensions, `with` blocks, exceptions, literal arguments, expressions of arrays and what
Numba prints. A kernel has none of these. Without the passes its machine code is the same, in a seventh less time."""


class KernelCompiler(CompilerBase):
    """Numba's compiler with the other passes of its release."""

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("kernel")
        for each, description in DefaultPassBuilder.define_nopython_pipeline(self.state).passes:
            if each.__name__ not in UNUSED:
                passes.add_pass(each, description)
        passes.finalize()
        return [passes]
