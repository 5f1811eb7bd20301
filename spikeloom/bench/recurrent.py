"""All-to-all recurrence in the shape of spoken digits: Linear and RLeaky over sparse input, forward and backward."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn

from .leaky import FLOOR, PEER, STEPPED, TX, UNROLLED
from .networks import ACCELERATED, exact, outcome, spikes
from .neurons import first
from .result import Shape
from .runner import Case, Outcome, Run, installed

DENSITY, HIDDEN = 0.02, 256


def events(shape: Shape) -> Tensor:
    """Spikes of 0 and 1, the same each time."""
    return spikes(shape, DENSITY)


def network(library: ModuleType, x: Tensor) -> nn.Sequential:
    """The layers, the same each time, with weights under which about as many neurons fire as inputs do.

    Weights are multiples of 1/64 and beta is 1/2, so that most sums are exact: the spikes do not hang on their order.
    """
    neuron = library.RLeaky(beta=0.5, linear_features=HIDDEN, init_hidden=True)
    exact(nn.Sequential(linear := nn.Linear(x.shape[-1], HIDDEN)), (2.75,))
    exact(nn.Sequential(neuron.recurrent), (1.5,))
    return nn.Sequential(linear, neuron)


def unrolled(accelerated: bool) -> Callable[[Tensor], Run]:
    """One call over all time."""

    def prepare(x: Tensor) -> Run:
        net = snn.accelerate(network(snn, x), accelerated)

        def run() -> Outcome:
            snn.utils.reset(net)
            return outcome(snn.unroll(net, x), net, training=True)

        return run

    return prepare


def stepped(library: str) -> Callable[[Tensor], Run]:
    """The loop over time that snnTorch's tutorials write."""

    def prepare(x: Tensor) -> Run:
        net = network(installed(library), x)
        neuron: Any = net[1]

        def run() -> Outcome:
            neuron.reset_mem()
            return outcome(torch.stack([first(net(x_t)) for x_t in x.unbind(0)]), net, training=True)

        return run

    return prepare


def floor(x: Tensor) -> Run:
    """The one product that skips nothing: the gradients of all steps times the recurrent weights, at once."""
    grads, weight = torch.rand(x.shape[0] * x.shape[1], HIDDEN), torch.rand(HIDDEN, HIDDEN)
    out = torch.empty_like(grads)

    def run() -> Outcome:
        torch.mm(grads, weight, out=out)
        return {}

    return run


def layers(x: Tensor) -> str:
    """How many neurons fire, and what runs the layers, so that a slow result explains itself."""
    net = snn.accelerate(network(snn, x))
    with torch.no_grad():
        fired = float(snn.unroll(net, x).mean())
    return f"not zero: input {float(x.mean()):.1%}, layer 1 {fired:.1%}\n{ACCELERATED}:\n{snn.explain(net, x)}"


RECURRENT = Case(
    name="recurrent",
    title=f"Linear and RLeaky of {HIDDEN} neurons over [T, B, N], {DENSITY:.0%} of it spikes, forward and backward",
    label="Linear + RLeaky [{T}, {B}, {N}], 2 % spikes, training",
    axes=TX,
    shapes=((250, 64, 700), (100, 32, 700)),
    small=(20, 4, 70),
    inputs=events,
    contestants={
        ACCELERATED: unrolled(True),
        UNROLLED: unrolled(False),
        STEPPED: stepped("spikeloom"),
        PEER: stepped("snntorch"),
        FLOOR: floor,
    },
    reference=STEPPED,
    ours=ACCELERATED,
    floor=FLOOR,
    unchecked=(FLOOR,),
    remarks=layers,
    memory=True,
)
