"""The report: a table to read, and JSON with every sample to keep; both say what they were measured on."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from .runner import Result

PACKAGES = ("torch", "numpy", "numba", "snntorch", "triton", "matplotlib", "nir")
"""Packages whose version is worth telling; the first three are required, the others optional."""

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


# -- the table ---------------------------------------------------------------------------------------------------------


def heading() -> str:
    """What everything below was measured on."""
    here = machine()
    gpu = f", {here['gpu']}" if "gpu" in here else ""
    threads = f"{here['cores']} cores, {here['torch_threads']} torch threads"
    return f"{here['cpu']}, {threads}{gpu}\n" + ", ".join(f"{name} {number}" for name, number in versions().items())


def table(result: Result) -> str:
    """One case at one shape: a row per contestant."""
    case = result.case
    columns = {"": list(result.seconds)}
    columns["median"] = [duration(result.median(name)) for name in result.seconds]
    columns["min"] = [duration(min(samples)) for samples in result.seconds.values()]
    if case.peer in result.seconds:
        columns[f"{case.peer} / this"] = [times(result.speed_up(name)) for name in result.seconds]
    if case.floor in result.seconds:
        columns[f"this / {case.floor}"] = [times(result.times_floor(name)) for name in result.seconds]
    sizes = ", ".join(f"{axis} = {size}" for axis, size in zip(case.axes, result.shape, strict=True))
    rounds = max(map(len, result.seconds.values()), default=0)
    title = f"{case.title}{': ' if sizes else ''}{sizes}; {rounds} round{'s' * (rounds != 1)} in turn"
    notes = [f"{name}: {why}" for name, why in (*result.missing.items(), *result.disagreeing.items())]
    return "\n".join((title, aligned(columns), *notes, *filter(None, [result.remarks])))


def aligned(columns: dict[str, list[str]]) -> str:
    """Columns side by side under their headings: the first to the left, the numbers to the right."""
    padded = []
    for number, (head, cells) in enumerate(columns.items()):
        width = max(map(len, (head, *cells)))
        padded.append([cell.rjust(width) if number else cell.ljust(width) for cell in (head, *cells)])
    lines = ["  ".join(row) for row in zip(*padded, strict=True)]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(f"  {line}".rstrip() for line in lines)


def times(ratio: float | None) -> str:
    """A ratio in three digits or so.

    >>> times(2.345), times(24.5), times(187.3)
    ('2.3x', '24x', '187x')
    """
    return "" if ratio is None else f"{ratio:.{1 if ratio < 10 else 0}f}x"


def duration(seconds: float) -> str:
    """Three digits and a unit.

    >>> duration(0.0000123), duration(0.00666), duration(1.5)
    ('12.3 us', '6.66 ms', '1.50 s')
    """
    size, unit = next((size, unit) for size, unit in UNITS if seconds >= size or unit == UNITS[-1][1])
    value = seconds / size
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


# -- JSON --------------------------------------------------------------------------------------------------------------


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Machine, versions, date, medians, ratios, and every sample."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "results": [
            {
                "case": result.case.name,
                "shape": dict(zip(result.case.axes, result.shape, strict=True)),
                "peer": result.case.peer,
                "floor": result.case.floor,
                "contestants": {name: figures(result, name) for name in result.seconds},
                "missing": dict(result.missing),
                "disagreeing": dict(result.disagreeing),
                "remarks": result.remarks,
            }
            for result in results
        ],
    }


def figures(result: Result, name: str) -> dict[str, Any]:
    """The numbers of one contestant."""
    samples = result.seconds[name]
    return {
        "median_s": result.median(name),
        "min_s": min(samples),
        "times_faster_than_peer": result.speed_up(name),
        "times_the_floor": result.times_floor(name),
        "samples_s": samples,
    }


def store(results: Sequence[Result], path: Path) -> None:
    """Write the results as JSON."""
    path.write_text(json.dumps(as_json(results), indent=1) + "\n")


# -- what it was measured on -------------------------------------------------------------------------------------------


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
    """The versions of Python, spikeloom and the installed ones of `PACKAGES`."""
    found = {"python": platform.python_version(), "spikeloom": __version__}
    return found | {name: v for name in PACKAGES if (v := version_of(name)) is not None}


def version_of(package: str) -> str | None:
    """The installed version of a package, found without importing it; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Cores that this process may run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name as the operating system gives it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
