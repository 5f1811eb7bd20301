"""The hardware and the package versions of a measurement."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from . import __version__

PEERS = {"snntorch": "1.0.0", "spikingjelly": "2.0.0", "norse": "1.1.0", "sinabs": "3.1.3", "spyx": "1.0.0"}
"""The libraries of the comparison, and the version that is assumed if one is not installed."""

PACKAGES = ("numpy", "numba", *PEERS, "jax", "triton", "matplotlib", "nir")
"""Packages besides torch whose version is reported; the first two are required, the others optional."""


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
