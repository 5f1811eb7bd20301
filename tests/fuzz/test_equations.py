"""Random equations on every backend; `make fuzz` runs many more."""

import importlib.util

import pytest

from .equations import difference, run, shrunk
from .program import OPERATIONS, drawn

SEED = 31_000

# random equations may have spikes that nothing is differentiated through
pytestmark = pytest.mark.filterwarnings("ignore:.*the spikes have no gradient:UserWarning")


def test_equations_run_alike_in_the_source_of_their_kernels_and_in_the_loop():
    assert not "\n\n".join(run(150, SEED))


@pytest.mark.parametrize(("count", "seed"), [(4, SEED), pytest.param(16, SEED + 4, marks=pytest.mark.slow)])
def test_equations_run_alike_in_compiled_kernels_and_in_the_loop(count, seed):
    assert not "\n\n".join(run(count, seed, "numba"))


@pytest.mark.triton
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_equations_run_alike_on_triton_and_in_the_loop():
    assert not "\n\n".join(run(20, SEED, "triton"))


def test_every_operation_is_drawn():
    drawn_operations = {line.operation for seed in range(2_000) for line in drawn(seed).lines}
    assert drawn_operations == set(OPERATIONS)


def test_a_difference_is_found_and_shrunk_to_what_makes_it(monkeypatch):
    from spikeloom.engine.cpu import source

    broken = {**source.TEMPLATES, "maximum": "{0} if {0} > {1} else {1}"}  # forgets NaN
    monkeypatch.setattr(source.Names, "templates", broken)
    program = next(p for p in map(drawn, range(5_000)) if "maximum" in p.equation and difference(p, "source"))
    small = shrunk(program, lambda p: bool(difference(p, "source")))
    assert "maximum" in small.equation
    assert len(small.lines) <= 3
    assert (small.mode, small.steps, small.shape) == ("unroll", 1, (1, 3))
