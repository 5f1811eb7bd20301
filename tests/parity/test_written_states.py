"""Against snnTorch 1.0.0: gradients where the states are written into between the steps, and second derivatives."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn

from ..neurons.test_written_states import IN_PLACE, WRITES, passed
from ..oracle import assert_close
from .running import snntorch

Make = Callable[..., Any]

NEURONS: Mapping[str, tuple[Make, tuple[int, ...]]] = {
    "Leaky": (lambda lib, **o: lib.Leaky(beta=0.8, **o), (3, 4)),
    "Leaky, factor": (lambda lib, **o: lib.Leaky(beta=0.8, graded_spikes_factor=1.5, **o), (3, 4)),
    "RLeaky one to one": (lambda lib, **o: lib.RLeaky(beta=0.8, all_to_all=False, V=-0.4, **o), (3, 4)),
    "RLeaky": (lambda lib, **o: lib.RLeaky(beta=0.8, linear_features=4, **o), (3, 4)),
    "RLeaky by Conv2d": (lambda lib, **o: lib.RLeaky(beta=0.8, conv2d_channels=2, kernel_size=3, **o), (2, 2, 3, 4)),
    "Synaptic": (lambda lib, **o: lib.Synaptic(alpha=0.7, beta=0.8, **o), (3, 4)),
    "RSynaptic": (lambda lib, **o: lib.RSynaptic(alpha=0.7, beta=0.8, linear_features=4, **o), (3, 4)),
    "RSynaptic one to one": (
        lambda lib, **o: lib.RSynaptic(alpha=0.7, beta=0.8, all_to_all=False, V=0.3, **o),
        (3, 4),
    ),
    "Lapicque": (lambda lib, **o: lib.Lapicque(R=5.0, C=1.0, **o), (3, 4)),
    "Alpha": (lambda lib, **o: lib.Alpha(alpha=0.9, beta=0.6, threshold=0.4, **o), (3, 4)),
    "SLSTM": (lambda lib, **o: lib.SLSTM(4, 4, threshold=0.1, **o), (3, 4)),
    "SConv2dLSTM": (lambda lib, **o: lib.SConv2dLSTM(2, 2, 3, threshold=0.1, **o), (2, 2, 5, 4)),
}
SURROGATES = ("atan", "fast_sigmoid", "sigmoid", "straight_through_estimator", "spike_rate_escape", "SFS", "triangular")


def inputs(shape: tuple[int, ...], scale: float = 3.0) -> Tensor:
    return scale * torch.rand(6, *shape, generator=torch.Generator().manual_seed(5)) - 0.7


def of_both(name: str, **options: Any) -> tuple[Any, Any]:
    made = []
    for library in (snn, snntorch):
        torch.manual_seed(3)
        given = {key: value(library) if key == "spike_grad" else value for key, value in options.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.append(NEURONS[name][0](library, **given))
    return made[0], made[1]


SETTINGS = [
    *((name, "subtract", False) for name in NEURONS),
    *((name, "zero", True) for name in ("Leaky", "RLeaky one to one", "Synaptic", "Alpha", "SLSTM")),
]


@pytest.mark.parametrize("write", [*IN_PLACE, WRITES["by .data"]], ids=lambda write: write.__name__)
@pytest.mark.parametrize(("name", "reset", "learn"), SETTINGS)
def test_writes_between_the_steps_have_the_gradients_of_snntorch(name, write, reset, learn):
    found = []
    for neuron in of_both(name, reset_mechanism=reset, learn_threshold=learn):
        xs = inputs(NEURONS[name][1]).requires_grad_()
        outs = passed(neuron, 1.0 * xs, write)
        loss = sum(((1 + i % 5) * out.square()).mean() for i, out in enumerate(outs))
        learned = {"x": xs, **dict(neuron.named_parameters())}
        found.append(dict(zip(learned, torch.autograd.grad(loss, list(learned.values())), strict=True)))
    assert found[1]["x"].abs().sum() > 0
    for key, wanted in found[1].items():
        assert_close(found[0][key], wanted, key)


@pytest.mark.parametrize("written", ["mem", "spk"])
@pytest.mark.parametrize("name", ["Leaky", "RLeaky one to one", "RLeaky", "Alpha", "SLSTM"])
def test_writes_into_what_a_neuron_keeps_go_on_as_in_snntorch(name, written):
    """The returned spikes of a recurrent neuron are those that it keeps."""
    found = []
    for neuron in of_both(name, init_hidden=True, output=True):
        xs = inputs(NEURONS[name][1]).requires_grad_()
        total = 0.0
        for x in 1.0 * xs:
            spk, *_, mem = neuron(x)
            total = total + (spk + mem).square().mean()
            with torch.no_grad():
                t = neuron.mem if written == "mem" else spk
                t[:, 0] = 0.5
        found.append((total.detach(), torch.autograd.grad(total, xs)[0]))
    for got, wanted in zip(*found, strict=True):
        assert_close(got, wanted, written)


def penalty(neuron: Any, fc: nn.Module, xs: Tensor) -> Tensor:
    """A loss, and the distance of the norm of its gradient from one, as a critic with a gradient penalty has it."""
    states, total = neuron.reset_mem(), 0.0
    states = states if isinstance(states, tuple) else (states,)
    xs = xs.clone().requires_grad_()
    for t, x in enumerate(xs):
        spk, *states = neuron(fc(x.flatten(1)).view_as(x), *states)
        total = total + (1 + t) * (spk + sum(state.square() for state in states)).mean()
    (grad,) = torch.autograd.grad(total, xs, create_graph=True)
    return total + 10 * (grad.flatten(1).norm(dim=1) - 1).square().mean()


def assert_same(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Up to what rounding does to large gradients."""
    for key, theirs in wanted.items():
        scale = theirs.abs().max().clamp(min=1.0)
        assert_close(got[key] / scale, theirs / scale, key)


def penalized(neuron: Any, xs: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(1)
    fc = nn.Linear(xs[0, 0].numel(), xs[0, 0].numel())
    loss = penalty(neuron, fc, xs)
    learned = {**dict(fc.named_parameters()), **dict(neuron.named_parameters())}
    grads = torch.autograd.grad(loss, list(learned.values()))
    return {"loss": loss.detach(), **dict(zip(learned, grads, strict=True))}


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("name", NEURONS)
def test_a_gradient_penalty_over_steps_is_that_of_snntorch(name, reset):
    ours, theirs = of_both(name, reset_mechanism=reset, learn_threshold=True)
    xs = inputs(NEURONS[name][1])
    assert_same(penalized(ours, xs), penalized(theirs, xs))


@pytest.mark.parametrize("spike_grad", SURROGATES)
def test_a_gradient_penalty_has_every_surrogate_of_snntorch(spike_grad):
    make = lambda library: getattr(library.surrogate, spike_grad)()  # noqa: E731
    assert_same(*(penalized(n, inputs((3, 4), 1.5)) for n in of_both("Leaky", spike_grad=make, reset_delay=False)))
