"""What a run has found: one `Result` for a case at a shape, and the JSON that keeps results with every sample."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spikeloom.machine import machine, versions

Shape = tuple[int, ...]


class CannotRun(Exception):
    """A command was asked for what it cannot do here; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Result:
    """One case at one shape.

    Args:
        case: the name of the case.
        title: what was timed.
        sizes: the shape, by axis.
        ours: the contestant by whose time those of all are divided.
        floor: the contestant that is the least that any could take, if there is one.
        seconds: every sample, by contestant, in the order of the rounds.
        missing: how to get a contestant that is not installed.
        disagreeing: in what a contestant that was therefore not timed differs from its reference.
        notes: what contestants compute otherwise than ours.
        remarks: what else the case tells.
        swept: the axis along which this shape is one of many, if it is.
        memory: bytes that a contestant needed at its peak beyond its inputs and weights, a sample for each process.
        kernels: how many a contestant has compiled, or loaded from disk, if it tells.
        device: where it ran.
        label: the same as the title and the sizes, in a few words for a row of a summary.
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

    def peak(self, name: str) -> float:
        """The median of a contestant's peaks of memory, in bytes; 0 where it was not measured."""
        return statistics.median(self.memory.get(name, (0,)))

    def times_ours(self, name: str) -> float | None:
        """How many times as long as ours a contestant takes; None if ours was not timed."""
        return self._over(self.ours, name)

    def times_floor(self, name: str) -> float | None:
        """How many times as long as the floor a contestant takes; None without a floor."""
        return self._over(self.floor, name)

    def memory_times_ours(self, name: str) -> float | None:
        """How many times the memory of ours a contestant needs; None where one of them was not measured."""
        ours = self.peak(self.ours)
        return self.peak(name) / ours if ours and name in self.memory else None

    def _over(self, base: str | None, name: str) -> float | None:
        return self.median(name) / self.median(base) if base in self.seconds and base is not None else None


@dataclass(frozen=True)
class Record:
    """Results, and what they were measured on."""

    results: Sequence[Result]
    machine: Mapping[str, str | int] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def store(record: Record, path: Path) -> None:
    """Write a record as JSON: all that `load` needs, and the medians and ratios for other readers."""
    told = asdict(record)
    for result, entry in zip(record.results, told["results"], strict=True):
        entry["seconds"] = {name: [float(f"{s:.4g}") for s in samples] for name, samples in result.seconds.items()}
        entry["found"] = {name: figures(result, name) for name in result.seconds}
    path.write_text(json.dumps(told, indent=1) + "\n")


def figures(result: Result, name: str) -> dict[str, float | None]:
    """The numbers that the samples of one contestant come to."""
    return {
        "median_s": result.median(name),
        "min_s": min(result.seconds[name]),
        "times_ours": result.times_ours(name),
        "times_floor": result.times_floor(name),
    }


def load(path: Path) -> Record:
    """The record that `store` wrote."""
    told: dict[str, Any] = json.loads(path.read_text())
    results = [Result(**{k: v for k, v in entry.items() if k != "found"}) for entry in told.pop("results")]
    return Record(results, **told)
