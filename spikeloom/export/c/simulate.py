"""Run a network in integers, with the results of its C bit for bit."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .errors import refuse
from .fixed_point import saturated
from .layers import (
    Conv,
    Delay,
    DelayedLinear,
    Join,
    Layer,
    Linear,
    Neuron,
    Pick,
    Pool,
    Product,
    Scale,
    StepScale,
    planes,
)
from .lowering import run, times
from .norms import Norm, simulated_norm
from .quantize import IntegerNetwork, Rescale
from .reference import driven


def narrowed_input(x: Tensor, scale: float) -> Tensor:
    """An input as integers of 8 bits, as the C converts it."""
    scaled = x.to(torch.float32) * torch.tensor(1 / scale, dtype=torch.float32)
    return torch.where(scaled >= -127, scaled.clamp(max=127), -127.0).round().to(torch.int64)


class Simulation:
    """A run of a network in integers from its initial states.

    Args:
        net: the network.
        batch: B.
    """

    def __init__(self, net: IntegerNetwork, batch: int):
        self.net = net
        self.arrays: dict[str, Tensor] = {}
        self.memory: dict[str, Any] = {}
        for layer in net.network.layers:
            self.arrays[layer.y.name] = torch.zeros(batch, *layer.y.shape, dtype=torch.int64)
            if isinstance(layer, Neuron):
                for state, array in layer.states.items():
                    value = start_of(net, layer, state)
                    self.arrays[array.name] = torch.full((batch, *array.shape), value, dtype=torch.int64)

    def step(self, x: Tensor) -> Tensor:
        """One step for an input of 8 bits [B, ...], int64; returns the output, int64."""
        self.arrays["x"] = x
        for layer in self.net.network.layers:
            read = [self.arrays[a.name].reshape(len(x), *a.shape) for a in layer.x]
            if isinstance(layer, Neuron):
                self._neuron(layer, read)
            else:
                self.arrays[layer.y.name] = self._layer(layer, read)
        y = self.net.network.y
        return self.arrays[y.name].reshape(len(x), *y.shape)

    def _layer(self, layer: Layer, read: list[Tensor]) -> Tensor:
        if isinstance(layer, (Linear, Conv, DelayedLinear)):
            return self._weighted(layer, read[0])
        if isinstance(layer, Norm):
            return simulated_norm(layer, self.net.norms[layer.name], read[0])
        if isinstance(layer, Product):
            return saturated((read[0].unsqueeze(-1) * read[1].unsqueeze(1)).sum(2))
        if isinstance(layer, Pick):
            return layer.run(read[0])
        if isinstance(layer, Delay):
            value, self.memory[layer.name] = layer.advance(self.memory.get(layer.name), *read)
            return value
        if isinstance(layer, Rescale):
            low, high = (-127, 127) if self.net.formats[layer.y.name].bits == 8 else (-(2**31), 2**31 - 1)
            return ((read[0] * layer.factor + (1 << (layer.shift - 1))) >> layer.shift).clamp(low, high)
        if isinstance(layer, Pool):
            return self._pool(layer, read[0])
        if isinstance(layer, Scale):
            factors, shift, added = self.net.scales[layer.name]
            if isinstance(layer, StepScale):
                step = self.memory.get(layer.name, 0)
                self.memory[layer.name], row = step + 1, layer.at(step)
                factors, added = factors[row], added[row]
            per_channel = (-1, *[1] * (len(layer.y.shape) - 1))
            return saturated(times(factors.view(per_channel), read[0], shift) + added.view(per_channel))
        if isinstance(layer, Join):
            return torch.cat(read, layer.dim + 1)
        return refuse(layer.title, "it has no form in integers")

    def _weighted(self, layer: Linear | Conv | DelayedLinear, x: Tensor) -> Tensor:
        own = self.net.weights[layer.name]
        # float64 holds sums of 32 bits exactly, and multiplies matrices
        weight, none = own.weight.double(), torch.zeros(len(own.weight), dtype=torch.float64)
        if isinstance(layer, Linear):
            sums, shape = functional.linear(x.double(), weight), [-1]
        elif isinstance(layer, DelayedLinear):
            own_layer, shape = replace(layer, weight=weight, bias=none), [-1]
            sums, self.memory[layer.name] = own_layer.advance(self.memory.get(layer.name), x.double())
        else:
            sums = _with(layer, weight, none).run(x.double())
            shape = [-1, *[1] * (len(layer.y.shape) - 1)]
        whole = sums.round().to(torch.int64)
        scaled = (whole * own.factor.view(shape) + (1 << (own.shift - 1))) >> own.shift
        return saturated(own.bias.view(shape) + scaled)

    def _pool(self, layer: Pool, x: Tensor) -> Tensor:
        image = x.reshape(len(x), *planes(layer.x[0].shape))
        if layer.kind == "max":
            out = layer.windows(image, -(2**31)).amax(3)
        else:
            out, means = layer.windows(image, 0).sum(3), self.net.means[layer.name]
            if means is None:
                out = out.clamp(-127, 127)
            else:
                factors, shift = means
                out = saturated((out * factors.flatten() + (1 << (shift - 1))) >> shift)
        return out.reshape(len(x), *layer.y.shape)

    def _neuron(self, layer: Neuron, read: list[Tensor]) -> None:
        made = self.net.neurons[layer.name]
        equation = made.equation
        known = dict(zip(equation.inputs, driven(layer, read), strict=True))
        known |= {leaf: self.arrays[layer.states[name].name] for name, leaf in equation.states.items()}
        for assignment in equation.assignments:
            known[assignment.node] = run(made.codes[assignment.node], made, known)
        spk, *news = [run(code, made, known).expand(len(read[0]), *layer.y.shape) for code in made.results]
        self.arrays[layer.y.name] = spk.clamp(-127, 127) if made.fires else saturated(spk)
        for array, new in zip(layer.states.values(), news, strict=True):
            self.arrays[array.name] = saturated(new)


def _with(layer: Conv, weight: Tensor, bias: Tensor) -> Conv:
    return replace(layer, weight=weight, bias=bias)


def start_of(net: IntegerNetwork, layer: Neuron, state: str) -> int:
    """The value of a state before the first step."""
    scaled = layer.equation.starts[state] * 2.0 ** net.neurons[layer.name].fraction
    return int(max(-(2.0**31), min(2.0**31 - 1, round(scaled))))


def simulated(net: IntegerNetwork, x: Tensor, steps: int | None) -> Tensor:
    """The outputs as integers, [T, B, ...], for an input [T, B, ...], or [B, ...] with `steps`."""
    whole = narrowed_input(x, net.formats["x"].scale)
    simulation = Simulation(net, x.shape[0 if steps is not None else 1])
    inputs = list(whole) if steps is None else [whole] * steps
    outs = [simulation.step(x_t) for x_t in inputs]
    return torch.stack(outs) if outs else torch.zeros(0, dtype=torch.int64)
