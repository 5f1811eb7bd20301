"""A network as a list of simple layers, each from one array to another: what is written in C, or simulated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from .equation import Equation


@dataclass(frozen=True)
class Array:
    """An array of the network: the values of one step of one sample.

    Args:
        name: its identifier; the input of the network has the name "x".
        shape: as in torch, without the batch; in memory it is one row after the other.
        counts: whether it is a number of steps instead.
    """

    name: str
    shape: tuple[int, ...]
    counts: bool = False

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass
class Layer:
    """A layer.

    Args:
        name: of its function and its tables.
        title: what a reader calls it.
        x: the arrays that it reads.
        y: the array that it writes.
    """

    name: str
    title: str
    x: tuple[Array, ...]
    y: Array

    @property
    def kept(self) -> tuple[Array, ...]:
        """The arrays that stay from step to step."""
        return ()

    def run(self, *x: Tensor) -> Tensor:
        """The output for inputs [B, *shape], in torch."""
        raise NotImplementedError

    def advance(self, memory: Any, *x: Tensor) -> tuple[Tensor, Any]:
        """The output of a step, and what the next step is passed as `memory`; None at the first step."""
        return self.run(*x), None


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
class Lagged(Layer):
    """A layer with delays, in whole steps. It has a ring of arrays, one for each step up to the longest delay.

    Args:
        lag: the delays.
    """

    lag: Tensor
    ring: ClassVar[str] = "past"

    @property
    def steps(self) -> int:
        """The number of arrays in the ring."""
        return int(self.lag.max()) + 1

    @property
    def kept(self) -> tuple[Array, ...]:
        """The ring, and the place of this step in it."""
        ring = Array(f"{self.y.name}_{self.ring}", (self.steps, *self.y.shape))
        return ring, Array(f"{self.y.name}_now", (1,), counts=True)

    def inputs(self, memory: Tensor | None, x: Tensor) -> Tensor:
        """The inputs of the last steps with that of this one, the newest first; a memory without the latter."""
        before = x.new_zeros(self.steps, *x.shape) if memory is None else memory
        return torch.cat((x[None], before))[: self.steps]


@dataclass
class Delay(Lagged):
    """y at step t is x at step t - lag, zero before the first step; lag of the shape of x. The ring has last inputs."""

    def advance(self, memory: Any, *x: Tensor) -> tuple[Tensor, Any]:
        """The output; the memory has the newest input first."""
        past = self.inputs(memory, x[0])
        return past.gather(0, self.lag.expand(1, *x[0].shape))[0], past


@dataclass
class DelayedLinear(Lagged):
    """A weight and a delay per connection; weight and lag [O, I], bias [O]. The ring has the sums of the next steps."""

    weight: Tensor
    bias: Tensor
    ring: ClassVar[str] = "due"

    def advance(self, memory: Any, *x: Tensor) -> tuple[Tensor, Any]:
        """The output; the memory has the newest input first."""
        past, out = self.inputs(memory, x[0]), self.bias.expand(len(x[0]), -1)
        for lag, then in enumerate(past):
            out = out + functional.linear(then, self.weight * (self.lag == lag))
        return out, past


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
class StepScale(Scale):
    """The same with another scale and shift at every step, [T, C]; after the last one, the last."""

    @property
    def kept(self) -> tuple[Array, ...]:
        """The number of the step."""
        return (Array(f"{self.y.name}_step", (1,), True),)

    def at(self, step: int | None) -> int:
        """The row of a step; the first if it is None."""
        return min(step or 0, len(self.scale) - 1)

    def advance(self, memory: Any, *x: Tensor) -> tuple[Tensor, Any]:
        """The output; the memory is the number of the step."""
        row = self.at(memory)
        shift = None if self.shift is None else self.shift[row]
        return Scale(self.name, self.title, self.x, self.y, self.scale[row], shift).run(*x), (memory or 0) + 1


@dataclass
class Join(Layer):
    """Arrays one after another along a dimension of their shapes; `dim` is 0 for the first after the batch."""

    dim: int

    def run(self, *x: Tensor) -> Tensor:
        """The output for inputs [B, ...]."""
        return torch.cat(x, self.dim + 1)


@dataclass
class Product(Layer):
    """A product of two matrices, [R, K] and [K, Q]."""

    def run(self, *x: Tensor) -> Tensor:
        """The output for inputs [B, R, K] and [B, K, Q]."""
        return x[0] @ x[1]


@dataclass
class Pick(Layer):
    """y[n] = x[index[n]], or 0 where the index is -1; index, of the shape of y: slices, permutations, padding."""

    index: Tensor

    def run(self, *x: Tensor) -> Tensor:
        """The output for an input [B, ...]."""
        flat = functional.pad(x[0].flatten(1), (0, 1))  # -1 is the zero at the end
        return flat[:, self.index.flatten()].reshape(len(flat), *self.y.shape)


@dataclass
class Neuron(Layer):
    """An equation for each element, with states that stay from step to step.

    Args:
        equation: of a step. Each of its inputs is a part of each array of `x`, and the sum of these.
        states: the array of each state, by name.
        lost: what a program of it does not have.
        module: the layer of the library, which stores the states; None if it stores none.
    """

    equation: Equation
    states: Mapping[str, Array] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    module: nn.Module | None = field(default=None, repr=False)

    @property
    def kept(self) -> tuple[Array, ...]:
        """The states."""
        return tuple(self.states.values())

    def run(self, *x: Tensor) -> Tensor:
        """Not for neurons, which have states: see `reference`."""
        raise NotImplementedError


@dataclass
class Network:
    """A network.

    Args:
        title: what a reader calls it.
        prefix: of the names of its functions and tables.
        x: the input.
        layers: in the order in which they run.
        y: the output.
        dtype: of all values.
        lost: what the network has and a program of it does not.
    """

    title: str
    prefix: str
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
        """The number of layers whose output stays the same if the input does: those before the first state."""
        known = {self.x.name}
        for place, layer in enumerate(self.layers):
            if layer.kept or not {x.name for x in layer.x} <= known:
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
