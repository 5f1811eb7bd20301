"""The losses beside snnTorch's, forward and backward, on spikes over [T, B, C]."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import spikeloom as snn

from .device import draw
from .result import Shape
from .runner import Case, Outcome, Run, installed

OURS, PEER, FLOOR = "spikeloom", "snnTorch", "floor"
SPIKES = 3
"""How often a neuron fires."""

Make = Callable[[Any], Callable[[Tensor, Tensor], Tensor]]
"""Makes a loss of the `functional` of either library."""


@dataclass(frozen=True)
class Output:
    """What a network might give: spikes [T, B, C], which want their gradient, and the labels [B] of the samples."""

    spk: Tensor
    labels: Tensor


def regular(shape: Shape) -> Output:
    """Each neuron fires `SPIKES` times, in one of as many ways as there is room for that have no step in common.

    For on other trains `multi_spike` of snnTorch loses spikes, and there would be no agreement to check.
    """
    generator = draw(1)
    steps, batch, classes = shape
    period = max(1, steps // SPIKES)
    first = torch.randint(period, (batch, classes), generator=generator)
    spk = torch.zeros(shape)
    for k in range(min(SPIKES, steps)):
        spk.scatter_(0, (first + k * period).unsqueeze(0), 1.0)
    return Output(spk.requires_grad_(), torch.randint(classes, (batch,), generator=generator))


def run_of(make: Make, functional: Any, output: Output) -> Run:
    """The loss, and its gradient for the spikes."""
    loss = make(functional)

    def run() -> Outcome:
        value = loss(output.spk, output.labels)
        (grad,) = torch.autograd.grad(value, output.spk)
        return {"loss": value.detach(), "input gradients": grad}

    return run


def ours(make: Make, output: Output) -> Run:
    """This library's."""
    return run_of(make, snn.functional, output)


def peer(make: Make, output: Output) -> Run:
    """The one of snnTorch."""
    return run_of(make, installed("snntorch.functional"), output)


def floor(output: Output) -> Run:
    """The spikes are read once and a gradient is written, into memory that exists already, whatever is computed."""
    spk = output.spk.detach()
    grad = torch.empty_like(spk)

    def run() -> Outcome:
        torch.mul(spk, 0.5, out=grad)
        return {}

    return run


def case(name: str, title: str, make: Make) -> Case:
    """A loss as a case of the benchmark."""
    return Case(
        name=name,
        title=f"{title} over [T, B, C], forward and backward, float32",
        axes=("T", "B", "C"),
        shapes=((100, 128, 10),),
        small=(20, 4, 3),
        inputs=regular,
        contestants={OURS: partial(ours, make), PEER: partial(peer, make), FLOOR: floor},
        reference=OURS,
        ours=OURS,
        floor=FLOOR,
        unchecked=(FLOOR,),
    )


LOSSES = (
    case("mse_temporal", "mse_temporal_loss", lambda f: f.mse_temporal_loss(on_target=5, off_target=50)),
    case(
        "multi_spike",
        "mse_temporal_loss(multi_spike=True), three spikes",
        lambda f: f.mse_temporal_loss(on_target=[5, 20, 40], off_target=[50, 70, 90], multi_spike=True),
    ),
    case("ce_temporal", "ce_temporal_loss", lambda f: f.ce_temporal_loss()),
    case("ce_rate", "ce_rate_loss", lambda f: f.ce_rate_loss()),
    case("ce_count", "ce_count_loss", lambda f: f.ce_count_loss()),
)
