"""snnTorch's tutorial 5: a network of 784, 1,000 and 10 neurons learns digits, and the losses agree."""

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
"""In parts of a loss. The first six are equal to 1e-5; then spikes that rounding has flipped move the weights, in every
library: snnTorch on one thread and on two is 2e-3 apart after twelve, and as far from itself in double precision."""


@dataclass(frozen=True)
class Lesson:
    """Batches of digits, and how many steps each is seen."""

    steps: int
    batches: list[tuple[Tensor, Tensor]]
    source: str


def lesson(shape: Shape) -> Lesson:
    """As many batches as losses are compared."""
    steps, batch = shape
    images, labels, source = digits(COMPARED * batch)
    return Lesson(steps, list(zip(images.split(batch), labels.split(batch), strict=True)), source)


def linears() -> tuple[nn.Linear, nn.Linear]:
    """The layers with weights, as PyTorch draws them, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(28 * 28, HIDDEN), nn.Linear(HIDDEN, CLASSES)


Loss = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of all steps, for images [B, pixels] and labels [B]."""


def over_time(membranes: Tensor, labels: Tensor) -> Tensor:
    """The loss in one call, for the output neurons' membranes [T, B, classes]."""
    return nn.functional.cross_entropy(membranes.flatten(0, 1), labels.repeat(len(membranes)))


def unrolled(lesson: Lesson, accelerated: bool) -> tuple[nn.Module, Loss]:
    """One call over all time."""
    first, second = linears()
    hidden, output = snn.Leaky(beta=BETA, init_hidden=True), snn.Leaky(beta=BETA, init_hidden=True, output=True)
    net = snn.accelerate(nn.Sequential(first, hidden, second, output), accelerated)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        snn.utils.reset(net)
        return over_time(snn.unroll(net, images, steps=lesson.steps)[1], labels)

    return net, loss


def stepped(lesson: Lesson, library: str) -> tuple[nn.Module, Loss]:
    """The loop over time as the tutorial writes it."""
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
    """Another library's multi-step mode; the first product, which is the same in every step, computed once."""
    first, second = linears()
    hidden, output = neurons(BETA), neurons(BETA)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        current = first(images).expand(lesson.steps, -1, -1)
        return over_time(output.membranes(second(hidden(current))), labels)

    return nn.ModuleList([first, second]), loss


def learning(make: Callable[[Lesson], tuple[nn.Module, Loss]], lesson: Lesson) -> Run:
    """Train for the losses that are compared; what is timed are further steps at a learning rate of zero, so that all
    contestants take them with the same weights, however many they take.
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
    """A way of running the network, as a contestant."""
    return partial(learning, lambda lesson: make(lesson, *arguments))


def active(lesson: Lesson) -> str:
    """Which digits, and how many of their pixels are not zero."""
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
