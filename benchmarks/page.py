"""Generate the tables of a page from stored runs.

A page marks each place by `<!-- bench NAME -->` and `<!-- end -->`; the tables of that case are inserted between them.
`<!-- bench summary: NAME NAME -->` inserts a row of times per case, `<!-- bench memory: NAME NAME -->` a row of memory
per case, and `<!-- bench machine: NAME NAME -->` the machine and versions.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from .leaky import PEER
from .on_jax import SPYX
from .peers import LIBRARIES
from .report import columns, duration, headline, markdown, size, times
from .result import CannotRun, Record, Result, load

PLACE = re.compile(r"(<!-- bench ([\w:\- ]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: Path, folder: Path) -> str:
    """The text of a page with its tables generated from the runs stored in a folder.

    Raises:
        CannotRun: if the page does not exist.
    """
    if not page.is_file():
        raise CannotRun(f"--page got {page}; pass the path of an existing page, such as docs/benchmarks.md")

    def filled(place: re.Match[str]) -> str:
        opening, request, end = place.groups()
        return f"{opening}{section(request, folder)}\n{end}"

    return PLACE.sub(filled, page.read_text())


def section(request: str, folder: Path) -> str:
    """The text between the marks of one place; "Not measured." if no run is stored."""
    kind, _, names = request.partition(":")
    paths = [folder / f"{name}.json" for name in (names or request).split()]
    records = [load(path) for path in paths if path.is_file()]
    if not records:
        return "Not measured."
    if names:
        return {"machine": machine, "summary": summary, "memory": memory}[kind](records)
    (record,) = records
    parts = [shown(result) for result in record.results if result.swept is None]
    if swept := [result for result in record.results if result.swept is not None]:
        parts += [sweep([r for r in swept if r.swept == axis]) for axis in dict.fromkeys(r.swept for r in swept)]
    picture = folder / f"{request}.svg"
    if picture.is_file():
        parts.append(f"![time of {request} against each axis]({folder.name}/{picture.name})")
    return "\n\n".join(parts)


def machine(records: list[Record]) -> str:
    """The machines and versions of the runs, one line per distinct set."""
    lines = {}
    for record in records:
        versions = ", ".join(f"{name} {number}" for name, number in record.versions.items())
        threads = f"{record.machine['cores']} cores, {record.machine['torch_threads']} torch threads"
        gpu = f"{record.machine['gpu']}; " if any(result.device != "cpu" for result in record.results) else ""
        lines[f"{gpu}{record.machine['cpu']}, {threads}, {record.machine['system']}; {versions}"] = record.date[:10]
    return "\n".join(f"- {line} ({date})." for line, date in lines.items())


def summary(records: list[Record]) -> str:
    """A row per case, at its first shape: the time of spikeloom, and the others and the floor relative to it."""
    results = [record.results[0] for record in records]
    table = {"": [r.label or headline(r) for r in results], "spikeloom": [duration(r.median(r.ours)) for r in results]}
    for name in others(results):
        table[name] = [times(result.times_ours(name)) if name in result.seconds else "-" for result in results]
    table["floor"] = [times(r.times_ours(r.floor)) if r.floor in r.seconds and r.floor else "-" for r in results]
    return "\n\n".join(filter(None, [markdown(table), warning(results)]))


def memory(records: list[Record]) -> str:
    """A row per case, at its first shape: the memory of spikeloom, and that of the others relative to it."""
    results = [record.results[0] for record in records if record.results[0].memory]
    table = {"": [r.label or headline(r) for r in results], "spikeloom": [size(r.peak(r.ours)) for r in results]}
    for name in others(results):
        table[name] = [times(result.memory_times_ours(name)) or "-" for result in results]
    return markdown(table)


def others(results: list[Result]) -> list[str]:
    """The libraries that have a column; spyx only if it was measured."""
    return [PEER, *LIBRARIES, *({SPYX} & {name for result in results for name in result.seconds})]


def shown(result: Result) -> str:
    """One case at one shape."""
    rounds = max(map(len, result.seconds.values()))
    apart = [f"{name}: {why}." for name, why in {**result.notes, **result.missing, **result.disagreeing}.items()]
    remark = result.remarks.partition("\n")[0]
    notes = [f"{remark}." if "%" in remark else "", *apart]
    title = f"{headline(result)} ({rounds} round{'s' * (rounds != 1)})."
    return "\n\n".join(
        filter(None, [title, markdown(columns(result)), " ".join(filter(None, notes)), warning([result])])
    )


def warning(results: Sequence[Result]) -> str:
    """The noisy measurements of a table; "" if there are none."""
    noisy = [
        f"{f'{result.label or headline(result)}: ' * (len(results) > 1)}{name} ({times(ratio)})"
        for result in results
        for name, ratio in result.noisy.items()
    ]
    return f"**Noisy**, the median is far above the minimum: {'; '.join(noisy)}." if noisy else ""


def sweep(results: list[Result]) -> str:
    """One axis: a row per size, the time of the first contestant, and that of the others relative to it."""
    first, axis = results[0], results[0].swept or ""
    others = [name for name in dict.fromkeys(n for r in results for n in r.seconds) if name != first.ours]
    table = {
        axis: [str(result.sizes[axis]) for result in results],
        first.ours: [duration(result.median(first.ours)) for result in results],
    }
    for name in others:
        table[name] = [times(result.times_ours(name)) if name in result.seconds else "" for result in results]
    noted = f"\n\n{text}" if (text := warning(results)) else ""
    fixed = ", ".join(f"{other} = {size}" for other, size in first.sizes.items() if other != axis)
    return f"Sweep of {axis} ({fixed}); other columns relative to the first:\n\n{markdown(table)}{noted}"
