"""Kernels whose threads share rows: makes a function with named arguments from the source lines of a body."""

import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch

from .. import tuning
from ..graph import dtype_name
from ..jit import KernelSource, compiled, openmp

CONSTANTS = {
    "HEIGHT": tuning.shapes.tile_height,
    "CHUNK": tuning.shapes.product_rows,
    "TURNED": tuning.shapes.outer_rows,
    "SPARSE_BELOW": tuning.shapes.sparse_below,
    "LINE": tuning.shapes.line,
}
"""Names that a body may use. It may also use SLIM_HEIGHT, the rows of a slim tile, and PANEL, SLIM and BAND, the
columns of a panel, of a slim panel and of a band, in elements."""

ROUTINES = {
    "jit.intrinsics": ("nonzero", "one", "flow"),
    "sparse.microkernels": (
        "copy",
        "collect",
        "product",
        "tall",
        "flat",
        "listed",
        "pair",
        "slim",
        "thin",
        "band",
        "square",
    ),
}
"""Routines with one version per dtype, by file."""

INTRINSICS = {
    "jit.intrinsics": ("byte", "short", "store_byte", "store_short", "store_word", "lowest", "bits", "settled"),
}
"""Routines with one version for all dtypes."""

SHARE = """    part = ({shared} + threads - 1) // threads
    low = min(me * part, {shared})
    high = min(low + part, {shared})
"""


@cache
def panel_bytes() -> int:
    """Bytes of a row of a panel: 16 sums in a tall tile, as many registers as the operands leave free."""
    import llvmlite.binding  # imports Numba, which is not loaded before the first kernel

    return 256 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 64


@cache
def slim_height() -> int:
    """Rows of a slim tile, whose panel is a cache line: enough independent sums to hide the latency of an addition."""
    return 8 if panel_bytes() == 256 else 4


def importing(dtype: str, *names: str) -> str:
    """The lines that import the routines with these names."""
    typed = [f"{file} import {n}_{dtype} as {n}" for file, known in ROUTINES.items() for n in known if n in names]
    plain = [f"{file} import {n}" for file, known in INTRINSICS.items() for n in known if n in names]
    return "".join(f"from spikeloom.engine.{line}\n" for line in typed + plain)


def row_kernel(title: str, arguments: str, body: str) -> Callable[[torch.dtype], Callable[..., None]]:
    """A kernel, by dtype: called as `row_kernel(...)(x.dtype)(x=x, ...)`, see `openmp.Kernel.run`.

    Args:
        title: the first line of its source.
        arguments: the names of the arguments, integers of 64 bits. A name that ends in "*" is a tensor in a call and
            its address in the body. Threads share the range of the first argument, each from `low` to `high`. A call
            also takes `size`, the cost of one iteration in element-steps. With `scratch`, a call also passes the bytes
            of scratch memory per thread; the body gets the address of the memory of its thread.
        body: the lines of the body, which may use CONSTANTS, ROUTINES and the names of `KernelSource`.
    """
    first, *others = [name.strip() for name in arguments.split(",")]
    signature: openmp.Arguments = dict.fromkeys((first, "size", "team", *others))
    share, scratch = SHARE.format(shared=first), "scratch" in others
    if scratch:
        signature = {name if name != "scratch" else "scratch*": None for name in signature} | {"scratch_bytes": None}
        share += "    scratch += me * scratch_bytes\n"

    @cache
    def of_dtype(dtype: torch.dtype) -> Callable[..., None]:
        run: Callable[..., None] = compiled(_source(title, dtype, signature, share + body)).run
        return partial(_with_scratch, run) if scratch else run

    return of_dtype


def _with_scratch(run: Callable[..., None], *, scratch: int, **given: Any) -> None:
    """Call a kernel with `scratch` bytes of scratch memory per thread."""
    line = tuning.shapes.line
    whole = -(-scratch // line) * line
    memory, threads = openmp.scratch(whole)
    run(scratch=memory, scratch_bytes=whole, threads=threads, **given)


def _source(title: str, dtype: torch.dtype, arguments: openmp.Arguments, body: str) -> KernelSource:
    name, panel, slim = dtype_name(dtype), panel_bytes() // dtype.itemsize, tuning.shapes.line // dtype.itemsize
    constants = CONSTANTS | {"PANEL": panel, "SLIM": slim, "BAND": 2 * slim, "SLIM_HEIGHT": slim_height()}
    imports = importing(name, *re.findall(r"(\w+)\(", body))
    imports += "".join(f"{key} = {value}\n" for key, value in constants.items())
    return KernelSource(f"{title}, {name}", name, arguments, body, imports)
