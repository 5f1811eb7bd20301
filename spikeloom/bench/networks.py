"""Whole networks: unrolled, accelerated, and step by step, beside snnTorch's loop.

Weights are scaled so that every layer fires: in a silent network agreement proves nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn

from .leaky import PEER, UNROLLED
from .neurons import first
from .recurrent import ACCELERATED, STEPPED
from .runner import Case, Outcome, Run, Shape, installed

PRODUCTS = "dense products"

Build = Callable[[ModuleType, Shape], nn.Sequential]
"""Makes the layers of a network, with the neurons of a library."""


@dataclass(frozen=True)
class Work:
    """What is done with a network.

    Args:
        build: makes it.
        inputs: makes its input [T, B, ...].
        training: whether the gradients of all weights are computed, or the forward alone.
    """

    build: Build
    inputs: Callable[[Shape], Tensor]
    training: bool = True


@dataclass(frozen=True)
class Task:
    """A shape and its input, the same for every contestant."""

    shape: Shape
    x: Tensor


def spikes(shape: Shape, density: float) -> Tensor:
    """Spikes of 0 and 1, the same each time."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < density).float()


def exact(net: nn.Sequential, gains: tuple[float, ...]) -> nn.Sequential:
    """Draw the weights, the same each time, as multiples of 1/64: most sums are exact, no spike hangs on their order.

    Args:
        net: its layers with weights are drawn.
        gains: for each of them the standard deviation of its weights times the root of its inputs.
    """
    draw = torch.Generator().manual_seed(2)
    layers = [layer for layer in net if isinstance(layer, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for layer, gain in zip(layers, gains, strict=True):
            scale = gain / layer.weight[0].numel() ** 0.5
            layer.weight.copy_((torch.randn(layer.weight.shape, generator=draw) * scale * 64).round() / 64)
            if layer.bias is not None:
                layer.bias.zero_()
    return net


def outcome(spk: Tensor, net: nn.Module, training: bool) -> Outcome:
    """The spikes; in training also the gradients of their sum, in the mean over steps and rows, for every weight.

    A mean over the neurons too would make the gradients so small that no tolerance told right from wrong.
    """
    learned = dict(net.named_parameters())
    grads = torch.autograd.grad(spk.mean((0, 1)).sum(), list(learned.values())) if training else ()
    return {"spikes": spk.detach(), **dict(zip(learned, grads, strict=training))}


def unrolled(work: Work, accelerated: bool) -> Callable[[Task], Run]:
    """One call over all time."""

    def prepare(task: Task) -> Run:
        net = snn.accelerate(work.build(snn, task.shape), accelerated)

        def run() -> Outcome:
            snn.utils.reset(net)
            with torch.set_grad_enabled(work.training):
                return outcome(first(snn.unroll(net, task.x)), net, work.training)

        return run

    return prepare


def stepped(work: Work, library: str) -> Callable[[Task], Run]:
    """The loop over time that users of snnTorch write."""

    def prepare(task: Task) -> Run:
        net = work.build(installed(library), task.shape)
        neurons: list[Any] = [layer for layer in net if hasattr(layer, "reset_mem")]

        def run() -> Outcome:
            for neuron in neurons:
                neuron.reset_mem()
            with torch.set_grad_enabled(work.training):
                spk = torch.stack([first(net(x_t)) for x_t in task.x.unbind(0)])
                return outcome(spk, net, work.training)

        return run

    return prepare


def products(work: Work) -> Callable[[Task], Run]:
    """The first Linear alone, as dense products over all time: forward and, in training, its weight's gradient."""

    def prepare(task: Task) -> Run:
        linear = next(layer for layer in work.build(snn, task.shape) if isinstance(layer, nn.Linear))
        weight, rows = linear.weight.detach(), task.x.flatten(0, 1)
        out, grad = rows.new_zeros(len(rows), len(weight)), torch.empty_like(weight)

        def run() -> Outcome:
            torch.mm(rows, weight.T, out=out)
            if work.training:
                torch.mm(out.T, rows, out=grad)
            return {}

        return run

    return prepare


def densities(work: Work) -> Callable[[Task], str]:
    """How many of the values are spikes, in the input and after each neuron."""

    def tell(task: Task) -> str:
        net, x = work.build(snn, task.shape), task.x
        told = [f"input {float((x != 0).float().mean()):.1%}"]
        with torch.no_grad():
            for number, layer in enumerate(net):
                spiking = hasattr(layer, "reset_mem")
                x = first(snn.unroll(layer, x)) if spiking else over_time(layer, x)
                if spiking:
                    told.append(f"layer {number} {float(x.mean()):.1%}")
        return f"not zero: {', '.join(told)}"

    return tell


def over_time(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer without state, on every step."""
    out = layer(x.flatten(0, 1))
    stacked: Tensor = out.unflatten(0, x.shape[:2])
    return stacked


def case(name: str, title: str, work: Work, axes: tuple[str, ...], shapes: tuple[Shape, ...], dense: bool) -> Case:
    """The case of one network; with `dense`, its floor is the dense products of its first Linear."""
    return Case(
        name=name,
        title=title,
        axes=axes,
        shapes=shapes,
        inputs=lambda shape: Task(shape, work.inputs(shape)),
        contestants={
            ACCELERATED: unrolled(work, True),
            UNROLLED: unrolled(work, False),
            STEPPED: stepped(work, "spikeloom"),
            PEER: stepped(work, "snntorch"),
            **({PRODUCTS: products(work)} if dense else {}),
        },
        reference=STEPPED,
        peer=PEER,
        floor=PRODUCTS if dense else None,
        unchecked=(PRODUCTS,),
        remarks=densities(work),
        standard=False,
    )


# -- the networks ------------------------------------------------------------------------------------------------------


def linear(library: ModuleType, shape: Shape) -> nn.Sequential:
    """One Linear and its neurons, as many as inputs."""
    size = shape[2]
    return exact(nn.Sequential(nn.Linear(size, size), library.Leaky(beta=0.5, init_hidden=True)), (3.0,))


def convolutional(library: ModuleType, shape: Shape) -> nn.Sequential:
    """The network of snnTorch's tutorial 6, on images of 28 x 28."""

    def leaky() -> nn.Module:
        neuron: nn.Module = library.Leaky(beta=0.5, spike_grad=library.surrogate.fast_sigmoid(25), init_hidden=True)
        return neuron

    net = nn.Sequential(
        nn.Conv2d(1, 12, 5), nn.MaxPool2d(2), leaky(),
        nn.Conv2d(12, 64, 5), nn.MaxPool2d(2), leaky(),
        nn.Flatten(), nn.Linear(64 * 4 * 4, 10), leaky(),
    )  # fmt: skip
    return exact(net, (1.0, 1.25, 1.7))


TX = ("T", "B", "N")
SIZES = ((500, 16, 512), (500, 16, 500), (250, 16, 1024))
SPARSE = Work(linear, lambda shape: spikes(shape, 0.05))
FORWARD = Work(linear, lambda shape: spikes(shape, 0.05), training=False)
IMAGES = Work(convolutional, lambda shape: spikes((*shape, 1, 28, 28), 0.15))

NETWORKS = (
    case("linear", "Linear + Leaky, input spikes 5 %, weight gradient", SPARSE, TX, SIZES, True),
    case("inference", "Linear + Leaky, input spikes 5 %, inference", FORWARD, TX, ((100, 32, 1000),), True),
    case("single", "Linear + Leaky, one row, inference", FORWARD, TX, ((500, 1, 128), (500, 1, 512)), True),
    case("convolution", "The network of tutorial 6, weights' gradients", IMAGES, ("T", "B"), ((50, 32),), False),
)
