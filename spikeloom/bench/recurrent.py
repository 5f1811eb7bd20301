"""All-to-all recurrence in the shape of spoken digits: Linear and RLeaky over sparse input, forward and backward."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn

from .leaky import PEER, UNROLLED
from .neurons import first
from .runner import Case, Outcome, Run, Shape, installed

DENSITY, HIDDEN = 0.02, 256
ACCELERATED, STEPPED = "spikeloom, accelerated", "spikeloom, step by step"
FLOOR = "floor"


def events(shape: Shape) -> Tensor:
    """Spikes of 0 and 1, the same each time."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < DENSITY).float()


def network(library: ModuleType, x: Tensor) -> tuple[nn.Linear, Any]:
    """The layers, the same each time.

    Weights are multiples of 1/64 and beta is 1/2, so that most sums are exact: the spikes do not hang on their order.
    """
    draw = torch.Generator().manual_seed(2)
    linear, neuron = nn.Linear(x.shape[-1], HIDDEN), library.RLeaky(beta=0.5, linear_features=HIDDEN, init_hidden=True)
    with torch.no_grad():
        for layer, high in ((linear, 24), (neuron.recurrent, 5)):
            layer.weight.copy_(torch.randint(1 - high, high, layer.weight.shape, generator=draw) / 64)
            layer.bias.copy_(torch.randint(0, 8, layer.bias.shape, generator=draw) / 64)
    return linear, neuron


def outcome(spk: Tensor, linear: nn.Linear, neuron: Any) -> Outcome:
    """The backward pass of the mean of all spikes, to every weight and bias."""
    named = {"input": linear, "recurrent": neuron.recurrent}
    learned = {f"{name} {kind}": p for name, layer in named.items() for kind, p in layer.named_parameters()}
    grads = torch.autograd.grad(spk.mean(), list(learned.values()))
    return {"spikes": spk.detach(), **dict(zip(learned, grads, strict=True))}


def unrolled(accelerated: bool) -> Callable[[Tensor], Run]:
    """One call over all time."""

    def prepare(x: Tensor) -> Run:
        linear, neuron = network(snn, x)
        net = snn.accelerate(nn.Sequential(linear, neuron), accelerated)

        def run() -> Outcome:
            snn.utils.reset(net)
            return outcome(snn.unroll(net, x), linear, neuron)

        return run

    return prepare


def stepped(library: str) -> Callable[[Tensor], Run]:
    """The loop over time that snnTorch's tutorials write."""

    def prepare(x: Tensor) -> Run:
        linear, neuron = network(installed(library), x)

        def run() -> Outcome:
            neuron.reset_mem()
            return outcome(torch.stack([first(neuron(linear(x_t))) for x_t in x.unbind(0)]), linear, neuron)

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
    """What runs the layers, so that a slow result explains itself."""
    net = snn.accelerate(nn.Sequential(*network(snn, x)))
    return f"{ACCELERATED}:\n{snn.explain(net, x)}"


RECURRENT = Case(
    name="recurrent",
    title=f"Linear and RLeaky of {HIDDEN} neurons over [T, B, N], {DENSITY:.0%} of it spikes, forward and backward",
    axes=("T", "B", "N"),
    shapes=((250, 64, 700), (100, 32, 700)),
    inputs=events,
    contestants={
        ACCELERATED: unrolled(True),
        UNROLLED: unrolled(False),
        STEPPED: stepped("spikeloom"),
        PEER: stepped("snntorch"),
        FLOOR: floor,
    },
    reference=STEPPED,
    peer=PEER,
    floor=FLOOR,
    unchecked=(FLOOR,),
    remarks=layers,
    standard=False,
)
