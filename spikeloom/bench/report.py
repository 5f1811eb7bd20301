"""The report: a table to read, and JSON with every sample to keep."""

import json
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .case import Case, Ratio
from .machine import machine, versions
from .runner import Result

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def heading() -> str:
    """One line on what everything below was measured on."""
    here, has = machine(), versions()
    gpu = f", {here['gpu']}" if "gpu" in here else ""
    threads = f"{here['cores']} cores, {here['torch_threads']} torch threads"
    return f"{here['cpu']}, {threads}{gpu}\n" + ", ".join(f"{name} {number}" for name, number in has.items())


def table(case: Case, result: Result) -> str:
    """One case at one shape as text: a row per contestant."""
    ratios = [ratio for ratio in case.ratios if ratio.to in result.seconds]
    rows = [["", "median", "min", *(ratio.heading for ratio in ratios)]]
    for name, samples in result.seconds.items():
        times = [duration(result.median(name)), duration(min(samples))]
        rows.append([name, *times, *(quotient(result, name, ratio) for ratio in ratios)])
    sizes = ", ".join(f"{axis}={size}" for axis, size in zip(case.axes, result.shape, strict=True))
    title = f"{case.title}{': ' if sizes else ''}{sizes}; {result.rounds} rounds in turn"
    notes = [f"{name}: {why}" for name, why in (*result.missing.items(), *result.disagreeing.items())]
    return "\n".join((title, aligned(rows), *notes, *result.remarks))


def quotient(result: Result, name: str, ratio: Ratio) -> str:
    """How many times faster than the ratio's contestant, or how many times as long, by the medians."""
    theirs, ours = result.median(ratio.to), result.median(name)
    value = theirs / ours if ratio.gain else ours / theirs
    return f"{value:.{2 if value < 10 else 0}f}x"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side: the first to the left, the numbers to the right."""
    first = max(len(row[0]) for row in rows)
    rows = [[row[0].ljust(first), *row[1:]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(f"  {line}".rstrip() for line in lines)


def duration(seconds: float) -> str:
    """Three digits and a unit.

    >>> duration(0.0000123), duration(0.00666), duration(1.5)
    ('12.3 us', '6.66 ms', '1.50 s')
    """
    size, unit = next((size, unit) for size, unit in UNITS if seconds >= size or unit == UNITS[-1][1])
    value = seconds / size
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Machine, versions, date, and every sample."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "results": [
            {
                "case": result.case,
                "shape": list(result.shape),
                "rounds": result.rounds,
                "contestants": {
                    name: {"median_s": statistics.median(samples), "min_s": min(samples), "samples_s": samples}
                    for name, samples in result.seconds.items()
                },
                "missing": dict(result.missing),
                "disagreeing": dict(result.disagreeing),
                "remarks": list(result.remarks),
            }
            for result in results
        ],
    }


def store(results: Sequence[Result], path: Path) -> None:
    """Write the results as JSON."""
    path.write_text(json.dumps(as_json(results), indent=1) + "\n")
