"""Losses compared with snnTorch's, forward and backward, on spikes [T, B, C]."""

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
"""Creates a loss from the `functional` of either library."""


@dataclass(frozen=True)
class Output:
    """Outputs of a network: spikes [T, B, C], which require their gradient, and labels [B]."""

    spk: Tensor
    labels: Tensor


def regular(shape: Shape) -> Output:
    """Each neuron fires `SPIKES` times, in one of several patterns that share no step.

    For other spike trains snnTorch's `multi_spike` loses spikes, so the results would not agree.
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
    """The loss, and its gradient with respect to the spikes."""
    loss = make(functional)

    def run() -> Outcome:
        value = loss(output.spk, output.labels)
        (grad,) = torch.autograd.grad(value, output.spk)
        return {"loss": value.detach(), "input gradients": grad}

    return run


def ours(make: Make, output: Output) -> Run:
    """spikeloom's."""
    return run_of(make, snn.functional, output)


def peer(make: Make, output: Output) -> Run:
    """snnTorch's."""
    return run_of(make, installed("snntorch.functional"), output)


def floor(output: Output) -> Run:
    """The minimum memory traffic: read the spikes once and write a gradient, in preallocated memory."""
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
