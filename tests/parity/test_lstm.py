"""The LSTM neurons against those of snnTorch 1.0.0 over the product of their options."""

import inspect
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeloom as snn

from ..oracle import Outcome, assert_same
from .running import cotangent, snntorch, spread

RESETS = ("none", "subtract", "zero")
KINDS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "SLSTM": ({"input_size": 4, "hidden_size": 4, "threshold": 0.05}, (3, 4)),
    "SConv2dLSTM": ({"in_channels": 2, "out_channels": 3, "kernel_size": 3, "threshold": 0.05}, (2, 2, 4, 6)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "without bias": {"bias": False},
    "learned": {"learn_threshold": True},
    "another surrogate": {"spike_grad": "fast_sigmoid"},
    "no gradient through spikes": {"surrogate_disable": True},
    "quantised": {"state_quant": lambda state: state + (torch.round(32 * state) / 32 - state).detach()},
}
OWN: dict[str, dict[str, dict[str, Any]]] = {
    "SLSTM": {"per neuron": {"threshold": spread(0.02, 0.1, 4)}},
    "SConv2dLSTM": {
        "max pool": {"max_pool": 2},
        "avg pool": {"avg_pool": 2},
        "oblong": {"kernel_size": (3, 5)},
        "per channel": {"threshold": spread(0.02, 0.1, 3, 1, 1)},
    },
}
CASES = [
    pytest.param(name, {**options, "reset_mechanism": reset}, id=f"{name}-{which}-{reset}")
    for name in KINDS
    for (which, options), reset in product({**OPTIONS, **OWN[name]}.items(), RESETS)
]


def made(library: Any, name: str, options: dict[str, Any]) -> Any:
    given = {**KINDS[name][0], **options}
    given = {key: value.clone() if isinstance(value, Tensor) else value for key, value in given.items()}
    if "spike_grad" in given:
        given["spike_grad"] = getattr(library.surrogate, given["spike_grad"])(5)
    torch.manual_seed(2)
    return getattr(library, name)(**given)


def outcome(neuron: Any, name: str, at_once: bool = False) -> Outcome:
    shape = KINDS[name][1]
    xs = (4 * torch.rand(6, *shape, generator=torch.Generator().manual_seed(7)) - 1.5).requires_grad_()
    if at_once:
        outs = snn.unroll(neuron, xs)
    else:
        states, seen = neuron.reset_mem(), []
        for x in xs.unbind(0):
            spk, *states = neuron(x, *states)
            seen.append((spk, *states))
        outs = tuple(torch.stack(each) for each in zip(*seen, strict=True))
    learned = {"x": xs, **dict(neuron.named_parameters())}
    total = sum((out * cotangent(out, seed)).sum() for seed, out in enumerate(outs))
    grads = torch.autograd.grad(total, list(learned.values()))
    named = {"syn": outs[1].detach(), "mem": outs[2].detach()}
    return Outcome({"spk": outs[0].detach()}, named, dict(zip(learned, grads, strict=True)))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_product_of_the_options(name, options):
    wanted = outcome(made(snntorch, name, options), name)
    assert 0.02 < wanted.spikes["spk"].mean() < 0.95
    with snn.backend("loop"):  # which compiles nothing
        assert_same(outcome(made(snn, name, options), name), wanted)
        assert_same(outcome(made(snn, name, options), name, at_once=True), wanted)


@pytest.mark.parametrize(("name", "options"), CASES[14:29:14])
def test_some_of_the_product_on_the_fastest_backend(name, options):
    """One of each neuron; that kernels agree with the loop is tested apart."""
    wanted = outcome(made(snntorch, name, options), name)
    assert_same(outcome(made(snn, name, options), name), wanted)
    assert_same(outcome(made(snn, name, options), name, at_once=True), wanted)


@pytest.mark.parametrize("name", KINDS)
def test_names_and_checkpoints_are_the_same(name):
    ours, theirs = made(snn, name, {"learn_threshold": True}), made(snntorch, name, {"learn_threshold": True})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert list(dict(ours.named_parameters())) == list(dict(theirs.named_parameters()))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    added = {"SLSTM": ["memoryless"], "SConv2dLSTM": ["stride", "dilation"]}[name]
    mine, given = (inspect.signature(getattr(library, name)).parameters for library in (snn, snntorch))
    assert [(p.name, p.default) for p in mine.values()][: len(given)] == [(p.name, p.default) for p in given.values()]
    assert list(mine)[len(given) :] == added
    assert list(inspect.signature(type(ours).forward).parameters) == list(
        inspect.signature(type(theirs).forward).parameters
    )


@pytest.mark.parametrize(
    "keeping", [{}, {"output": True}, {"init_hidden": True}, {"init_hidden": True, "output": True}]
)
@pytest.mark.parametrize("name", KINDS)
def test_what_a_call_returns(name, keeping):
    ours, theirs = made(snn, name, keeping), made(snntorch, name, keeping)
    for _ in range(2):
        x = torch.rand(KINDS[name][1])
        got, wanted = ours(x), theirs(x)
        assert isinstance(got, tuple) == isinstance(wanted, tuple)
        for a, b in zip(got if isinstance(got, tuple) else [got], wanted if isinstance(wanted, tuple) else [wanted]):  # noqa: B905
            torch.testing.assert_close(a, b)
