"""Neurons whose membrane comes back into their inputs through a product: Triton takes the rest of each step."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch

import spikeloom as snn
from spikeloom.engine.gpu import cuda_graphs
from spikeloom.engine.run import recurrent

from ...each import for_each
from ...neurons.sequences import LAYERS, drawn
from ...neurons.sequences import outcome as sequence_outcome
from ...neurons.zoo import made, sequence
from ...oracle import Outcome, assert_close, assert_same
from ..running import gradients
from .test_triton import DEVICE

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("quiet", "no_numba")]

NAMES = ("SLSTM", "SConv2dLSTM")
RESETS = ("none", "subtract", "zero")


@pytest.fixture(params=["recorded", "step by step"])
def way(request, monkeypatch, tuned):
    """Steps that are recorded, where there is a GPU, in runs of four, two and one; or the part of a graph of others."""
    tuned(graph_steps=4)
    monkeypatch.setattr(cuda_graphs, "captured", lambda x: request.param == "step by step")
    cuda_graphs.release()
    yield request.param
    cuda_graphs.release()


@dataclass(frozen=True)
class Case:
    """A neuron and its input.

    Args:
        single: whether it goes by the user's own loop.
        static: whether the input is the same at every step.
        traced: whether the states of every step are returned.
        learn: what has a gradient, by the names of `outcome`; None is all.
    """

    name: str = "SLSTM"
    reset: str = "none"
    steps: int = 7
    single: bool = False
    static: bool = False
    traced: bool = True
    vectors: bool = False
    learn: tuple[str, ...] | None = None
    dtype: torch.dtype = torch.float32


def outcome(backend: str, case: Case) -> Outcome:
    """The spikes, all states, and the gradients of the input, of the first states and of every parameter."""
    options = {"reset_mechanism": case.reset, "output": case.traced, "init_hidden": True, "learn_threshold": True}
    layer: Any = made(case.name, case.vectors, **options).to(DEVICE)
    layer = layer.double() if case.dtype is torch.float64 else layer
    x = sequence(case.name, case.steps, case.dtype).to(DEVICE)
    x = x[:1].clone() if case.static else x
    with torch.no_grad(), snn.backend("loop"):
        layer(x[0])
    tensors = {"x": x, "syn": layer.syn.clone(), "mem": layer.mem.clone(), **dict(layer.named_parameters())}
    for name, t in tensors.items():
        t.requires_grad_(case.learn is None or name in case.learn)
    layer.syn, layer.mem = tensors["syn"], tensors["mem"]
    with snn.backend(backend):
        if case.single:
            outs = [torch.stack(out) for out in zip(*(_tuple(layer(x_t)) for x_t in x), strict=True)]
        else:
            outs = _tuple(snn.unroll(layer, x[0], steps=case.steps) if case.static else snn.unroll(layer, x))
    states = {f"state {k}": out for k, out in enumerate(outs[1:])} | {"last syn": layer.syn, "last mem": layer.mem}
    return Outcome(
        {"spk": outs[0].detach()},
        {name: t.detach() for name, t in states.items()},
        gradients([*outs, *states.values()], tensors, backend),
    )


def _tuple(outs: Any) -> tuple[torch.Tensor, ...]:
    return outs if isinstance(outs, tuple) else (outs,)


CASES = [
    *(Case(name, reset) for name, reset in product(NAMES, RESETS)),
    *(Case(name, steps=steps, static=static) for name in NAMES for steps, static in ((1, False), (2, True), (5, True))),
    *(Case(name, "subtract", traced=False, static=static) for name in NAMES for static in (False, True)),
    *(Case(name, vectors=True, dtype=torch.float64) for name in NAMES),
    *(Case(name, learn=learn) for name in NAMES for learn in ((), ("x",), ("mem",), ("threshold",))),
    Case(learn=("lstm_cell.weight_hh",)),
    Case(learn=("lstm_cell.weight_hh",), steps=1),
    *(Case(name, dtype=dtype) for name in NAMES for dtype in (torch.float16, torch.bfloat16)),
]  # fmt: skip


@for_each("case", CASES)
def test_a_membrane_that_comes_back_through_a_product_gives_what_the_loop_gives(case, way):
    wanted = outcome("loop", case)
    assert wanted.spikes["spk"].any()
    assert_same(outcome("triton", case), wanted)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("name", NAMES)
def test_and_so_it_does_in_a_loop_of_the_user_s(name, reset):
    case = Case(name, reset, single=True)
    assert_same(outcome("triton", case), outcome("loop", case))


@pytest.mark.parametrize(
    "run",
    [lambda net, x: net(x), snn.unroll, lambda net, x: snn.unroll(net, x[0], steps=5), lambda net, x: net(x[:, 0])],
    ids=["called", "unrolled", "static", "without a batch"],
)
def test_a_membrane_of_one_input_comes_back_likewise(run, way):
    """Where there is nothing but sums in the order of the loop, and so its bits."""
    torch.manual_seed(1)
    net, x = LAYERS["LeakyParallel, full"]().to(DEVICE), drawn(7, 3, 4).to(DEVICE)
    with snn.backend("loop"):
        wanted = sequence_outcome(net, run, x)
    with snn.backend("triton"):
        got = sequence_outcome(net, run, x)
    assert_same(got, wanted, exact_states=DEVICE == "cpu")
    assert wanted.states["output 0"].any()


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_the_weight_is_taken_once_over_all_time(name, way, monkeypatch):
    taken, gradient = [], recurrent.weight_gradient
    monkeypatch.setattr(recurrent, "weight_gradient", lambda *given: taken.append(len(given[4].x)) or gradient(*given))
    outcome("triton", Case(name, steps=5))
    assert taken == [5]


@pytest.mark.parametrize("name", NAMES)
def test_no_steps_give_nothing_and_keep_the_state(name, way):
    layer = made(name, init_hidden=True, output=True).to(DEVICE)
    with snn.backend("triton"):
        layer(sequence(name)[0].to(DEVICE))
        before = layer.mem
        outs = snn.unroll(layer, sequence(name)[:0].to(DEVICE))
    assert all(len(out) == 0 for out in outs)
    assert torch.equal(layer.mem, before)


def test_explain_shows_that_such_a_membrane_goes_step_by_step(way):
    layer = made("SLSTM", init_hidden=True).to(DEVICE)
    with snn.backend("triton"):
        (row,) = snn.explain(layer, sequence("SLSTM").to(DEVICE)).rows
    assert row.backend == f"triton, {way}"
    assert any("the membrane is fed back through a layer of weights" in why for why in row.refusals)


def test_layers_that_are_alike_share_what_is_recorded_and_a_new_weight_is_read(way):
    """The second call of the first layer, and the other layer, with weights of their own."""
    layers, results = [made("SLSTM", init_hidden=True, output=True).to(DEVICE) for _ in range(2)], ([], [])
    for scale in (1.0, 1.5):
        for layer in layers:
            with torch.no_grad():
                layer.lstm_cell.weight_hh.mul_(scale)
            for backend, seen in zip(("triton", "loop"), results, strict=True):
                snn.utils.reset(layer)
                with snn.backend(backend):
                    outs = snn.unroll(layer, sequence("SLSTM", 5).to(DEVICE))
                seen += [*outs, *torch.autograd.grad(outs[2].sum(), list(layer.lstm_cell.parameters()))]
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours.detach(), theirs.detach(), "a result")
    assert cuda_graphs._graph.cache_info().misses == (4 if way == "recorded" else 0)  # of 4 steps and of 1
