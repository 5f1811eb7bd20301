"""A network as a list of simple layers, each from one array to another: what is written in C, or simulated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .equation import Equation


@dataclass(frozen=True)
class Array:
    """An array of the network: the values of one step of one sample.

    Args:
        name: its identifier; the input of the network has the name "x".
        shape: as in torch, without the batch; in memory it is one row after the other.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass
class Layer:
    """A layer.

    Args:
        name: its identifier.
        title: what a reader calls it.
        x: the arrays that it reads.
        y: the array that it writes.
    """

    name: str
    title: str
    x: tuple[Array, ...]
    y: Array

    def run(self, *x: Tensor) -> Tensor:
        """The output for inputs [B, *shape], in torch."""
        raise NotImplementedError


@dataclass
class Linear(Layer):
    """y = weight x + bias along the last dimension; weight [O, I], bias [O]."""

    weight: Tensor
    bias: Tensor

    def run(self, *x: Tensor) -> Tensor:
        """The output for an input [B, ..., I]."""
        return functional.linear(x[0], self.weight, self.bias)


@dataclass
class Conv(Layer):
    """A convolution of images, [C, H, W] or [C, L]; weight [O, I / groups, kh, kw], bias [O].

    Args:
        stride, padding, dilation: in both dimensions; of the padding, what comes before the first row and column.
        groups: groups of channels.
    """

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def run(self, *x: Tensor) -> Tensor:
        """The output for an input [B, C, H, W]."""
        (_, height, width), image = planes(self.y.shape), x[0].reshape(len(x[0]), *planes(self.x[0].shape))
        sizes = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.weight.shape[2:], strict=True)]
        spans = [(o - 1) * s + k for o, s, k in zip((height, width), self.stride, sizes, strict=True)]
        after = [max(0, span - p - n) for span, p, n in zip(spans, self.padding, image.shape[2:], strict=True)]
        padded = functional.pad(image, (self.padding[1], after[1], self.padding[0], after[0]))
        out = functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        return out[:, :, :height, :width].reshape(len(image), *self.y.shape)


@dataclass
class Pool(Layer):
    """The maximum or the mean over windows of an image.

    Args:
        kind: "max" or "avg".
        kernel, stride, padding, dilation: in both dimensions.
        divisors: of a mean, the number by which the sum of each window is divided, [H, W] of the output.
    """

    kind: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    divisors: Tensor

    def run(self, *x: Tensor) -> Tensor:
        """The output for an input [B, C, H, W]."""
        image = x[0].reshape(len(x[0]), *planes(self.x[0].shape))
        windows = self.windows(image, float("-inf") if self.kind == "max" else 0.0)
        divisors = self.divisors.to(image.dtype).flatten()
        out = windows.amax(3) if self.kind == "max" else windows.sum(3) / divisors
        return out.reshape(len(image), *self.y.shape)

    def windows(self, image: Tensor, fill: float) -> Tensor:
        """The values of each window, [B, C, H * W, kh * kw]."""
        (_, height, width) = planes(self.y.shape)
        rows, columns = (self._places(n, which) for which, n in enumerate((height, width)))
        padded = functional.pad(
            image, (self.padding[1], int(columns.max()) + 1, self.padding[0], int(rows.max()) + 1), value=fill
        )
        picked = padded[:, :, rows][..., columns]  # [B, C, H, kh, W, kw]
        return picked.permute(0, 1, 2, 4, 3, 5).flatten(4).flatten(2, 3)

    def _places(self, outputs: int, which: int) -> Tensor:
        first = torch.arange(outputs) * self.stride[which]
        return first[:, None] + torch.arange(self.kernel[which]) * self.dilation[which]


@dataclass
class Scale(Layer):
    """y = scale * x + shift per channel, the first dimension; scale and shift [C], or no shift."""

    scale: Tensor
    shift: Tensor | None

    def run(self, *x: Tensor) -> Tensor:
        """The output for an input [B, C, ...]."""
        per_channel = (-1, *[1] * (len(self.y.shape) - 1))
        scaled = x[0] * self.scale.view(per_channel)
        return scaled if self.shift is None else scaled + self.shift.view(per_channel)


@dataclass
class Join(Layer):
    """Arrays one after another along a dimension of their shapes; `dim` is 0 for the first after the batch."""

    dim: int

    def run(self, *x: Tensor) -> Tensor:
        """The output for inputs [B, ...]."""
        return torch.cat(x, self.dim + 1)


@dataclass
class Neuron(Layer):
    """An equation for each element, with states that stay from step to step.

    Args:
        equation: of a step. Each of its inputs is a part of each array of `x`, and the sum of these.
        states: the array of each state, by name.
        lost: what a program of it does not have.
    """

    equation: Equation
    states: Mapping[str, Array] = field(default_factory=dict)
    lost: tuple[str, ...] = ()

    def run(self, *x: Tensor) -> Tensor:
        """Not for neurons, which have states: see `reference`."""
        raise NotImplementedError


@dataclass
class Network:
    """A network.

    Args:
        title: what a reader calls it.
        x: the input.
        layers: in the order in which they run.
        y: the output.
        dtype: of all values.
        lost: what the network has and a program of it does not.
    """

    title: str
    x: Array
    layers: list[Layer]
    y: Array
    dtype: torch.dtype
    lost: tuple[str, ...]

    @property
    def neurons(self) -> list[Neuron]:
        return [layer for layer in self.layers if isinstance(layer, Neuron)]

    @property
    def before(self) -> int:
        """The number of layers whose output stays the same if the input does: those that read no neuron."""
        known = {self.x.name}
        for place, layer in enumerate(self.layers):
            if (isinstance(layer, Neuron) and layer.states) or not {x.name for x in layer.x} <= known:
                return place
            known.add(layer.y.name)
        return len(self.layers)

    def arrays(self) -> list[Array]:
        """What the layers write, in order."""
        return [layer.y for layer in self.layers]


def planes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A shape as channels, height and width."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2])


def pair(value: Any, images: bool, first: int = 1) -> tuple[int, int]:
    """An argument in both dimensions of images; of sequences, which are images of one row, `first` and the argument."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * (1 + images)
    return (int(values[0]), int(values[1])) if images else (first, int(values[0]))
