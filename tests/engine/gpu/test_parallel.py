"""Many steps at once: Triton's kernels for recurrences whose steps can be joined, against the plain loop."""

import math
from dataclasses import replace

import pytest
import torch

import spikeloom as snn
from spikeloom import ops
from spikeloom.cells.cell import cell_from
from spikeloom.engine.gpu import launch as gpu_launch
from spikeloom.engine.gpu.parallel_source import emit_triton_parallel
from spikeloom.engine.graph import Param, Target
from spikeloom.engine.jit import kernel_cache, triton_jit
from spikeloom.engine.run.call import variant_of

from ...cases import CELLS, DTYPES, CellCase
from ...oracle import assert_close, assert_same
from ..run.test_matrix import call_of as matrix_call_of
from ..run.test_matrix import outcome as matrix_outcome
from ..run.test_matrix import run as matrix_run
from ..running import Job, away_from_thresholds, call_of, leaves, outcome, run

pytest.importorskip("triton")
pytestmark = pytest.mark.triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def tiles(monkeypatch, quiet):
    """Small tiles, so that short sequences take several."""
    small = replace(gpu_launch.triton_shapes, joined_steps=4, joined_elements=4)
    monkeypatch.setattr(gpu_launch, "triton_shapes", small)
    gpu_launch._kernel_in_parallel.cache_clear()
    yield
    gpu_launch._kernel_in_parallel.cache_clear()


@pytest.fixture
def launched(monkeypatch):
    """The shapes of tiles that were run: of one dimension, or of time and elements."""
    seen = []
    run_it = triton_jit.TritonKernel.run

    def watched(self, size, given):
        seen.append("parallel" if "TIME" in self.constants else "step by step")
        run_it(self, size, given)

    monkeypatch.setattr(triton_jit.TritonKernel, "run", watched)
    return seen


def assert_equals_reference(job):
    """Also where another order of sums could push a membrane over its threshold."""
    job = away_from_thresholds(replace(job, device=DEVICE, case=replace(job.case, exact=False)))
    assert_same(outcome("triton", job), outcome("loop", job))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("steps", [4, 11])
@pytest.mark.parametrize("cell", ["state_leaky", "state_leaky_exact"])
def test_forward_and_backward_are_those_of_the_loop(cell, steps, static, dtype, launched):
    assert_equals_reference(Job(CELLS[cell], steps, (7,), DTYPES[dtype], static=static))
    assert launched == ["parallel"] * 2


@pytest.mark.parametrize("learn", [(), ("x",), ("mem",), ("tau",), ("threshold",)], ids=str)
@pytest.mark.parametrize("traced", [True, False], ids=["traced", "untraced"])
def test_whoever_learns(learn, traced, launched):
    outputs = ("spk", "traces", "final_states") if traced else ("spk", "final_states")
    assert_equals_reference(Job(CELLS["state_leaky"], 9, (2, 3), learn=learn, traced=traced, outputs=outputs))
    assert set(launched) == {"parallel"}


def test_a_relu_between_two_steps_is_joined_backwards_alone(launched):
    assert_equals_reference(Job(CELLS["leaky_parallel"], 11, (7,)))
    assert launched == ["step by step", "parallel"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_halves_are_read_and_written_as_they_are(dtype, launched):
    layer = snn.StateLeaky(beta=0.8, channels=3).to(DEVICE)
    x = (2 * torch.rand(9, 2, 3, generator=torch.Generator().manual_seed(0))).to(DEVICE, dtype)
    results = []
    for backend in ("triton", "loop"):
        given = x.detach().requires_grad_()
        with snn.backend(backend):
            spk, mem = layer(given)
        assert (spk.dtype, mem.dtype) == (dtype, torch.float32)
        results.append((spk, mem, *torch.autograd.grad(spk.float().sum() + mem.square().sum(), given)))
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, "a result")
    assert launched == ["parallel"] * 2


def test_what_is_not_finite_stays_so(launched):
    job = Job(CELLS["state_leaky"], 9, (4,), torch.float64, learn=(), device=DEVICE)
    call = call_of(job, leaves(job))
    call.x[2, 1], call.x[5, 2] = math.nan, math.inf
    got, wanted = run("triton", call), run("loop", call)
    assert_close(got.traces[0], wanted.traces[0], "mem")
    assert launched == ["parallel"]


# -- equations ---------------------------------------------------------------------------------------------------------


def taken_apart(x, mem, *, a, b):
    """All that may stand between two membranes."""
    charged = -(x - ops.where(x > 0.5, a * mem, mem * b)) + (mem * a) / (1 + b * b) - (b - mem) * 0.25
    return ops.spike(charged - a), charged


def squared(x, mem, *, a, b):
    return ops.spike(mem - b), a * mem * mem + x


def divided(x, mem, *, a, b):
    return ops.spike(mem - b), a / (mem * mem + 1.0) + x


def branching(x, mem, *, a, b):
    return ops.spike(mem - b), ops.where(mem > 0.1, a * mem, x)


def forgetting(x, mem, *, a, b):
    return ops.spike(a * x + mem - b), x


@pytest.mark.parametrize(
    ("equation", "forward", "backward"),
    [
        (taken_apart, "parallel", "parallel"),
        (squared, "step by step", "parallel"),
        (divided, "step by step", "parallel"),
        (branching, "step by step", "parallel"),
        (forgetting, "step by step", "step by step"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_equation_is_joined_where_it_is_affine_in_what_goes_on(equation, forward, backward, launched):
    """Of the state forward, of its gradient backward."""
    cell = replace(cell_from(equation), any_order=True)
    assert_equals_reference(Job(CellCase(cell, {"a": 0.4, "b": (0.2, 0.5)}), 6, (5,)))
    assert launched == [forward, backward]


def test_steps_are_joined_in_any_order():
    """The interpreter joins one after the other; a device does not."""
    variant = variant_of(call := call_of(job := Job(CELLS["state_leaky"], 4, (2,)), leaves(job)), ())
    variant = replace(variant, params=(Param.NUMBER,) * 3, target=Target.INTERPRETER).forward
    assert call.program.derivation is not None
    source = emit_triton_parallel(call.program.derivation, variant, "a test")
    assert source is not None
    joined = kernel_cache.load_source(source).joined.fn
    a, b, c = torch.rand(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    left, right = joined(*joined(*a, *b), *c), joined(*a, *joined(*b, *c))
    for one, other in zip(left, right, strict=True):
        assert_close(one, other, "the joined steps")


# -- which kernel runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "few", "wanted"), [(4, 8, "parallel"), (3, 8, "step by step"), (4, 7, "step by step")]
)
def test_long_sequences_of_few_elements_are_taken_so(steps, few, wanted, launched, tuned):
    tuned(gpu_parallel_most=few)
    with snn.backend("triton"):
        snn.StateLeaky(beta=0.8, channels=4).to(DEVICE)(torch.zeros(steps, 2, 4, device=DEVICE))
    assert launched == [wanted]


def test_a_neuron_with_a_step_form_keeps_the_order_of_its_steps(launched):
    x, results = torch.rand(9, 2, 3, device=DEVICE), []
    for backend in ("triton", "loop"):
        with snn.backend(backend):
            results.append(snn.unroll(snn.Leaky(beta=0.8, reset_mechanism="none").to(DEVICE), x))
    assert all(map(torch.equal, *results))
    assert launched == ["step by step"]


def test_a_linear_layer_before_it_and_an_unrolled_network(launched):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        snn.LinearLeaky(beta=0.7, in_features=3, out_features=4, learn_beta=True),
        snn.StateLeaky(beta=0.9, channels=4, output=False),
    ).to(DEVICE)
    net[0].output = False
    x, results = torch.rand(9, 2, 3, device=DEVICE), []
    for backend in ("triton", "loop"):
        with snn.backend(backend):
            mem = snn.unroll(net, x)
        learned = [p for p in net.parameters() if p.requires_grad]
        results.append((mem, *torch.autograd.grad(mem.square().sum(), learned)))
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, "a result")
    assert launched == ["parallel"] * 4


# -- a gate that differs from step to step -----------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [3, 4, 11], ids=["one after the other", "all at once", "in three goes"])
@pytest.mark.parametrize("learn", [True, False], ids=["training", "inference"])
def test_a_matrix_of_integrators_with_gates(steps, learn, launched):
    call = matrix_call_of((steps, 2, 3, 2), torch.float64, learn=learn)
    call = replace(call, **{name: on_device(getattr(call, name)) for name in ("v", "k", "gate")})
    call = replace(call, params={name: p.to(DEVICE) for name, p in call.params.items()})
    if learn:
        assert_same(matrix_outcome("triton", call), matrix_outcome("loop", call))
    else:
        assert torch.equal(matrix_run("triton", call), matrix_run("loop", call))
    assert set(launched) == {"step by step" if steps < 4 else "parallel"}


def on_device(leaf):
    return leaf.detach().to(DEVICE).requires_grad_(leaf.requires_grad)


def test_the_layer_says_so():
    layer = snn.AssociativeLeaky(3, 2, 4, 8).to(DEVICE)
    with snn.backend("triton"):
        assert snn.explain(layer, torch.rand(5, 2, 3, device=DEVICE)).rows[0].backend == "triton"
