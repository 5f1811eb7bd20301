"""Sharing a kernel's elements among threads.

The kernel is handed to the OpenMP runtime that torch itself has loaded, so that both use one set of threads. (Numba's
own pool beside torch's waits on busy cores: at [500, 16, 512] it took up to ten times as long as one thread.) Where
there is no such runtime (macOS, Windows) a small Python pool calls the kernel, which holds no interpreter lock.

One or several threads give the same bits: elements are independent, and sums over them are made afterwards.
"""

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from struct import Struct
from typing import Any

import torch
from torch import Tensor

from ...forks import in_child
from .. import tuning

_forked = False


@in_child
def _note_fork() -> None:
    # an OpenMP team does not survive a fork: its child would wait for threads that are not there
    global _forked
    _forked = True


@cache
def openmp() -> ctypes.CDLL | None:
    """The OpenMP runtime that torch runs on, or None."""
    torch_cpu = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        runtime = ctypes.CDLL(str(torch_cpu))  # looks its symbols up in torch's own dependencies
        return runtime if runtime.GOMP_parallel and runtime.omp_get_num_threads else None
    except (OSError, AttributeError):
        return None


def address_of(symbol: str) -> int:
    """Where a function of the OpenMP runtime lies."""
    return ctypes.cast(getattr(openmp(), symbol), ctypes.c_void_p).value or 0


def team_size(work: int, team: int | None = None) -> int:
    """How many threads are to share `work` element-steps: of `team`, or of torch's at this moment."""
    return 1 if _forked or work <= tuning.limits.serial_below else team or torch.get_num_threads()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="spikeloom")


@cache
def _packer(count: int) -> Callable[..., bytes]:
    """From so many integers to their 64-bit words. (An array, a ctypes one too, takes longer to make.)"""
    return Struct(f"{count}q").pack


def scratch(size: int) -> tuple[Tensor, int]:
    """Memory for a kernel to work in, so many bytes for each thread, and the team, for `run`: so many threads."""
    team = torch.get_num_threads()
    return torch.empty(team * size, dtype=torch.uint8, device="cpu"), team


class Entry:
    """A compiled kernel, ready to be run.

    Args:
        function: what Numba compiled; it holds the machine code.
        team: whether it asks OpenMP for its share; else the share is an argument.
    """

    def __init__(self, function: Any, team: bool):
        self.function, self.address, self.team = function, ctypes.c_void_p(function.address), team
        extra = () if team else (ctypes.c_int64, ctypes.c_int64)
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_char_p, *extra)(function.address)

    def run(self, words: Sequence[int], team: int | None = None) -> None:
        """Run with these arguments (see `cpu.source`): words[0] is T, words[1] is M; words[2], the team, is 0.

        Args:
            team: for how many threads there is scratch memory. Who counts them again may find others: another thread
                of Python has called `torch.set_num_threads`.
        """
        threads = team_size(words[0] * words[1], team)
        if threads > 1 and self.team:
            words = (*words[:2], 1, *words[3:])
        packed = _packer(len(words))(*words)
        if threads == 1:
            self.call(packed) if self.team else self.call(packed, 0, 1)
        elif self.team:
            runtime = openmp()
            assert runtime is not None
            runtime.GOMP_parallel(self.address, ctypes.c_char_p(packed), threads, 0)
        else:
            list(_pool(threads).map(lambda me: self.call(packed, me, threads), range(threads)))
