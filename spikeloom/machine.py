"""The hardware and the package versions of a measurement, and whether other processes slow down its threads."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from . import __version__

PEERS = {"snntorch": "1.0.0", "spikingjelly": "2.0.0", "norse": "1.1.0", "sinabs": "3.1.3", "spyx": "1.0.0"}
"""The libraries of the comparison, and the version that is assumed if one is not installed."""

PACKAGES = ("numpy", "numba", *PEERS, "jax", "triton", "matplotlib", "nir")
"""Packages whose version is reported, in addition to torch. The first two are required, the others optional."""


def machine() -> dict[str, str | int]:
    """Processor, cores, threads, operating system, and the GPU if there is one."""
    found: dict[str, str | int] = {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def versions() -> dict[str, str]:
    """The versions of Python, spikeloom, torch (with its build tag) and the installed packages of `PACKAGES`."""
    found = {"python": platform.python_version(), "spikeloom": __version__, "torch": str(torch.__version__)}
    return found | {name: v for name in PACKAGES if (v := version_of(name)) is not None}


def version_of(package: str) -> str | None:
    """The installed version of a package, found without importing it; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Number of cores that this process may run on, which may be fewer than the computer has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name as reported by the operating system."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# -- threads -----------------------------------------------------------------------------------------------------------

NUMBERS = 1_000_000
"""Elements of the torch.add that measures the threads: large enough for all threads, and 0.1 to 1 ms long."""

SLOWER = 1.5
"""The time on all threads, relative to that on one thread, from which threads cost more than they gain."""

STALLED = 10.0
"""The time of the slowest tenth, relative to the fastest, from which threads wait for each other."""

CURE = (
    "Set OMP_WAIT_POLICY=passive before Python starts, so that waiting threads leave their cores to others; or use "
    "fewer threads: torch.set_num_threads(1), or OMP_NUM_THREADS=1"
)


@dataclass(frozen=True)
class Threads:
    """The speed of a parallel region.

    Args:
        count: number of threads that torch uses.
        together: seconds of each torch.add on all threads.
        alone: the same on one thread; both empty for one thread.
        limit: number of CPUs that a cgroup (a container, a batch system) allows; None without a limit.
        load: processes that run or wait, averaged over the last minute; None if unknown.
        policy: OMP_WAIT_POLICY; empty if it is not set.
    """

    count: int
    together: Sequence[float] = ()
    alone: Sequence[float] = ()
    limit: float | None = None
    load: float | None = None
    policy: str = ""

    @property
    def slower(self) -> float:
        """The median time on all threads, relative to that on one thread; 0 if it was not measured."""
        return statistics.median(self.together) / statistics.median(self.alone) if self.together else 0.0

    @property
    def stalls(self) -> float:
        """The time of the slowest tenth on all threads, relative to the fastest; 0 if it was not measured."""
        return sorted(self.together)[len(self.together) * 9 // 10] / min(self.together) if self.together else 0.0

    @property
    def problems(self) -> list[str]:
        """Why the threads are slowed down, as sentences; empty if they are not."""
        found = []
        if self.limit is not None and self.count > max(1.0, self.limit):
            found.append(f"a cgroup allows {self.limit:g} CPUs, and torch uses {self.count} threads")
        if self.slower >= SLOWER:
            found.append(f"{self.count} threads take {_times(self.slower)} as long as one")
        if self.stalls >= STALLED:
            found.append(f"the slowest tenth of the calls takes {_times(self.stalls)} as long as the fastest call")
        return found


def _times(ratio: float) -> str:
    return f"{ratio:,.{1 if ratio < 10 else 0}f} times"


def measured_threads(seconds: float = 0.25) -> Threads:
    """Time an elementwise addition on all threads of torch and on one, for a number of seconds each."""
    count = torch.get_num_threads()
    samples: dict[int, list[float]] = {count: [], 1: []}
    if count > 1:
        a, b = torch.zeros(2, NUMBERS).unbind()
        try:
            for threads, found in samples.items():
                torch.set_num_threads(threads)
                torch.add(a, b, out=a)  # starts the threads
                end = time.perf_counter() + seconds
                while (begun := time.perf_counter()) < end:
                    torch.add(a, b, out=a)
                    found.append(time.perf_counter() - begun)
        finally:
            torch.set_num_threads(count)
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows has none
        load = None
    return Threads(
        count=count,
        together=samples[count] if count > 1 else (),
        alone=samples[1] if count > 1 else (),
        limit=cpu_limit(),
        load=load,
        policy=os.environ.get("OMP_WAIT_POLICY", ""),
    )


def cpu_limit(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The number of CPUs that the cgroups of this process allow; None without a limit."""
    limits = []
    try:
        paths = [line.split(":", 2)[2].strip("/\n") for line in own.read_text().splitlines()]
    except (OSError, IndexError):
        paths = []
    for path in paths or [""]:
        folder = root / path
        for place in (folder, *(parent for parent in folder.parents if parent.is_relative_to(root))):
            limits += [limit for limit in (_quota(place), _quota(place / "cpu")) if limit is not None]
    return min(limits, default=None)


def _quota(folder: Path) -> float | None:
    """The limit of one cgroup, of version 2 or 1."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # "max", or no limit of this kind
        return None
