"""Every fused kernel against the plain loop: spikes equal, states equal or close, every gradient close."""

from itertools import product

import pytest
import torch

from ..cases import CELLS, SHAPES, SPIKES
from ..oracle import assert_same
from .running import Job, away_from_thresholds, call_of, leaves, outcome, run


def assert_lawful(job: Job) -> None:
    job = away_from_thresholds(job)
    assert_same(outcome("numba", job), outcome("loop", job), exact_states=job.case.exact)


def alternate(cell: str) -> bool:
    """For what only every other cell is asked: the resets of a model, with and without delay, are on both sides."""
    number = [*CELLS].index(cell)
    return (number + number // 2) % 2 == 1


ROWS = [
    (cell, shape, static, (torch.float32, torch.float64)[static != (shape == "one neuron")])
    for cell, shape, static in product(CELLS, SHAPES, (False, True))
    if shape != "one neuron" or static == alternate(cell)
]
"""Kernels differ with the dtype, with a static input, and where all parameters are one number, as beside one neuron. A
cell has three of the eight, the other half of the cells the third otherwise, so that any two of these meet."""


@pytest.mark.parametrize(("cell", "shape", "static", "dtype"), ROWS)
def test_every_cell_at_every_shape(cell, shape, static, dtype):
    steps, size = SHAPES[shape]
    assert_lawful(Job(CELLS[cell], steps, size, dtype, static=static))


@pytest.mark.parametrize("cell", CELLS)
def test_a_single_step_without_a_time_dimension(cell):
    dtype = torch.float64 if alternate(cell) else torch.float32
    assert_lawful(Job(CELLS[cell], None, (4, 6), dtype, traced=False, outputs=("spk", "finals")))


@pytest.mark.parametrize("spike", SPIKES)
@pytest.mark.parametrize("cell", ["leaky subtract immediate", "two states", "to rest", "exponential"])
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


@pytest.mark.parametrize("learn", [None, ()], ids=["training", "inference"])
@pytest.mark.parametrize("cell", CELLS)
def test_without_a_trace_of_the_states(cell, learn):
    assert_lawful(Job(CELLS[cell], 8, (2, 5), traced=False, learn=learn, outputs=("spk", "finals")))


@pytest.mark.parametrize("cell", ["leaky subtract delayed", "rsynaptic zero immediate", "two states", "to rest"])
def test_many_neurons_cross_the_borders_of_blocks_and_threads(cell):
    """More elements than one block holds, a number that no vector width divides, more work than one thread keeps."""
    assert_lawful(Job(CELLS[cell], 31, (3, 4099)))


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_finite_differences_where_nothing_fires(cell):
    """Which checks the adjoint against no other derivative of ours."""
    case = CELLS[cell]
    job = Job(case, 3, (2, 2), torch.float64, spike=SPIKES["none"])
    tensors = leaves(job)
    small = ("x", *case.cell.states)
    quiet = {n: (t.detach() * (0.05 if n in small else 1.0)).requires_grad_() for n, t in tensors.items()}

    def scan(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        got = run("numba", call_of(job, dict(zip(quiet, values, strict=True))))
        return (*got.traces, *got.finals)

    assert torch.autograd.gradcheck(scan, tuple(quiet.values()), atol=1e-6)
