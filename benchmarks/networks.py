"""Whole networks: unrolled, accelerated and step by step, compared with other libraries and the dense products.

Weights are scaled so that every layer fires, since agreement of a silent network proves nothing.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn

from .device import draw
from .leaky import PEER, STEPPED, UNROLLED
from .neurons import first
from .peers import Neurons, by_library
from .result import Shape
from .runner import Outcome, Peer, Prepare, Run, installed

ACCELERATED, PRODUCTS = "spikeloom, accelerated", "dense products"

Leaky = Callable[[float], nn.Module]
"""Creates a layer of leaky neurons with a decay."""
Build = Callable[[Leaky, Shape], nn.Sequential]
"""Creates a network with neurons of one kind."""


@dataclass(frozen=True)
class Work:
    """How a network is built and run.

    Args:
        build: creates the network.
        inputs: creates its input, [T, B, ...], or [B, ...] if it is static.
        training: whether to compute the gradients of all weights, or the forward only.
        static: whether the input is the same at every step.
        slope: slope of a `fast_sigmoid` surrogate; None for the library's default surrogate.
        holds_outputs: whether the output spikes are held during backward.
    """

    build: Build
    inputs: Callable[[Shape], Tensor]
    training: bool = True
    static: bool = False
    slope: float | None = None
    holds_outputs: bool = True

    def task(self, shape: Shape) -> "Task":
        """The inputs of the case."""
        return Task(shape, self.inputs(shape), self.static)

    def of(self, library: ModuleType, shape: Shape) -> nn.Sequential:
        """The network, with the neurons of a library that is called step by step."""
        options = {} if self.slope is None else {"spike_grad": library.surrogate.fast_sigmoid(self.slope)}

        def leaky(beta: float) -> nn.Module:
            neurons: nn.Module = library.Leaky(beta=beta, init_hidden=True, **options)
            return neurons

        return self.build(leaky, shape)


@dataclass(frozen=True)
class Task:
    """A shape and its input, the same for all contestants."""

    shape: Shape
    x: Tensor
    static: bool = False

    def steps(self) -> Iterator[Tensor]:
        """The input of each step."""
        return iter([self.x] * self.shape[0] if self.static else self.x.unbind(0))

    def unroll(self, layer: nn.Module, x: Tensor, checkpoint: int | None = None) -> Any:
        """Run a layer or a network over all steps."""
        return snn.unroll(layer, x, steps=self.shape[0] if self.static else None, checkpoint=checkpoint)


def spikes(shape: Shape, density: float) -> Tensor:
    """Spikes of 0 and 1, from a fixed seed."""
    return (torch.rand(shape, generator=draw(1)) < density).float()


def exact(net: nn.Sequential, gains: tuple[float, ...]) -> nn.Sequential:
    """Draw weights as multiples of 1/64, from a fixed seed, so that most sums are exact in any order.

    Args:
        net: the network.
        gains: per layer, the standard deviation of its weights times the square root of its number of inputs.
    """
    generator = draw(2)
    layers = [layer for layer in net if isinstance(layer, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for layer, gain in zip(layers, gains, strict=True):
            scale = gain / layer.weight[0].numel() ** 0.5
            layer.weight.copy_((torch.randn(layer.weight.shape, generator=generator) * scale * 64).round() / 64)
            if layer.bias is not None:
                layer.bias.zero_()
    return net


def outcome(
    forward: Callable[[], Tensor], net: nn.Module, training: bool = True, holds_outputs: bool = True
) -> Outcome:
    """The output spikes; in training also the gradients of their sum with respect to every weight.

    The gradient of a sum is a constant, which no contestant stores per spike.
    """
    with torch.set_grad_enabled(training):
        spk = forward()
        loss = spk.sum()
    seen = spk.detach() if holds_outputs else packed(spk.detach())
    del spk
    learned = {name: weight for name, weight in net.named_parameters() if weight.requires_grad}
    grads = torch.autograd.grad(loss, list(learned.values())) if training else ()
    return {"spikes": seen, **dict(zip(learned, grads, strict=training))}


def packed(spk: Tensor) -> Tensor:
    """The spikes, up to 16 packed in one number, so that the comparison adds little to the measured memory.

    >>> packed(torch.tensor([[1.0, 0.0, 1.0, 1.0]]))
    tensor([[13.]])
    """
    width = math.gcd(16, spk.shape[-1])
    numbers: Tensor = spk.unflatten(-1, (-1, width)) @ 2.0 ** torch.arange(width, device=spk.device)
    return numbers


# -- the contestants ---------------------------------------------------------------------------------------------------


def unrolled(work: Work, accelerated: bool, checkpoint: int | None = None) -> Prepare:
    """One call over all steps."""

    def prepare(task: Task) -> Run:
        net = snn.accelerate(work.of(snn, task.shape), accelerated)

        def run() -> Outcome:
            snn.utils.reset(net)
            return outcome(lambda: first(task.unroll(net, task.x, checkpoint)), net, work.training, work.holds_outputs)

        return run

    return prepare


def stepped(work: Work, library: str) -> Prepare:
    """The loop over time that users of snnTorch write."""

    def prepare(task: Task) -> Run:
        net = work.of(installed(library), task.shape)
        neurons: list[Any] = [layer for layer in net if hasattr(layer, "reset_mem")]

        def run() -> Outcome:
            for neuron in neurons:
                neuron.reset_mem()
            by_step = (first(net(x_t)) for x_t in task.steps())
            return outcome(lambda: torch.stack(tuple(by_step)), net, work.training, work.holds_outputs)

        return run

    return prepare


def layer_by_layer(work: Work, neurons: Callable[[float], Neurons]) -> Prepare:
    """Multi-step mode of another library: every layer over all steps, a Linear layer in one product."""

    def prepare(task: Task) -> Run:
        net = work.build(neurons, task.shape)

        def run() -> Outcome:
            return outcome(lambda: over_time(net, task), net, work.training, work.holds_outputs)

        return run

    return prepare


def over_time(net: nn.Sequential, task: Task) -> Tensor:
    """Run each layer over all steps; with static inputs, the layers before the first neurons over one step only."""
    x, static = task.x.unsqueeze(0) if task.static else task.x, task.static
    for layer in net:
        if isinstance(layer, Neurons):
            x = layer(x.expand(task.shape[0], *x.shape[1:]) if static else x)
            static = False
        else:
            x = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return x


def libraries(work: Work) -> dict[str, Peer]:
    """The other libraries."""
    return by_library(partial(layer_by_layer, work))


def contestants(work: Work) -> dict[str, Prepare]:
    """All ways to run spikeloom, snnTorch's loop, and the floor."""
    return {
        ACCELERATED: unrolled(work, True),
        UNROLLED: unrolled(work, False),
        STEPPED: stepped(work, "spikeloom"),
        PEER: stepped(work, "snntorch"),
        PRODUCTS: partial(products, work),
    }


# -- layer for layer ---------------------------------------------------------------------------------------------------


def walked(work: Work, task: Task) -> Iterator[tuple[nn.Module, Tensor, Tensor]]:
    """Each layer with its input and output over all steps; over one step before the first neuron, if static."""
    x, static = task.x.unsqueeze(0) if task.static else task.x, task.static
    with torch.no_grad():
        for layer in work.of(snn, task.shape):
            if hasattr(layer, "reset_mem"):
                out = first(task.unroll(layer, x[0]) if static else snn.unroll(layer, x))
                static = False
            else:
                out = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            yield layer, x, out
            x = out


def products(work: Work, task: Task) -> Run:
    """All Linear layers and convolutions alone, as dense PyTorch products over all steps: forward, and in training
    the gradients of all weights and, after the first layer, of the input.
    """
    weighted = [(layer, x) for layer, x, _ in walked(work, task) if isinstance(layer, nn.Linear | nn.Conv2d)]
    parts = [
        (dense_linear if isinstance(layer, nn.Linear) else dense_convolution)(
            layer, x.flatten(0, 1), work.training, work.training and number > 0
        )
        for number, (layer, x) in enumerate(weighted)
    ]

    def run() -> Outcome:
        with torch.no_grad():
            for part in parts:
                part()
        return {}

    return run


def dense_linear(layer: Any, rows: Tensor, weights: bool, inputs: bool) -> Callable[[], None]:
    """The products of a Linear layer, in preallocated memory."""
    weight = layer.weight.detach()
    out, grad, back = rows.new_zeros(len(rows), len(weight)), torch.empty_like(weight), torch.empty_like(rows)

    def run() -> None:
        torch.mm(rows, weight.T, out=out)
        if weights:
            torch.mm(out.T, rows, out=grad)
        if inputs:
            torch.mm(out, weight, out=back)

    return run


def dense_convolution(layer: Any, images: Tensor, weights: bool, inputs: bool) -> Callable[[], None]:
    """The convolutions of a Conv2d, channels last, which is PyTorch's fastest layout."""
    images = images.contiguous(memory_format=torch.channels_last)
    weight = layer.weight.detach().contiguous(memory_format=torch.channels_last)
    where = {"stride": layer.stride, "padding": layer.padding}

    def run() -> None:
        out = nn.functional.conv2d(images, weight, **where)
        if weights:
            nn.grad.conv2d_weight(images, weight.shape, out, **where)
        if inputs:
            nn.grad.conv2d_input(images.shape, weight, out, **where)

    return run


def densities(work: Work) -> Callable[[Task], str]:
    """Spike density of the input and after each neuron."""

    def note(task: Task) -> str:
        shares = [f"input {float((task.x != 0).float().mean()):.1%}"]
        for number, (layer, _, out) in enumerate(walked(work, task)):
            if hasattr(layer, "reset_mem"):
                shares.append(f"layer {number} {float(out.mean()):.1%}")
        return f"nonzero: {', '.join(shares)}"

    return note
