"""Kernels of this folder: from the lines of a body to a function that is called by argument name."""

import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch

from ..graph import dtype_name
from ..jit import CHUNK, HEIGHT, LINE, SPARSE_BELOW, TURNED, compiled, module_source, openmp, panel_bytes, slim_height

CONSTANTS = {"HEIGHT": HEIGHT, "CHUNK": CHUNK, "TURNED": TURNED, "SPARSE_BELOW": SPARSE_BELOW, "LINE": LINE}
"""Names that a body may use. Besides these there are SLIM_HEIGHT, the rows of a slim tile, and in elements PANEL and
SLIM, the columns of a panel and of a slim one."""

ROUTINES = {
    "jit.intrinsics": ("nonzero", "one"),
    "jit.streaming_store": ("flow",),
    "sparse.gemm": ("copy", "collect", "product", "tall", "flat", "listed", "pair", "slim", "thin"),
}
"""What a body may call, by file: those that there are for each dtype, and those that there are once."""

INTRINSICS = {
    "jit.intrinsics": ("byte", "short", "store_byte", "store_short", "store_word", "lowest", "bits"),
    "jit.streaming_store": ("settled",),
}

SHARE = """    part = ({shared} + threads - 1) // threads
    low = min(me * part, {shared})
    high = min(low + part, {shared})
"""

CALL = """def call(*, {names}, size):
{scratch}
    entry.run(({values}), {team})
"""

SCRATCH = f"""    scratch_bytes = -(-scratch // {LINE}) * {LINE}
    memory, team = new_scratch(scratch_bytes)"""


def importing(dtype: str, *names: str) -> str:
    """The lines that import the routines among some names."""
    typed = [f"{file} import {n}_{dtype} as {n}" for file, known in ROUTINES.items() for n in known if n in names]
    plain = [f"{file} import {n}" for file, known in INTRINSICS.items() for n in known if n in names]
    return "".join(f"from spikeloom.engine.{line}\n" for line in typed + plain)


def kernel(title: str, arguments: str, body: str) -> Callable[[torch.dtype], Callable[..., None]]:
    """A kernel, by dtype: called as `kernel(...)(x.dtype)(x=x, ...)`. A missing or further name is a TypeError.

    Args:
        title: the first line of its source.
        arguments: their names, integers of 64 bits. That of a tensor ends in "*": it is given as a tensor, and the body
            gets its address. Threads share the first argument, each from `low` to `high`. A call also takes `size`,
            what one of these costs in element-steps. If there is `scratch`, a call gives its bytes for each thread,
            and the body gets the address of this thread's.
        body: its lines, which may use CONSTANTS, ROUTINES and what `module_source` says.
    """
    asked = [name.strip() for name in arguments.split(",")]
    names = [name.rstrip("*") for name in asked]
    words = [names[0], "size", "team", *names[1:]]
    values = [names[0], "size", "0", *(f"{n[:-1]}.data_ptr()" if n.endswith("*") else n for n in asked[1:])]
    share = SHARE.format(shared=names[0])
    scratch = "scratch" in names
    if scratch:
        words.append("scratch_bytes")
        values[values.index("scratch")] = "memory.data_ptr()"
        values.append("scratch_bytes")
        share += "    scratch += me * scratch_bytes\n"
    call = CALL.format(
        names=", ".join(names),
        scratch=SCRATCH if scratch else "",
        values=", ".join(values),
        team="team" if scratch else None,
    )

    @cache
    def of_dtype(dtype: torch.dtype) -> Callable[..., None]:
        source = partial(_source, f"{title}, {dtype_name(dtype)}", dtype, words, share + body)
        scope: dict[str, Any] = {"entry": compiled(source), "new_scratch": openmp.scratch}
        exec(call, scope)
        by_name: Callable[..., None] = scope["call"]
        return by_name

    return of_dtype


def _source(title: str, dtype: torch.dtype, words: list[str], body: str, team: bool, cached: bool) -> str:
    name, panel, slim = dtype_name(dtype), panel_bytes() // dtype.itemsize, LINE // dtype.itemsize
    constants = CONSTANTS | {"PANEL": panel, "SLIM": slim, "SLIM_HEIGHT": slim_height()}
    imports = importing(name, *re.findall(r"(\w+)\(", body))
    imports += "".join(f"{key} = {value}\n" for key, value in constants.items())
    return module_source(title, name, words, body, team, cached, imports)
