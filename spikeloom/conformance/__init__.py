"""`python -m spikeloom conformance`: run networks here and in other frameworks, and count the values that differ.

Each network is exported for a framework, read by that framework's own import, and driven with the same inputs. A cell
of the table is the number of output values that differ, or the reason why the framework cannot run the network.
"""

import copy
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..export.nir import TARGETS, export_to_nir
from ..network import unroll
from .cases import CASES, Case
from .readers import READERS, Reader, quiet
from .truths import TRUTHS

STEPS, BATCH, DT = 100, 10, 1e-4
ALL = {**READERS, **TRUTHS}


@dataclass(frozen=True)
class Cell:
    """The outcome of a network in a framework.

    Args:
        case, reader: their names.
        values: how many values were compared; 0 if none.
        differing: how many differ.
        largest: the largest difference.
        late: by how many steps the framework's output was late, and was shifted.
        refusal: why `export_to_nir` does not write the network for it.
        error: what the framework raised, although the network was written for it.
    """

    case: str
    reader: str
    values: int = 0
    differing: int = 0
    largest: float = 0.0
    late: int = 0
    refusal: str = ""
    error: str = ""

    @property
    def text(self) -> str:
        """The text of the cell in the table."""
        if self.refusal:
            return "refused"
        if self.error:
            return "error"
        late = f", {self.late} late" if self.late else ""
        small = f" by {self.largest:.0e}" if self.differing and self.largest < 1e-3 else ""
        return f"{self.differing:,}{small}{late}"


def measure(case: Case, reader: Reader, steps: int = STEPS, batch: int = BATCH) -> Cell:
    """Run one network here and in a framework."""
    torch.manual_seed(0)
    net, x = case.make(), case.inputs(steps, batch)
    if reader.truth:
        if not case.alone:
            return Cell(case.name, reader.name, refusal="has no networks, which has no layers")
        net, x = net.double(), x.double()
    with torch.no_grad():
        wanted = unroll(net, x).numpy()
    target = None if reader.truth else reader.name
    try:
        graph = export_to_nir(net, x[0], dt=DT, target=target)
    except ValueError as error:
        return Cell(case.name, reader.name, refusal=str(error))
    late = _late(graph) if target is not None and TARGETS[target].resets[1] else 0
    try:
        with quiet():
            got = np.asarray(reader.run(copy.deepcopy(graph), x, DT))
    except Exception as error:  # whatever a framework raises
        return Cell(case.name, reader.name, error=f"{type(error).__name__}: {str(error)[:200]}")
    if got.shape != wanted.shape:
        return Cell(case.name, reader.name, error=f"returned {got.shape} instead of {wanted.shape}")
    got, wanted = got[late:], wanted[: len(wanted) - late]
    largest = float(np.abs(got.astype(np.float64) - wanted).max())
    return Cell(case.name, reader.name, wanted.size, int((got != wanted).sum()), largest, late)


def _late(graph: Any) -> int:
    """The layers of neurons, each of which fires one step late in a framework that resets before it adds."""
    return sum(type(node).__name__ in ("IF", "LIF") for node in graph.nodes.values())


def table(cells: Sequence[Cell], versions: Mapping[str, str]) -> list[str]:
    """The rows of a Markdown table, a column per framework and release, with the refusals below it."""
    found = {(cell.case, cell.reader): cell for cell in cells}
    notes: dict[str, int] = {}
    rows = [
        "| network | " + " | ".join(f"{name} {version}" for name, version in versions.items()) + " |",
        "| --- |" + " --- |" * len(versions),
    ]
    for case in dict.fromkeys(cell.case for cell in cells):
        texts = []
        for name in versions:
            cell = found[case, name]
            why = _short(cell.refusal or cell.error)
            if why.startswith("no "):
                texts.append(why)
            else:
                mark = f"({notes.setdefault(why, len(notes) + 1)})" if why else ""
                texts.append(mark if cell.refusal else f"{cell.text} {mark}".strip())
        rows.append(f"| {case} | {' | '.join(texts)} |")
    return [*rows, "", *(f"{number}. {why}" for why, number in notes.items())]


def _short(why: str) -> str:
    """A refusal without the name of the node, which is the case's."""
    if "which has no " in why:
        return "no " + why.split("which has no ", 1)[1].split(";")[0]
    for mark in ("cannot be written for ", "is part of a cycle; "):
        if mark in why:
            return why.split(mark, 1)[1]
    return why.split(". Pass allow_approximate")[0].split(" has ", 1)[-1]


def conformance(names: Iterable[str] = (), out: Path | None = None) -> int:
    """Measure all networks in the frameworks that are installed, or in those named, and print the table.

    Returns:
        the exit status: 1 if a framework raised an error, or spikes differ.
    """
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(f"there is no framework {unknown[0]!r}; choose from {', '.join(ALL)}")
        return 1
    readers = [reader for name, reader in ALL.items() if (name in names or not names) and reader.installed]
    absent = [name for name, reader in ALL.items() if (name in names or not names) and not reader.installed]
    if absent:
        print(f"not installed: {', '.join(absent)}")
    if not readers:
        print("none of the frameworks is installed; make conformance installs them in an environment of their own")
        return 1
    cells = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in CASES:
            cells += [measure(case, reader) for reader in readers]
    print(f"Output values that differ, of {STEPS * BATCH * 100:,} (those of smaller layers: of fewer)\n")
    versions = {reader.name: reader.version for reader in readers}
    print(*table(cells, versions), sep="\n")
    if out is not None:
        rows = ",\n".join(json.dumps(asdict(cell)) for cell in cells)
        out.write_text(f'{{"versions": {json.dumps(versions)},\n"cells": [\n{rows}\n]}}\n')
        print(f"\nwritten to {out}")
    return int(any(cell.error or (cell.differing and cell.largest >= 1e-3) for cell in cells))
