"""The frame of every kernel around its loops (imports, arguments, a thread's share), and its compilation."""

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from textwrap import indent
from threading import RLock
from typing import Any

from ...forks import in_child
from . import kernel_cache, openmp

SOURCE = '''"""{title}"""
import math
from math import inf, nan

import numpy as np
from numba import cfunc, types
from spikeloom.engine.jit.intrinsics import KernelCompiler, load_{dtype} as load, store_{dtype} as store, word
{imports}
R = np.{dtype}
SIZE = {size}
ARGUMENTS = {arguments}


@cfunc(types.void(types.int64{extra_types}), error_model="numpy", cache={cached}, pipeline_class=KernelCompiler)
def kernel(words{extra}):
{share}
{unpack}
{body}
'''

ELEMENTARY = "from spikeloom.engine.jit.vector_math import exp_{dtype} as exp, tanh_{dtype} as tanh\n"

TEAM_SHARE = """    me, threads = types.int64(0), types.int64(1)
    if word(words, 2) != 0:
        me, threads = types.int64(thread_number()), types.int64(team_size())"""


def lines(source: Iterable[str], depth: int) -> str:
    """Lines of source at an indentation."""
    return indent("\n".join(source), "    " * depth)


@dataclass(frozen=True)
class KernelSource:
    """The source of a module with `kernel`.

    Args:
        title: the module's first line. It is executed, so it must not contain text from a user.
        dtype: "float32" or "float64".
        arguments: see `openmp.Arguments`: 64-bit words, of which the first three are "steps", "size" and "team".
        body: its lines, which may use `me` of `threads`, load, store, R and SIZE.
        imports: further lines of import.
    """

    title: str
    dtype: str
    arguments: openmp.Arguments
    body: str
    imports: str = ""

    def text(self, team: bool, cached: bool) -> str:
        """The source of the module.

        Args:
            team: whether the kernel gets its share of the work from OpenMP.
            cached: whether Numba caches the machine code on disk.
        """
        own = "from spikeloom.engine.jit.intrinsics import team_size, thread_number\n" if team else ""
        if "exp(" in self.body or "tanh(" in self.body:
            own += ELEMENTARY.format(dtype=self.dtype)
        return SOURCE.format(
            title=self.title,
            dtype=self.dtype,
            size=4 if self.dtype == "float32" else 8,
            imports=self.imports + own,
            cached=cached,
            extra="" if team else ", me, threads",
            extra_types="" if team else ", types.int64, types.int64",
            share=TEAM_SHARE if team else "    # the caller says which share this is",
            arguments=self.arguments,
            unpack=lines([f"{name} = word(words, {i})" for i, name in enumerate(openmp.names(self.arguments))], 1),
            body=self.body,
        )


@in_child
def _renew_locks_of_numba() -> None:
    """After a fork: renew the locks of Numba and LLVM, which a compiling thread of the parent process may have held."""
    modules: Any = sys.modules
    for find in (
        lambda: modules["numba.core.compiler_lock"].global_compiler_lock,
        lambda: modules["numba.core.registry"].cpu_target.typing_context.callstack,
        lambda: modules["llvmlite.binding.ffi"].lib._lock,
    ):
        with suppress(KeyError, AttributeError):  # not loaded, or a release that has another
            find()._lock = RLock()


def compiled(source: KernelSource) -> openmp.Kernel:
    """The kernel of a module, from disk if it is there."""
    team = openmp.openmp() is not None
    module = kernel_cache.load(lambda cached: source.text(team, cached))
    return openmp.Kernel(module.kernel, module.ARGUMENTS, team)
