"""Synaptic operations: one for each weight that is not zero and meets an input that is not zero.

They follow from counts, without running a layer again: an input value that is not zero causes as many operations as
there are nonzero weights that it meets, its fan-out. A bias is no synaptic operation. A step is accumulated (AC) if all
inputs of the batch are -1, 0 or 1, so that no product has to be computed; else its operations are multiply-accumulate
operations (MAC).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from ..layers import DelayedLinear
from ..neurons.leaky_parallel import Weights
from ..neurons.lstm import SConv2dLSTM
from ._connections import CONVOLUTIONS
from ._counting import met

Product = Callable[[Tensor, Tensor], Tensor]
"""A layer without bias, as a function of inputs and weight."""


@dataclass
class Operations:
    """Synaptic operations of a layer.

    Args:
        macs: effective multiply-accumulate operations.
        acs: effective accumulate operations.
        dense: operations if no weight and no input were zero.
        dense_acs: the part of `dense` in steps that are accumulated.
    """

    macs: int = 0
    acs: int = 0
    dense: int = 0
    dense_acs: int = 0

    def add(self, other: "Operations") -> None:
        """Add those of another run."""
        self.macs, self.acs = self.macs + other.macs, self.acs + other.acs
        self.dense, self.dense_acs = self.dense + other.dense, self.dense_acs + other.dense_acs


def of_steps(effective: Tensor, dense: Tensor, spikes: Tensor, times: int) -> Operations:
    """The sums of the operations of each step, [T].

    Args:
        effective, dense: number of operations.
        spikes: whether all inputs of a step are -1, 0 or 1.
        times: how often each step is repeated.
    """
    all_of_them, full = int(effective.sum()), int(dense.sum())
    acs, full_acs = int(effective[spikes].sum()), int(dense[spikes].sum())
    return Operations((all_of_them - acs) * times, acs * times, full * times, full_acs * times)


class FanOut:
    """The operations of a linear map with a weight, per input value.

    Args:
        product: the map.
        weight: the current weight of a layer.
    """

    def __init__(self, product: Product, weight: Callable[[], Tensor]):
        self.product, self.weight = product, weight
        self._known: dict[torch.Size, tuple[Tensor, int]] = {}

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each step, [T]: effective and dense operations, and whether all of x [T, B, ...] are -1, 0 or 1."""
        shape = x.shape[2:]
        if shape not in self._known:
            with torch.inference_mode(False):
                self._known[shape] = self._counted(shape)
        fan, dense = self._known[shape]
        effective, spikes = met(x, fan)
        return effective, torch.full_like(effective, dense * x.shape[1]), spikes

    def _counted(self, shape: torch.Size) -> tuple[Tensor, int]:
        """The nonzero weights that each input value meets, and the number of all pairs of a weight and an input."""
        weight = self.weight().detach()
        if self.product is linear:
            return weight.count_nonzero(0).expand(shape), weight.numel() * shape[:-1].numel()
        connected = weight != 0
        fan = self._of(connected.double(), shape).long()
        return fan, int(self._of(torch.ones_like(connected).double(), shape).sum())

    def _of(self, weight: Tensor, shape: torch.Size) -> Tensor:
        """How many weights of one each input value meets: the gradient of the sum of all outputs."""
        with torch.enable_grad():
            x = torch.zeros(1, *shape, dtype=weight.dtype, device=weight.device, requires_grad=True)
            (fan,) = torch.autograd.grad(self.product(x, weight).sum(), x)
        return fan


class Linear:
    """Counts the operations of a linear layer."""

    def __init__(self, product: Product, weight: Callable[[], Tensor], dims: int):
        self._fan, self._dims = FanOut(product, weight), dims

    def __call__(self, x: Tensor, times: int) -> Operations:
        """For inputs [T, B, ...] or, without a batch, [T, ...]."""
        x = x.unsqueeze(1) if x.dim() <= self._dims else x
        return of_steps(*self._fan(x), times)


def counter(layer: Any) -> Linear | None:
    """Counts the operations of a feed-forward layer; None for other layers."""
    if isinstance(layer, (nn.Linear, DelayedLinear)):
        return Linear(linear, lambda: layer.weight, 1)
    if isinstance(layer, Weights):
        return Linear(linear, lambda: layer.weight_ih_l0, 1)
    for kind, dims in zip(CONVOLUTIONS, (2, 3, 4), strict=True):
        if isinstance(layer, kind):
            return Linear(_convolution(kind, layer), lambda: layer.weight, dims)
    return None


def _convolution(kind: Any, layer: nn.Module) -> Product:
    """A convolution without bias, computed by torch's class also for an accelerated layer."""
    return lambda x, weight: kind._conv_forward(layer, x, weight, None)


class ConvLSTM:
    """Counts the operations of the convolution inside of `SConv2dLSTM`, over its inputs and its last membranes."""

    def __init__(self, neuron: SConv2dLSTM):
        step, pad, spaced = neuron.stride, neuron.padding, neuron.dilation
        size = neuron.in_channels
        self._of_x = FanOut(lambda x, w: conv2d(x, w, None, step, pad, spaced), lambda: neuron.conv.weight[:, :size])
        self._of_mem = FanOut(lambda x, w: conv2d(x, w, None, 1, pad, spaced), lambda: neuron.conv.weight[:, size:])

    def __call__(self, x: Tensor, mem: Tensor) -> Operations:
        """For inputs and last membranes, [T, B, C, H, W]."""
        (of_x, dense_x, spikes), (of_mem, dense_mem, spikes_of_mem) = self._of_x(x), self._of_mem(mem)
        return of_steps(of_x + of_mem, dense_x + dense_mem, spikes & spikes_of_mem, 1)


def cell(layer: nn.RNNCellBase, x: Tensor, *states: Tensor) -> Operations:
    """The operations of a recurrent cell, for inputs and last states [T, B, ...], the output state first.

    Products of weights and of gates count; sigmoid and tanh do not. A gate is zero if nothing that is not zero enters
    it, biases included. As in NeuroBench, the inputs alone decide between MAC and AC, and the dense number counts
    states as they are.
    """
    given = [(state != 0).double() for state in states]
    effective = _of_cell(layer, lambda w: (w != 0).double(), (x != 0).double(), given)
    dense = _of_cell(layer, lambda w: torch.ones_like(w, dtype=torch.double), torch.ones_like(x).double(), given)
    spikes = ((x == 0) | (x.abs() == 1)).flatten(1).all(1)
    return of_steps(effective, dense, spikes, 1)


def _of_cell(layer: nn.RNNCellBase, ones: Callable[[Tensor], Tensor], x: Tensor, states: list[Tensor]) -> Tensor:
    hidden = states[0]
    of_x, of_h = linear(x, ones(layer.weight_ih.detach())), linear(hidden, ones(layer.weight_hh.detach()))
    count = of_x + of_h
    total = _summed(count)
    if isinstance(layer, nn.RNNCell):
        return total
    biases = [ones(b.detach()) for b in (layer.bias_ih, layer.bias_hh)] if layer.bias else [count.new_zeros(1)] * 2
    if isinstance(layer, nn.LSTMCell):
        i, f, g, o = ((count + biases[0] + biases[1]) != 0).double().chunk(4, -1)
        memory = f * states[1] + i * g
        return total + _summed(memory) + _summed(o * (memory != 0))
    r, z, _ = (count + biases[0] + biases[1]).chunk(3, -1)  # nn.GRUCell
    recurrent = (r != 0) & (of_h.chunk(3, -1)[2] + biases[1].chunk(3, -1)[-1] != 0)
    n = of_h.chunk(3, -1)[2] + biases[0].chunk(3, -1)[-1] + recurrent != 0
    return total + _summed(recurrent) + _summed((z != 1) & n) + _summed((z != 0) * hidden)


def _summed(count: Tensor) -> Tensor:
    return count.flatten(1).sum(1).long()
