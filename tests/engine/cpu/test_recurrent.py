"""All-to-all recurrence as one scan agrees with the loop over the same layer: spikes, states, every gradient."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import spikeloom as snn
from spikeloom import surrogate
from spikeloom.engine.cpu import recurrent
from spikeloom.engine.feedback import Feedback, LinearMap
from spikeloom.engine.graph import Gradients
from spikeloom.engine.jit import buffer_pool
from spikeloom.engine.sparse import csr

from ...oracle import Outcome, assert_close, assert_same
from ..running import NEAR, gradients


@dataclass(frozen=True)
class Case:
    """A recurrent layer and its input.

    Args:
        kind: RLeaky or RSynaptic.
        options: further arguments of its constructor.
        vector: whether decays and threshold are one per neuron.
        learn: what has a gradient, by the names of `tensors`; None is all.
        static: whether the input is the same at every step.
        exact: whether weights and inputs are small dyadic numbers, of which every sum is exact.
    """

    kind: str = "RLeaky"
    options: tuple[tuple[str, Any], ...] = ()
    steps: int = 9
    shape: tuple[int, ...] = (5, 7)
    vector: bool = False
    learn: tuple[str, ...] | None = None
    dtype: torch.dtype = torch.float32
    static: bool = False
    exact: bool = True
    bias: bool = True
    traced: bool = True
    seed: int = 0


def layer_of(case: Case) -> Any:
    draw, width = torch.Generator().manual_seed(case.seed), case.shape[-1]
    decays = ("beta",) if case.kind == "RLeaky" else ("alpha", "beta")
    values = {name: 0.5 + 0.25 * torch.arange(width).remainder(2) if case.vector else 0.5 for name in decays}
    if case.vector:
        values["threshold"] = 0.75 + 0.25 * torch.arange(width).remainder(3)
    learned = {f"learn_{name}": True for name in (*decays, "threshold")}
    kept = {"init_hidden": True, "output": case.traced}
    layer = getattr(snn, case.kind)(**values, **learned, **kept, **dict(case.options), linear_features=width)
    if not case.bias:
        layer.recurrent = nn.Linear(width, width, bias=False)
    with torch.no_grad():
        for parameter in layer.recurrent.parameters():
            if case.exact:
                parameter.copy_(torch.randint(-8, 9, parameter.shape, generator=draw) / 16)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / width**0.5)
    return layer.to(case.dtype)


def tensors_of(case: Case, layer: Any) -> dict[str, Tensor]:
    """The input and the first states, then the parameters; those to be learned require grad."""
    draw = torch.Generator().manual_seed(case.seed + 1)
    shapes = {"x": ((1,) if case.static else (case.steps,)) + case.shape}
    shapes |= dict.fromkeys(layer._state_names(), case.shape)
    tensors = {}
    for name, shape in shapes.items():
        fine = torch.randint(-16, 49, shape, generator=draw) / 32
        values = fine if case.exact else fine + torch.rand(shape, generator=draw) / 32
        tensors[name] = values.to(layer.threshold.device, case.dtype)
    tensors |= {name: p.detach() for name, p in layer.named_parameters()}
    for name, t in tensors.items():
        t.requires_grad_(case.learn is None or name in case.learn)
    for name, p in layer.named_parameters():
        p.requires_grad_(tensors[name].requires_grad)
    return tensors | dict(layer.named_parameters())


def run(backend: str, layer: Any, x: Tensor, steps: int) -> tuple[Tensor, ...]:
    with snn.backend(backend):
        out = snn.unroll(layer, x[0], steps=steps) if len(x) != steps else snn.unroll(layer, x)
    return out if isinstance(out, tuple) else (out,)


def outcome(backend: str, case: Case, device: str = "cpu") -> Outcome:
    layer = layer_of(case).to(device)
    tensors = tensors_of(case, layer)
    for name in layer._state_names():
        setattr(layer, name, tensors[name])
    outs = run(backend, layer, tensors["x"], case.steps)
    final_states = {f"last {name}": getattr(layer, name) for name in layer._state_names()}
    states = {f"state {i}": t for i, t in enumerate(outs[1:])} | final_states
    return Outcome(
        {"spk": outs[0].detach()},
        {name: t.detach() for name, t in states.items()},
        gradients([*outs, *final_states.values()], tensors, backend),
    )


def ran_fused(case: Case) -> bool:
    layer, (steps, shape) = layer_of(case), (case.steps, case.shape)
    with torch.no_grad():
        return snn.explain(layer, torch.zeros(steps, *shape, dtype=case.dtype)).rows[0].backend == "numba"


def reset(mechanism: str, delayed: bool, **others: Any) -> tuple[tuple[str, Any], ...]:
    return (("reset_mechanism", mechanism), ("reset_delay", delayed), *others.items())


KINDS = ("RLeaky", "RSynaptic")
STRAIGHT_THROUGH = surrogate.straight_through_estimator()
RESETS = [
    Case("RLeaky", reset("subtract", True), vector=True),
    Case("RSynaptic", reset("subtract", False), dtype=torch.float64),
    Case("RSynaptic", reset("zero", True)),
    Case("RLeaky", reset("zero", False), vector=True, dtype=torch.float64),
    Case("RLeaky", reset("none", True, spike_grad=STRAIGHT_THROUGH), dtype=torch.float64),
    Case("RSynaptic", reset("none", False), vector=True),
]
"""Of reset, delay, kind, vectors and dtype any two meet."""

CASES = [
    *RESETS,
    *(Case(kind, static=True, learn=learn) for kind in KINDS for learn in (None, ("x",))),
    *(Case(shape=shape) for shape in ((1,), (7,), (1, 1), (3, 64), (17, 65), (2, 3, 5), (4, 100))),
    *(Case("RLeaky", learn=learn) for learn in (
        (), ("x",), ("spk",), ("mem",), ("beta",), ("threshold",), ("recurrent.weight",), ("recurrent.bias",))),
    *(Case("RSynaptic", learn=learn, traced=False) for learn in (("x",), ("syn",), ("alpha",), ("recurrent.weight",))),
    *(Case(kind, bias=False) for kind in KINDS),
    Case(shape=(33, 130)),
    *(Case(steps=steps) for steps in (1, 2, 70)),
    Case(options=(("spike_grad", surrogate.triangular()),), shape=(20, 70)),
    Case(options=(("surrogate_disable", True),)),
    Case(options=(("threshold", 30.0),), learn=None),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_sums_give_the_bits_of_the_loop(case: Case) -> None:
    assert ran_fused(case)
    assert_same(outcome("numba", case), outcome("loop", case), exact_states=True)


INEXACT = [Case(kind, exact=False, shape=shape) for kind in KINDS for shape in ((6, 40), (20, 70))]


@pytest.mark.parametrize("case", INEXACT, ids=str)
def test_other_sums_agree_to_rounding(case: Case) -> None:
    case = next(drawn for drawn in (replace(case, seed=s) for s in range(1000)) if closest(drawn) > NEAR / 10)
    assert_same(outcome("numba", case), outcome("loop", case))


def closest(case: Case) -> float:
    """How near the membrane comes to the threshold in the loop."""
    layer = layer_of(case)
    with torch.no_grad():
        mem = run("loop", layer, tensors_of(case, layer)["x"], case.steps)[-1]
        return float((mem - layer.threshold).abs().min())


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_with_continued_state_are_the_whole(kind: str) -> None:
    case = Case(kind, steps=12)
    whole, chunked = layer_of(case), layer_of(case)
    x = tensors_of(case, whole)["x"]
    wanted = run("numba", whole, x, 12)
    parts = [run("numba", chunked, part, len(part)) for part in (x[:5], x[5:6], x[6:])]
    got = [torch.cat(out) for out in zip(*parts, strict=True)]
    for name, ours, theirs in zip(("spk", "states", "mem"), got, wanted, strict=False):
        assert_close(ours, theirs, name, exact=True)
    loss = [sum(out.square().sum() for out in outs) for outs in (got, wanted)]
    layers = zip(loss, (chunked, whole), strict=True)
    grads = [torch.autograd.grad(total, [x, *layer.parameters()]) for total, layer in layers]
    for ours, theirs in zip(*grads, strict=True):
        assert_close(ours, theirs, "gradient")


@contextmanager
def torch_threads(count: int, tuned) -> Iterator[None]:
    before = torch.get_num_threads()
    tuned(serial_below=0)
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 7), (37, 70)])
def test_any_number_of_threads_gives_the_same_bits(kind: str, shape: tuple[int, ...], tuned) -> None:
    case, outcomes = Case(kind, exact=False, shape=shape, steps=30), []
    for count in (1, 2, 3, 5):
        with torch_threads(count, tuned):
            outcomes.append(outcome("numba", case))
    for other in outcomes[1:]:
        for name, wanted in (outcomes[0].spikes | outcomes[0].states | outcomes[0].gradients).items():
            assert_close((other.spikes | other.states | other.gradients)[name], wanted, name, exact=True)


def test_graded_spikes_come_back_with_their_size() -> None:
    case = Case()
    outcomes = []
    for backend in ("numba", "loop"):
        layer = layer_of(case)
        layer.graded_spikes_factor = torch.tensor(2.5, requires_grad=True)
        tensors = tensors_of(case, layer) | {"factor": layer.graded_spikes_factor}
        for name in layer._state_names():
            setattr(layer, name, tensors[name])
        outs = run(backend, layer, tensors["x"], case.steps)
        outcomes.append(Outcome({"spk": outs[0].detach()}, {}, gradients(outs, tensors, backend)))
    assert_same(*outcomes)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("where", ["weight", "input", "gradient"])
def test_nan_and_infinity_flow_as_in_the_loop(where: str, bad: float) -> None:
    case, results = Case(), []
    for backend in ("numba", "loop"):
        layer = layer_of(case)
        x = tensors_of(case, layer)["x"].detach()
        with torch.no_grad():
            if where == "weight":
                layer.recurrent.weight[2, 3] = bad
            if where == "input":
                x[4, 1, 2] = bad
        spk, *states = run(backend, layer, x.requires_grad_(), case.steps)
        cotangent = torch.ones_like(spk)
        if where == "gradient":
            cotangent[5, 2, 1] = bad
        results.append([spk, *states, *torch.autograd.grad(spk, [x, *layer.recurrent.parameters()], cotangent)])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours.isfinite(), theirs.isfinite())
        assert_close(torch.nan_to_num(ours, 0, 0, 0), torch.nan_to_num(theirs, 0, 0, 0), where)


class Wider(nn.Linear):
    """Not the plain layer."""


def hooked(layer: Any) -> None:
    layer.recurrent.register_forward_hook(lambda module, args, out: 0.5 * out)


def replaced(layer: Any) -> None:
    layer.recurrent = Wider(7, 7)


def doubled(layer: Any) -> None:
    layer.recurrent.double()


def normed(layer: Any) -> None:
    nn.utils.parametrizations.weight_norm(layer.recurrent)


REFUSED: Mapping[str, Callable[[Any], None]] = {
    "hooks": hooked, "is Wider": replaced, "torch.float64": doubled, "is ParametrizedLinear": normed,
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_a_layer_that_is_not_plain_goes_step_by_step_and_is_reported(why: str) -> None:
    case, outs = Case(), []
    layer = layer_of(case)
    REFUSED[why](layer)
    x = tensors_of(case, layer)["x"]
    row = snn.explain(layer, x).rows[0]
    assert row.backend == "numba, step by step"
    assert [why in reason for reason in row.refusals] == [True]
    for backend in ("numba", "loop"):
        snn.utils.reset(layer)
        outs.append(run(backend, layer, x, case.steps))
    assert_close(outs[0][0], outs[1][0], "spk", exact=True)


def test_autocast_is_that_of_the_device_of_the_state() -> None:
    layer, before = nn.Linear(7, 7), torch.is_autocast_enabled("cuda")
    with FakeTensorMode():
        xs = torch.empty(5, 7), torch.empty(5, 7, device="cuda")
    try:
        torch.set_autocast_enabled("cuda", True)
        message = ["autocast" in str([*Feedback(layer).refusals(x)]) for x in xs]
    finally:
        torch.set_autocast_enabled("cuda", before)
    assert message == [False, True]


def test_recurrence_through_a_convolution_goes_step_by_step() -> None:
    layer = snn.RLeaky(beta=0.5, conv2d_channels=2, kernel_size=3, init_hidden=True)
    row = snn.explain(layer, torch.rand(4, 2, 2, 5, 5)).rows[0]
    assert (row.backend, row.refusals) == (
        "numba, step by step",
        ("numba: the recurrent layer is Conv2d, not nn.Linear: the steps are fused one by one",),
    )


def test_a_second_derivative_is_refused_in_a_sentence() -> None:
    layer = layer_of(Case())
    x = tensors_of(Case(), layer)["x"]
    spk = run("numba", layer, x, 9)[0]
    with pytest.raises(RuntimeError, match=r"no second derivative.*backend\('loop'\)"):
        torch.autograd.grad(spk.sum(), x, create_graph=True)


def test_inference_keeps_no_sequence_but_the_spikes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    empty = buffer_pool.empty

    def noting(shape: tuple[int, ...], like: Tensor) -> Tensor:
        made.append(tuple(shape))
        return empty(shape, like)

    monkeypatch.setattr(buffer_pool, "empty", noting)
    layer = layer_of(Case(traced=False))
    with torch.no_grad():
        run("numba", layer, torch.rand(9, 5, 7), 9)
    assert made == [(9, 5, 7)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.6, 1.0])
@pytest.mark.parametrize(("rows", "width", "columns"), [(1, 1, 1), (5, 7, 3), (300, 70, 65), (513, 33, 128)])
def test_sparse_products_are_the_dense_ones(
    rows: int, width: int, columns: int, density: float, dtype: torch.dtype
) -> None:
    draw = torch.Generator().manual_seed(3)
    x = torch.randint(-3, 4, (rows, width), generator=draw) * (torch.rand(rows, width, generator=draw) < density)
    shapes = ((columns, width), (rows, columns))
    weight, grad = (torch.randint(-9, 9, shape, generator=draw).to(dtype) / 8 for shape in shapes)
    x, bias = x.to(dtype), weight[:, 0].clone()
    lists = csr.listed(x)
    assert torch.equal(lists.dense(), x)
    assert torch.equal(csr.product(lists, csr.pack_panels(weight.t()), bias), x @ weight.t() + bias)
    assert torch.equal(csr.outer((lists, grad))[0], grad.t() @ x)


def test_no_steps_give_the_weight_no_gradient() -> None:
    g = Gradients(torch.zeros(0, 5, 7), [], [], torch.zeros(5, 7))
    weight, first, spikes = torch.rand(7, 7), torch.ones(5, 7), torch.zeros(0, 5, 7)
    assert torch.equal(recurrent.weight_gradient(LinearMap(), weight, first, spikes, g), torch.zeros(7, 7))
