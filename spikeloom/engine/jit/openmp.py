"""Distribute a kernel's elements among threads.

The kernel runs on the OpenMP runtime that torch itself has loaded, so that both use one set of threads. (Numba's own
pool would compete with torch's for cores: at [500, 16, 512] it took up to ten times as long as one thread.) Without
that runtime (macOS, Windows), a small Python pool calls the kernel, which releases the interpreter lock.

Results are bit-identical for any number of threads: elements are independent, and sums over them are made afterwards.
"""

import ctypes
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from struct import Struct
from textwrap import indent
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
    """The address of a function of the OpenMP runtime."""
    return ctypes.cast(getattr(openmp(), symbol), ctypes.c_void_p).value or 0


def team_size(work: int, team: int | None = None) -> int:
    """The number of threads for `work` element-steps: at most `team`, or torch's current number."""
    return 1 if _forked or work <= tuning.limits.serial_below else team or torch.get_num_threads()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="spikeloom")


def scratch(size: int) -> tuple[Tensor, int]:
    """Scratch memory for a kernel, of the given number of bytes per thread, and the number of threads for `run`."""
    team = torch.get_num_threads()
    return torch.empty(team * size, dtype=torch.uint8, device="cpu"), team


class Kernel:
    """A compiled kernel, called with its arguments by name.

    Args:
        function: what Numba compiled; it holds the machine code.
        arguments: see `Arguments`.
        team: whether OpenMP gives a thread its share; otherwise the share is an argument.

    Attributes:
        run: takes the arguments: numbers, and tensors or None; a sequence for a group. The first two multiplied are the
            work, in element-steps. `team` is counted here; `threads` says for how many there is scratch memory. (Who
            counts again may find others: another thread of Python has called `torch.set_num_threads`.)
    """

    def __init__(self, function: Any, arguments: "Arguments", team: bool):
        self.function, self.address, self.team = function, ctypes.c_void_p(function.address), team
        extra = () if team else (ctypes.c_int64, ctypes.c_int64)
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_char_p, *extra)(function.address)
        self.run = _by_name(tuple(arguments.items()))(team_size, self._alone, self._together)

    @property
    def _alone(self) -> Callable[[bytes], None]:
        """Run on the calling thread."""
        call = self._call
        return call if self.team else lambda packed: call(packed, 0, 1)

    def _together(self, packed: bytes, threads: int) -> None:
        """Run on the team of threads."""
        if self.team:
            runtime = openmp()
            assert runtime is not None
            runtime.GOMP_parallel(self.address, ctypes.c_char_p(packed), threads, 0)
        else:
            list(_pool(threads).map(lambda me: self._call(packed, me, threads), range(threads)))


CALL = """
def bind(team_size, alone, together):
    def run(*, {keywords}, threads=None):
{groups}
        threads = 1 if {work} <= tuning.limits.serial_below else team_size({work}, threads)
        team = threads > 1
        packed = pack({packed})
        together(packed, threads) if team else alone(packed)

    return run
"""

ADDRESS = "0 if {0} is None else {0}.data_ptr()"

Arguments = Mapping[str, int | None]
"""The arguments of a kernel in order. The name of a tensor ends in "*"; a kernel gets its address. The value is n for a
group of n arguments, such as one tensor per state, and None for a single argument."""


def names(arguments: Arguments) -> list[str]:
    """The arguments one by one, as a kernel calls them; the members of a group by name and number."""
    return [name.strip("*") for name in _each(arguments)]


def _each(arguments: Arguments) -> list[str]:
    members = [(name, [""] if n is None else range(n)) for name, n in arguments.items()]
    return [f"{name.strip('*')}{k}{'*' * name.endswith('*')}" for name, each in members for k in each]


@cache
def _by_name(arguments: tuple[tuple[str, int | None], ...]) -> Any:
    """Compiles a call by name: it packs the arguments in the kernel's order, and raises for one too many or too few."""
    every, groups = dict(arguments), [(name, n) for name, n in arguments if n is not None]
    given = [name.strip("*") + "=()" * (n == 0) for name, n in arguments if name != "team"]
    unpacked = [f"[{', '.join(names({name: n}))}] = {name.strip('*')}" for name, n in groups]
    packed = [name if name[-1] != "*" else ADDRESS.format(name[:-1]) for name in _each(every)]
    source = CALL.format(
        keywords=", ".join(given),
        groups=indent("\n".join(unpacked), "        "),
        work=" * ".join([*every][:2]),
        packed=", ".join(packed),
    )
    made: dict[str, Any] = {"tuning": tuning, "pack": Struct(f"{len(packed)}q").pack}
    exec(source, made)
    return made["bind"]
