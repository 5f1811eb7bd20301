"""All-to-all recurrence in the shape of spoken digits: Linear + RLeaky over sparse input, forward and backward."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn

from .leaky import FLOOR, PEER, STEPPED, TX, UNROLLED
from .networks import ACCELERATED, exact, outcome, spikes
from .neurons import first
from .peers import Neurons, by_library
from .result import Shape
from .runner import Case, Outcome, Run, installed

DENSITY, HIDDEN, WIDE, BETA = 0.02, 256, 2048, 0.5


def events(shape: Shape) -> Tensor:
    """Spikes of 0 and 1, from a fixed seed."""
    return spikes(shape, DENSITY)


def network(library: ModuleType, hidden: int, x: Tensor) -> nn.Sequential:
    """The layers, from a fixed seed, with weights at which neurons fire at about the rate of the inputs.

    Weights are multiples of 1/64 and beta is 1/2, so that most sums are exact in any order.
    """
    return drawn(library.RLeaky(beta=BETA, linear_features=hidden, init_hidden=True), x)


def drawn(neuron: Any, x: Tensor) -> nn.Sequential:
    """A Linear layer, and neurons with a recurrent Linear layer."""
    exact(nn.Sequential(linear := nn.Linear(x.shape[-1], neuron.recurrent.out_features)), (2.75,))
    exact(nn.Sequential(neuron.recurrent), (1.5,))
    return nn.Sequential(linear, neuron)


def unrolled(hidden: int, accelerated: bool) -> Callable[[Tensor], Run]:
    """One call over all steps."""

    def prepare(x: Tensor) -> Run:
        net = snn.accelerate(network(snn, hidden, x), accelerated)

        def run() -> Outcome:
            snn.utils.reset(net)
            return outcome(lambda: snn.unroll(net, x), net)

        return run

    return prepare


def stepped(hidden: int, library: str) -> Callable[[Tensor], Run]:
    """The loop over time that snnTorch's tutorials write."""

    def prepare(x: Tensor) -> Run:
        net = network(installed(library), hidden, x)
        neuron: Any = net[1]

        def run() -> Outcome:
            neuron.reset_mem()
            return outcome(lambda: torch.stack([first(net(x_t)) for x_t in x.unbind(0)]), net)

        return run

    return prepare


class Recurrent(nn.Module):
    """Another library's neurons, whose spikes are fed back at the next step through a Linear layer."""

    def __init__(self, neurons: Neurons, hidden: int) -> None:
        super().__init__()
        self.recurrent = nn.Linear(hidden, hidden)
        self.neurons = neurons

    def forward(self, x: Tensor) -> Tensor:
        """The spikes [T, B, N] for inputs [T, B, N], from zero."""
        self.neurons.restart()
        first, *rest = x.unbind(0)
        spikes = [self.neurons.step(first)]
        for x_t in rest:
            spikes.append(self.neurons.step(x_t + self.recurrent(spikes[-1])))
        return torch.stack(spikes)


def another(hidden: int, make: Callable[[float], Neurons], x: Tensor) -> Run:
    """Another library's neurons, with the input's Linear layer over all steps in one product."""
    net = drawn(Recurrent(make(BETA), hidden), x)
    return lambda: outcome(lambda: net(x), net)


def floor(hidden: int, x: Tensor) -> Run:
    """The one dense product: the gradients of all steps times the recurrent weights, at once."""
    grads, weight = torch.rand(x.shape[0] * x.shape[1], hidden), torch.rand(hidden, hidden)
    out = torch.empty_like(grads)

    def run() -> Outcome:
        torch.mm(grads, weight, out=out)
        return {}

    return run


def layers(hidden: int, x: Tensor) -> str:
    """The firing rate, and the backend of each layer."""
    net = snn.accelerate(network(snn, hidden, x))
    with torch.no_grad():
        fired = float(snn.unroll(net, x).mean())
    return f"nonzero: input {float(x.mean()):.1%}, layer 1 {fired:.1%}\n{ACCELERATED}:\n{snn.explain(net, x)}"


def recurrent(hidden: int, name: str, shapes: tuple[Shape, ...], label: str = "") -> Case:
    """The case for a number of neurons."""
    return Case(
        name=name,
        title=f"Linear + RLeaky({hidden}) over [T, B, N], input spike density {DENSITY:.0%}, forward and backward",
        label=label,
        axes=TX,
        shapes=shapes,
        small=(20, 4, 70),
        inputs=events,
        contestants={
            ACCELERATED: unrolled(hidden, True),
            UNROLLED: unrolled(hidden, False),
            STEPPED: stepped(hidden, "spikeloom"),
            PEER: stepped(hidden, "snntorch"),
            FLOOR: partial(floor, hidden),
        },
        reference=STEPPED,
        ours=ACCELERATED,
        floor=FLOOR,
        unchecked=(FLOOR,),
        peers=by_library(lambda make: partial(another, hidden, make)),
        remarks=partial(layers, hidden),
        memory=True,
    )


LABEL = "Linear + RLeaky [{T}, {B}, {N}], 2 % spikes, training"
RECURRENT = recurrent(HIDDEN, "recurrent", ((250, 64, 700), (100, 32, 700)), LABEL)
RECURRENT_WIDE = recurrent(WIDE, "recurrent-wide", ((250, 64, 700), (25, 64, 700)))
"""Enough neurons that on a GPU their steps are captured as a CUDA graph."""
