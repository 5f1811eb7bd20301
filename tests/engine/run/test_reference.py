"""Every fused kernel against the plain loop: spikes equal, states equal or close, every gradient close."""

from itertools import filterfalse, product

import pytest
import torch

from ...cases import CELLS, SHAPES, SPIKES
from ...oracle import assert_same
from ..running import Job, away_from_thresholds, call_of, leaves, outcome, run


def assert_lawful(job: Job) -> None:
    job = away_from_thresholds(job)
    assert_same(outcome("numba", job), outcome("loop", job), exact_states=job.case.exact)


def alternate(cell: str) -> bool:
    """For what only every other cell is asked: the resets of a model, with and without delay, are on both sides."""
    number = [*CELLS].index(cell)
    return (number + number // 2) % 2 == 1


def alone(cell: str) -> bool:
    """Whether it is not one of a model's six, whose resets and delays stand in one place for all models."""
    return not cell.endswith(("delayed", "immediate"))


ROWS = [
    *(
        (cell, shape, static, (torch.float32, torch.float64)[static != (shape == "one neuron")])
        for cell, shape, static in product(filter(alone, CELLS), SHAPES, (False, True))
        if shape != "one neuron" or static == alternate(cell)
    ),
    *(
        (cell, shape, alternate(cell), (torch.float32, torch.float64)[[*CELLS].index(cell) % 2])
        for cell, shape in product(filterfalse(alone, CELLS), SHAPES)
        if shape != "one neuron"
    ),
]
"""Kernels differ with the dtype, with a static input, and where all parameters are one number, as beside one neuron. A
cell has three of the eight, the other half of the cells the third otherwise, so that any two of these meet. Each of a
model's six has one, and all four of dtype and static input are among these; the tests of layers give them numbers."""


@pytest.mark.parametrize(("cell", "shape", "static", "dtype"), ROWS)
def test_every_cell_at_every_shape(cell, shape, static, dtype):
    steps, size = SHAPES[shape]
    assert_lawful(Job(CELLS[cell], steps, size, dtype, static=static))


@pytest.mark.parametrize("cell", [cell for cell in CELLS if alone(cell) or not alternate(cell)])
def test_a_single_step_without_a_time_dimension(cell):
    """Half the resets of a model; every reset of every layer goes step by step in the tests of the layers."""
    dtype = (torch.float32, torch.float64)[[*CELLS].index(cell) % 2]
    assert_lawful(Job(CELLS[cell], None, (4, 6), dtype, traced=False, outputs=("spk", "finals")))


@pytest.mark.parametrize("spike", SPIKES)
@pytest.mark.parametrize("cell", ["leaky subtract immediate", "to rest", "exponential"])
def test_every_spike_function(cell, spike):
    assert_lawful(Job(CELLS[cell], 11, (2, 9), spike=SPIKES[spike]))


@pytest.mark.parametrize("outputs", [("spk",), ("traces",), ("finals",), ("spk", "finals")], ids="+".join)
@pytest.mark.parametrize("cell", ["leaky zero immediate", "two states", "exponential"])
def test_gradients_come_from_each_output_alone(cell, outputs):
    assert_lawful(Job(CELLS[cell], 8, (2, 5), outputs=outputs))


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize(
    "learn",
    [("x",), ("mem",), ("beta",), ("threshold", "beta"), (), None],
    ids=lambda names: "all" if names is None else "+".join(names) or "nothing",
)
@pytest.mark.parametrize("cell", ["leaky subtract delayed", "two states"])
def test_only_what_is_learned_gets_a_gradient(cell, learn, static):
    assert_lawful(Job(CELLS[cell], 8, (2, 5), learn=learn, static=static))


@pytest.mark.parametrize(
    ("cell", "learn"),
    [(cell, learn) for cell, learn in product(CELLS, (None, ())) if alone(cell) or (learn is None) == alternate(cell)],
)
def test_without_a_trace_of_the_states(cell, learn):
    """In training and in inference, but half of a model's six in each."""
    assert_lawful(Job(CELLS[cell], 8, (2, 5), traced=False, learn=learn, outputs=("spk", "finals")))


@pytest.mark.parametrize("cell", ["leaky subtract delayed", "rsynaptic zero immediate", "two states", "to rest"])
def test_many_neurons_cross_the_borders_of_blocks_and_threads(cell):
    """More elements than one block holds, a number that no vector width divides, more work than one thread keeps."""
    assert_lawful(Job(CELLS[cell], 31, (3, 4099)))


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_finite_differences_where_nothing_fires(cell):
    """Of the law itself, to which all else is held: it compiles nothing."""
    case = CELLS[cell]
    job = Job(case, 3, (2, 2), torch.float64, spike=SPIKES["none"])
    tensors = leaves(job)
    small = ("x", *case.cell.states)
    quiet = {n: (t.detach() * (0.05 if n in small else 1.0)).requires_grad_() for n, t in tensors.items()}

    def scan(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        got = run("loop", call_of(job, dict(zip(quiet, values, strict=True))))
        return (*got.traces, *got.finals)

    assert torch.autograd.gradcheck(scan, tuple(quiet.values()), atol=1e-6)
