"""STDP against snnTorch's, function by function and through its learner."""

import inspect
from itertools import product

import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom.functional import stdp_learner as ours

from ..each import for_each
from ..oracle import assert_close
from .running import snntorch

theirs = pytest.importorskip("snntorch.functional.stdp_learner")
PAIRS = ((snn, ours), (snntorch, theirs))

SYNAPSES = {
    "linear": lambda: nn.Linear(6, 4),
    "linear, no bias": lambda: nn.Linear(6, 4, bias=False),
    "conv1d": lambda: nn.Conv1d(2, 3, 3),
    "conv1d, stride and padding": lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1),
    "conv2d": lambda: nn.Conv2d(2, 3, 3),
    "conv2d, stride and padding": lambda: nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0)),
    "conv2d, circular": lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
    "conv2d, reflected": lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
}
FUNCTIONS = {
    "by default": {},
    "fixed": {"f_pre": torch.ones_like, "f_post": torch.ones_like},
    "bounded": {"f_pre": lambda w: w**2, "f_post": lambda w: 1 - w},
}
STEP = {"linear": "stdp_linear_single_step", "conv1d": "stdp_conv1d_single_step", "conv2d": "stdp_conv2d_single_step"}


def made(name: str):
    torch.manual_seed(2)
    synapse = SYNAPSES[name]()
    kind = name[:6]
    x = (torch.rand({"linear": (5, 3, 6), "conv1d": (5, 3, 2, 8), "conv2d": (5, 3, 2, 7, 6)}[kind]) < 0.4).float()
    with torch.no_grad():
        y = [(torch.rand_like(synapse(x_t)) < 0.4).float() for x_t in x]
    return synapse, x, torch.stack(y)


@for_each("functions", FUNCTIONS)
@for_each(("tau_pre", "tau_post"), list(product((1.0, 4.0), (2.0, 7.5))))
@for_each("name", SYNAPSES)
def test_same_traces_and_changes(name, tau_pre, tau_post, functions):
    synapse, x, y = made(name)
    results = []
    for _, library in PAIRS:
        pre, post, all_ = None, None, []
        for x_t, y_t in zip(x, y, strict=True):
            step = getattr(library, STEP[name[:6]])
            pre, post, dW = step(synapse, x_t, y_t, pre, post, tau_pre, tau_post, **FUNCTIONS[functions])
            all_ += [pre, post, dW.detach()]
        results.append(all_)
    for got, wanted in zip(*results, strict=True):
        assert_close(got, wanted, "a trace or change")


@pytest.mark.parametrize("functions", FUNCTIONS)
@pytest.mark.parametrize("eligibility_trace", [False, True])
def test_same_eligibilities(eligibility_trace, functions):
    fc, x, y = made("linear")
    if eligibility_trace:  # takes no batch there
        x, y = x[:, 0], y[:, 0]
    name, more = ("mstdpet_linear_single_step", (6.0,)) if eligibility_trace else ("mstdp_linear_single_step", ())
    results = []
    for _, library in PAIRS:
        pre, post, all_ = torch.zeros_like(x[0]), torch.zeros_like(y[0]), []
        for x_t, y_t in zip(x, y, strict=True):
            step = getattr(library, name)
            pre, post, e = step(fc, x_t, y_t, pre, post, 3.0, 5.0, *more, **FUNCTIONS[functions])
            all_ += [pre, post, e.detach()]
        results.append(all_)
    for got, wanted in zip(*results, strict=True):
        assert_close(got, wanted, "a trace or eligibility")


@for_each("every", [1, 2, 5])
@for_each("scale", [1.0, 0.25])
@for_each("on_grad", [True, False])
@for_each("name", SYNAPSES)
def test_the_learner_makes_the_same_changes(name, on_grad, scale, every):
    results = []
    for library, module in PAIRS:
        synapse, x, _ = made(name)
        lif = library.Leaky(beta=0.8, threshold=0.2, init_hidden=True)
        learner = module.STDPLearner(synapse, lif, 3.0, 5.0)
        changes = []
        for t, x_t in enumerate(x):
            lif(synapse(x_t))
            if (t + 1) % every == 0:
                change = learner.step(on_grad, scale)
                changes.append((synapse.weight.grad if on_grad else change).detach().clone())
        results.append([*changes, learner.trace_pre, learner.trace_post])
    for got, wanted in zip(*results, strict=True):
        assert_close(got, wanted.detach(), "a change or trace")
    assert any(change.any() for change in results[0][:-2])


@pytest.mark.parametrize("name", [name for name in vars(ours) if "single_step" in name and "stdp" in name])
def test_the_arguments_have_the_same_names_and_order(name):
    got, wanted = (list(inspect.signature(getattr(library, name)).parameters) for _, library in PAIRS)
    assert got == wanted


@pytest.mark.parametrize("name", ["__init__", "step", "reset", "enable", "disable"])
def test_so_have_those_of_the_learner(name):
    got, wanted = (list(inspect.signature(getattr(m.STDPLearner, name)).parameters) for _, m in PAIRS)
    assert got == wanted
