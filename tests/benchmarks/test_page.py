"""The pages that show benchmarks: every number on them is that of a stored run."""

import re
from pathlib import Path

import pytest

from benchmarks import CASES, SUITE
from benchmarks.command import SWEPT
from benchmarks.on_jax import SPYX
from benchmarks.page import PLACE, fill
from benchmarks.result import load

ROOT = Path(__file__).parents[2]
STORED = ROOT / "docs" / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"


@pytest.mark.parametrize("page", [PAGE, ROOT / "README.md", ROOT / "docs/gpu.md"], ids=lambda page: page.name)
def test_page_is_that_of_the_stored_runs(page):
    message = page.read_text()
    assert PLACE.search(message)
    assert fill(page, STORED) == message, "python -m benchmarks --page README.md docs/benchmarks.md"


def test_the_page_shows_every_case_of_the_suite():
    shown = set(re.findall(r"<!-- bench (\w+) -->", PAGE.read_text()))
    assert shown == {case.name for case in SUITE}


ON_CPU = sorted(path for path in STORED.glob("*.json") if not path.stem.endswith("-cuda"))


@pytest.mark.parametrize("path", ON_CPU, ids=lambda path: path.stem)
def test_a_stored_run_is_complete(path):
    """Nothing that disagreed, and all shapes and sizes that the case has today."""
    case = CASES[path.stem]
    results = load(path).results
    shapes = [tuple(result.sizes.values()) for result in results]
    assert shapes == [*case.shapes, *(shape for points in case.sweeps.values() for shape in points)]
    for result in results:
        assert not result.disagreeing
        peers = [name for name in case.peers if result.swept is None or name in SWEPT]
        assert (set(result.seconds) | set(result.missing)) - {SPYX} == {*case.contestants, *peers} - {SPYX}
    assert all(len(samples) == case.processes.get(name, 1) for name, samples in results[0].memory.items())
    assert bool(results[0].memory) == case.memory
