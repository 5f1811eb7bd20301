"""snnTorch's tutorial 5: a network of 784, 1,000 and 10 neurons learns digits; the losses are compared."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle

import torch
from torch import Tensor, nn

import spikeloom as snn

from .digits import digits
from .leaky import PEER, STEPPED, UNROLLED
from .networks import ACCELERATED
from .peers import Neurons, by_library
from .result import Shape
from .runner import Case, Outcome, Prepare, Run, installed

BETA, HIDDEN, CLASSES = 0.95, 1000, 10
COMPARED = 12
"""Training steps whose losses are compared."""
CLOSE = 5e-3
"""Relative tolerance of a loss. The first six agree to 1e-5; then, spikes flipped by rounding change the weights in
every library: snnTorch on one thread differs by 2e-3 from two threads after twelve, and from itself in float64."""


@dataclass(frozen=True)
class Lesson:
    """Batches of digits, and the number of steps per batch."""

    steps: int
    batches: list[tuple[Tensor, Tensor]]
    source: str


def lesson(shape: Shape) -> Lesson:
    """One batch per compared loss."""
    steps, batch = shape
    images, labels, source = digits(COMPARED * batch)
    return Lesson(steps, list(zip(images.split(batch), labels.split(batch), strict=True)), source)


def linears() -> tuple[nn.Linear, nn.Linear]:
    """The Linear layers, with PyTorch's initialization from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(28 * 28, HIDDEN), nn.Linear(HIDDEN, CLASSES)


Loss = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of all steps, for images [B, pixels] and labels [B]."""


def over_time(membranes: Tensor, labels: Tensor) -> Tensor:
    """The loss in one call, from the membranes of the output neurons [T, B, classes]."""
    return nn.functional.cross_entropy(membranes.flatten(0, 1), labels.repeat(len(membranes)))


def unrolled(lesson: Lesson, accelerated: bool) -> tuple[nn.Module, Loss]:
    """One call over all steps."""
    first, second = linears()
    hidden, output = snn.Leaky(beta=BETA, init_hidden=True), snn.Leaky(beta=BETA, init_hidden=True, output=True)
    net = snn.accelerate(nn.Sequential(first, hidden, second, output), accelerated)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        snn.utils.reset(net)
        return over_time(snn.unroll(net, images, steps=lesson.steps)[1], labels)

    return net, loss


def stepped(lesson: Lesson, library: str) -> tuple[nn.Module, Loss]:
    """The loop over time of the tutorial."""
    first, second = linears()
    leaky = installed(library).Leaky
    hidden, output = leaky(beta=BETA), leaky(beta=BETA)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        mem, mem_out, found = hidden.reset_mem(), output.reset_mem(), []
        for _ in range(lesson.steps):
            spk, mem = hidden(first(images), mem)
            _, mem_out = output(second(spk), mem_out)
            found.append(mem_out)
        total = torch.zeros(())
        for mem_out in found:
            total = total + nn.functional.cross_entropy(mem_out, labels)
        return total / lesson.steps

    return nn.ModuleList([first, second]), loss


def layer_by_layer(lesson: Lesson, neurons: Callable[[float], Neurons]) -> tuple[nn.Module, Loss]:
    """Multi-step mode of another library; the first product, the same at every step, is computed once."""
    first, second = linears()
    hidden, output = neurons(BETA), neurons(BETA)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        current = first(images).expand(lesson.steps, -1, -1)
        return over_time(output.membranes(second(hidden(current))), labels)

    return nn.ModuleList([first, second]), loss


def learning(make: Callable[[Lesson], tuple[nn.Module, Loss]], lesson: Lesson) -> Run:
    """Train for the compared losses; then time further steps at a learning rate of zero, so that all contestants have
    the same weights at any number of steps.
    """
    net, loss_of = make(lesson)
    adam = torch.optim.Adam(net.parameters(), lr=5e-4)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        loss = loss_of(images, labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.detach()

    losses = torch.stack([step(*batch) for batch in lesson.batches])
    adam.param_groups[0]["lr"] = 0.0
    coming: Iterator[tuple[Tensor, Tensor]] = cycle(lesson.batches)

    def run() -> Outcome:
        step(*next(coming))
        return {f"losses over {COMPARED} steps": losses}

    return run


def learner(make: Callable[..., tuple[nn.Module, Loss]], *arguments: object) -> Prepare:
    """A contestant from a way to run the network."""
    return partial(learning, lambda lesson: make(lesson, *arguments))


def active(lesson: Lesson) -> str:
    """The source of the digits, and the share of nonzero pixels."""
    lit = torch.cat([images for images, _ in lesson.batches]).ne(0).float().mean()
    return f"{lesson.source}; nonzero: input {float(lit):.1%}"


TUTORIAL = Case(
    name="tutorial",
    title="The network of snnTorch's tutorial 5, T steps of B digits, a training step with Adam",
    label="Tutorial 5 [{T}, {B}, 784-1000-10], training",
    axes=("T", "B"),
    shapes=((25, 128),),
    small=(5, 8),
    inputs=lesson,
    contestants={
        ACCELERATED: learner(unrolled, True),
        UNROLLED: learner(unrolled, False),
        STEPPED: learner(stepped, "spikeloom"),
        PEER: learner(stepped, "snntorch"),
    },
    reference=PEER,
    ours=ACCELERATED,
    peers=by_library(partial(learner, layer_by_layer)),
    remarks=active,
    close=CLOSE,
)
