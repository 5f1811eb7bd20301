"""The report: a table, with the machine that it was measured on."""

from collections.abc import Mapping, Sequence

from spikeloom.machine import machine, versions

from .result import Result

FAR = 1.2
"""The ratio of the largest and smallest peak of memory from which both are shown."""

QUIET = "other processes used the cores. Measure again on an idle machine, or with OMP_WAIT_POLICY=passive"

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def heading() -> str:
    """The machine and the versions."""
    here = machine()
    gpu = f", {here['gpu']}" if "gpu" in here else ""
    threads = f"{here['cores']} cores, {here['torch_threads']} torch threads"
    return f"{here['cpu']}, {threads}{gpu}\n" + ", ".join(f"{name} {number}" for name, number in versions().items())


def table(result: Result) -> str:
    """One case at one shape: a row per contestant."""
    rounds = max(map(len, result.seconds.values()), default=0)
    title = f"{headline(result)}; {rounds} round{'s' * (rounds != 1)} in turn"
    reasons = (*result.missing.items(), *result.disagreeing.items(), *result.notes.items())
    notes = [f"{name}: {why}" for name, why in reasons]
    return "\n".join((title, aligned(columns(result)), *notes, *filter(None, [result.remarks, noise(result)])))


def noise(result: Result) -> str:
    """A warning that names the contestants whose samples are far apart; "" if there are none."""
    ratios = ", ".join(f"{name} ({times(ratio)})" for name, ratio in result.noisy.items())
    return f"NOISY: the median is far above the minimum of {ratios}; {QUIET}" if ratios else ""


def headline(result: Result) -> str:
    """The title with the sizes."""
    sizes = ", ".join(f"{axis} = {size}" for axis, size in result.sizes.items())
    return f"{result.title}{': ' if sizes else ''}{sizes}"


def columns(result: Result) -> dict[str, list[str]]:
    """The columns of a table by their headings, with a row per contestant."""
    names = list(result.seconds)
    found = {
        "": names,
        "median": [duration(result.median(name)) for name in names],
        "min": [duration(min(result.seconds[name])) for name in names],
    }
    if result.ours in result.seconds:
        found[f"this / {result.ours}"] = [times(result.times_ours(name)) for name in names]
    if result.floor in result.seconds:
        found[f"this / {result.floor}"] = [times(result.times_floor(name)) for name in names]
    if result.kernels:
        found["kernels compiled or loaded"] = [str(result.kernels.get(name, "")) for name in names]
    if result.memory:
        found["memory"] = [memory(result, name) for name in names]
    return found


def memory(result: Result, name: str) -> str:
    """The peak of a contestant, or the range if samples are far apart; and its median relative to `ours`."""
    if name not in result.memory:
        return ""
    least, most = min(result.memory[name]), max(result.memory[name])
    found = size(result.peak(name)) if most < FAR * least else f"{size(least)} to {size(most)}"
    return f"{found} ({times(result.memory_times_ours(name))})"


def aligned(columns: dict[str, list[str]]) -> str:
    """Columns under their headings, the first left-aligned, the numbers right-aligned."""
    padded = []
    for number, (head, cells) in enumerate(columns.items()):
        width = max(map(len, (head, *cells)))
        padded.append([cell.rjust(width) if number else cell.ljust(width) for cell in (head, *cells)])
    lines = ["  ".join(row) for row in zip(*padded, strict=True)]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(f"  {line}".rstrip() for line in lines)


def markdown(columns: Mapping[str, Sequence[str]]) -> str:
    """The same as a Markdown table."""
    rows = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def times(ratio: float | None) -> str:
    """A ratio with about two digits.

    >>> times(0.4512), times(2.345), times(24.5), times(187.3)
    ('0.45x', '2.3x', '24x', '187x')
    """
    return "" if ratio is None else f"{ratio:.{2 if ratio < 0.995 else 1 if ratio < 10 else 0}f}x"


def duration(seconds: float) -> str:
    """A duration with three digits and a unit.

    >>> duration(0.0000123), duration(0.00666), duration(1.5)
    ('12.3 us', '6.66 ms', '1.50 s')
    """
    size, unit = next((size, unit) for size, unit in UNITS if seconds >= size or unit == UNITS[-1][1])
    value = seconds / size
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def size(count: float) -> str:
    """Bytes in megabytes.

    >>> size(1_283_400_000), size(3_210_000), size(20_000)
    ('1,283 MB', '3.2 MB', '0.0 MB')
    """
    megabytes = count / 1e6
    return f"{megabytes:,.{0 if megabytes >= 100 else 1}f} MB"
