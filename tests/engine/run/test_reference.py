"""Every fused kernel against the plain loop: spikes equal, states equal or close, every gradient close."""

from itertools import product

import pytest
import torch

from spikeloom.cells import MODELS
from spikeloom.cells.firing import RESETS, Model

from ...cases import CELLS, SHAPES, SPIKES
from ...each import for_each
from ...oracle import assert_same
from ..running import Job, away_from_thresholds, call_of, leaves, outcome, run


def assert_equals_reference(job: Job) -> None:
    job = away_from_thresholds(job)
    assert_same(outcome("numba", job), outcome("loop", job), exact_states=job.case.exact)


FRAMES = [f"{reset} {delayed}" for reset in RESETS for delayed in ("delayed", "immediate")]
"""The six ways in which a model resets."""


def framed() -> list[str]:
    """Of each model one of the six, and all of the first. All six of all models stand in the tests of layers."""
    models = [name for name, model in MODELS.items() if isinstance(model, Model)]
    pairs = [(model, FRAMES[i % 6]) for i, model in enumerate(models)]
    return [f"{model} {frame}" for model, frame in dict.fromkeys([*product(models[:1], FRAMES), *pairs])]


ALONE = [cell for cell in CELLS if not cell.endswith(("delayed", "immediate"))]
CHOSEN = [*ALONE, *framed()]
KINDS = [(torch.float32, False), (torch.float64, True), (torch.float64, False), (torch.float32, True)]
"""Dtype, and whether the input is static: a kernel of each."""


def kind(cell: str, other: bool = False) -> tuple[torch.dtype, bool]:
    """One of the four, the next for the next cell; the `other` differs from it in both."""
    number = CHOSEN.index(cell) % 4
    return KINDS[number ^ other]


FEW = [*ALONE[:4], *framed()[:2], "rsynaptic zero immediate", "alpha none immediate", "izhikevich"]
"""Where what is tested is not the equation: cells of one state to three, with and without the common frame."""

ROWS = [
    *((cell, shape, False) for cell, shape in product(CHOSEN, SHAPES) if shape != "one neuron"),
    *((cell, "one neuron", True) for cell in ("two states", "polyglot")),
]
"""Beside one neuron all parameters are one number, which is a kernel of its own: with the other dtype and input."""


@for_each(("cell", "shape", "other"), ROWS)
def test_every_cell_at_every_shape(cell, shape, other):
    (steps, size), (dtype, static) = SHAPES[shape], kind(cell, other)
    assert_equals_reference(Job(CELLS[cell], steps, size, dtype, static=static))


@pytest.mark.parametrize("cell", FEW)
def test_a_single_step_without_a_time_dimension(cell):
    """Every layer goes step by step in the tests of the layers."""
    dtype, _ = kind(cell)
    assert_equals_reference(Job(CELLS[cell], None, (4, 6), dtype, traced=False, outputs=("spk", "final_states")))


SPIKING = [
    *(("leaky subtract immediate", spike) for spike in SPIKES),
    *(("to rest", spike) for spike in ("straight_through", "boxcar")),
    *(("exponential", spike) for spike in ("sigmoid", "none")),
]


@pytest.mark.parametrize(("cell", "spike"), SPIKING)
def test_every_spike_function(cell, spike):
    assert_equals_reference(Job(CELLS[cell], 11, (2, 9), spike=SPIKES[spike]))


@pytest.mark.parametrize("outputs", [("spk",), ("traces",), ("final_states",), ("spk", "final_states")], ids="+".join)
@pytest.mark.parametrize("cell", ["leaky zero immediate", "two states", "exponential"])
def test_gradients_come_from_each_output_alone(cell, outputs):
    assert_equals_reference(Job(CELLS[cell], 8, (2, 5), outputs=outputs))


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize(
    "learn",
    [("x",), ("mem",), ("beta",), ("threshold", "beta"), (), None],
    ids=lambda names: "all" if names is None else "+".join(names) or "nothing",
)
@pytest.mark.parametrize("cell", ["leaky subtract delayed", "two states"])
def test_only_what_is_learned_gets_a_gradient(cell, learn, static):
    assert_equals_reference(Job(CELLS[cell], 8, (2, 5), learn=learn, static=static))


@pytest.mark.parametrize("learn", [None, ()], ids=["training", "inference"])
@pytest.mark.parametrize("cell", FEW)
def test_without_a_trace_of_the_states(cell, learn):
    dtype, _ = kind(cell)
    assert_equals_reference(
        Job(CELLS[cell], 8, (2, 5), dtype, traced=False, learn=learn, outputs=("spk", "final_states"))
    )


@pytest.mark.parametrize("cell", ["leaky subtract delayed", "rsynaptic zero immediate", "two states", "to rest"])
def test_many_neurons_cross_the_borders_of_blocks_and_threads(cell):
    """More elements than one block holds, a number that no vector width divides, more work than one thread keeps."""
    assert_equals_reference(Job(CELLS[cell], 31, (3, 4099)))


@for_each("cell", CELLS)
def test_gradients_are_those_of_finite_differences_where_nothing_fires(cell):
    """The reference itself, with which everything else is compared: it compiles nothing."""
    case = CELLS[cell]
    job = Job(case, 3, (2, 2), torch.float64, spike=SPIKES["none"])
    tensors = leaves(job)
    small = ("x", *case.cell.states)
    quiet = {n: (t.detach() * (0.05 if n in small else 1.0)).requires_grad_() for n, t in tensors.items()}

    def scan(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        got = run("loop", call_of(job, dict(zip(quiet, values, strict=True))))
        return (*got.traces, *got.final_states)

    assert torch.autograd.gradcheck(scan, tuple(quiet.values()), atol=1e-6)
