"""Results of runs: one `Result` per case and shape, and JSON files with all samples."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spikeloom.machine import machine, versions

Shape = tuple[int, ...]

NOISY = 2.0
"""The median of a contestant's samples, relative to their minimum, from which a measurement is noisy."""


class CannotRun(Exception):
    """A command cannot run with these arguments; the message says why, and how to fix it."""


@dataclass(frozen=True)
class Result:
    """One case at one shape.

    Args:
        case: the name of the case.
        title: what was timed.
        sizes: the shape, by axis.
        ours: the contestant whose time is the unit of the ratios.
        floor: the contestant that does the minimum work, if there is one.
        seconds: every sample, by contestant, in the order of the rounds.
        missing: how to install a missing contestant.
        disagreeing: how a contestant differs from its reference, which is therefore not timed.
        notes: how the equations of contestants differ from `ours`.
        remarks: further information from the case.
        swept: the axis of the sweep, if this shape is part of one.
        memory: peak bytes of a contestant in addition to its inputs and weights, one sample per process.
        kernels: number of kernels that a contestant compiled or loaded from disk, if known.
        device: the device of the run.
        label: title and sizes in short, for a row of a summary.
    """

    case: str
    title: str
    sizes: Mapping[str, int]
    ours: str
    floor: str | None
    seconds: Mapping[str, Sequence[float]]
    missing: Mapping[str, str] = field(default_factory=dict)
    disagreeing: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    remarks: str = ""
    swept: str | None = None
    memory: Mapping[str, Sequence[int]] = field(default_factory=dict)
    kernels: Mapping[str, int] = field(default_factory=dict)
    label: str = ""
    device: str = "cpu"

    def median(self, name: str) -> float:
        """The median of a contestant's samples, in seconds."""
        return statistics.median(self.seconds[name])

    def noise(self, name: str) -> float:
        """The median of a contestant's samples, relative to their minimum."""
        return self.median(name) / (min(self.seconds[name]) or math.inf)

    @property
    def noisy(self) -> dict[str, float]:
        """The contestants whose samples are far apart, with the ratio of median and minimum."""
        return {name: ratio for name in self.seconds if (ratio := self.noise(name)) >= NOISY}

    def peak(self, name: str) -> float:
        """The median of a contestant's memory peaks, in bytes; 0 if not measured."""
        return statistics.median(self.memory.get(name, (0,)))

    def times_ours(self, name: str) -> float | None:
        """The time of a contestant relative to `ours`; None if `ours` was not timed."""
        return self._over(self.ours, name)

    def times_floor(self, name: str) -> float | None:
        """The time of a contestant relative to the floor; None without a floor."""
        return self._over(self.floor, name)

    def memory_times_ours(self, name: str) -> float | None:
        """The memory of a contestant relative to `ours`; None if one of them was not measured."""
        ours = self.peak(self.ours)
        return self.peak(name) / ours if ours and name in self.memory else None

    def _over(self, base: str | None, name: str) -> float | None:
        return self.median(name) / self.median(base) if base in self.seconds and base is not None else None


@dataclass(frozen=True)
class Record:
    """Results, with the machine and the versions."""

    results: Sequence[Result]
    machine: Mapping[str, str | int] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def store(record: Record, path: Path) -> None:
    """Write a record as JSON, with medians and ratios for other readers."""
    content = asdict(record)
    for result, entry in zip(record.results, content["results"], strict=True):
        entry["seconds"] = {name: [float(f"{s:.4g}") for s in samples] for name, samples in result.seconds.items()}
        entry["found"] = {name: figures(result, name) for name in result.seconds}
        entry["noisy"] = [*result.noisy]
    path.write_text(json.dumps(content, indent=1) + "\n")


def figures(result: Result, name: str) -> dict[str, float | None]:
    """Statistics of the samples of one contestant."""
    return {
        "median_s": result.median(name),
        "min_s": min(result.seconds[name]),
        "noise": result.noise(name),
        "times_ours": result.times_ours(name),
        "times_floor": result.times_floor(name),
    }


DERIVED = ("found", "noisy")
"""Entries of a stored result that follow from its samples."""


def load(path: Path) -> Record:
    """Read a record that `store` wrote."""
    content: dict[str, Any] = json.loads(path.read_text())
    results = [Result(**{k: v for k, v in entry.items() if k not in DERIVED}) for entry in content.pop("results")]
    return Record(results, **content)
