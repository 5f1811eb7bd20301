"""A network in integers: weights of 8 bits with a scale per output, values between layers of 8 or 32 bits.

The scales come from a run of the network on example inputs, without labels. Spikes are 0 and 1. Inputs, and other
values that weights multiply, have 8 bits. Currents and states have 32 bits, of which `fraction` are fractional.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...engine.graph import Symbol
from .errors import refuse
from .fixed_point import MOST
from .layers import Array, Conv, Delay, DelayedLinear, Join, Layer, Linear, Network, Neuron, Pick, Pool, Product, Scale
from .lowering import Lowered, lowered
from .norms import Norm, WholeNorm, quantized_norm
from .reference import Reference, inputs_of

HEADROOM = 4
"""How much larger than in the example a value may become before it is cut off."""

FINEST = 24
"""The fractional bits at most."""


LEAST_BITS = 4
"""The fractional bits of a neuron at least."""


@dataclass(frozen=True)
class Format:
    """How the values of an array are stored: an integer v stands for v * scale.

    Args:
        bits: 8 or 32.
        scale: of a unit.
        most: the largest magnitude that can occur, whatever the input is.
    """

    bits: int
    scale: float
    most: int = 127


@dataclass
class Rescale(Layer):
    """The values of an array in another format: (x * factor + half) >> shift, within the bits of y."""

    factor: int = 1
    shift: int = 1


@dataclass
class Weighted:
    """The integers of a weighted layer.

    Args:
        weight: of 8 bits, in the shape of the layer's.
        factor: of each output, by which its sum is multiplied before it is shifted.
        shift: how many bits of that product are dropped.
        bias: in the format of the output.
    """

    weight: Tensor
    factor: Tensor
    shift: int
    bias: Tensor


@dataclass
class IntegerNetwork:
    """A network in integers.

    Args:
        network: the layers, with `Rescale` where formats change.
        formats: of each array, by name.
        fraction: the fractional bits of currents.
        weights: of each weighted layer, by name.
        neurons: the equation of each neuron, by name.
        means: of each mean, the factors by window and their shift; None if the sum itself is the result.
        scales: of each scaled layer, its factors, their shift, and the shifts of its values.
        norms: of each normalization.
    """

    network: Network
    formats: dict[str, Format]
    fraction: int
    weights: dict[str, Weighted] = field(default_factory=dict)
    neurons: dict[str, Lowered] = field(default_factory=dict)
    means: dict[str, tuple[Tensor, int] | None] = field(default_factory=dict)
    scales: dict[str, tuple[Tensor, int, Tensor]] = field(default_factory=dict)
    norms: dict[str, WholeNorm] = field(default_factory=dict)


@dataclass
class Ranges:
    """The largest magnitudes in an example run: of each array, and of the values within each neuron."""

    arrays: dict[str, float] = field(default_factory=dict)
    neurons: dict[str, float] = field(default_factory=dict)
    whole: bool = True  # whether the input consists of integers of 8 bits


def ranges_of(network: Network, x: Tensor, steps: int | None) -> Ranges:
    """The ranges for an input [T, B, ...], or [B, ...] with `steps`."""
    found = Ranges()

    def largest(value: Tensor) -> float:
        most = float(value.abs().max())
        if math.isfinite(most):
            return most
        finite = value[value.isfinite()]
        return float(finite.abs().max()) if finite.numel() else 0.0

    def seen(name: str, value: Tensor) -> None:
        found.arrays[name] = max(found.arrays.get(name, 0.0), largest(value))

    def inner(layer: Neuron, node: Symbol, value: Tensor) -> None:
        if not node.logical and (value.dim() or math.isfinite(value)):
            found.neurons[layer.name] = max(found.neurons.get(layer.name, 0.0), largest(value))

    run = Reference(network, x.shape[0 if steps is not None else 1], seen, inner)
    for x_t in inputs_of(x, steps):
        run.step(x_t)
    found.whole = bool((x == x.round()).all()) and float(x.abs().max() if x.numel() else 0.0) <= 127
    return found


def quantized(network: Network, ranges: Ranges) -> IntegerNetwork:
    """The network in integers, with the scales of these ranges."""
    return _Quantizer(network, ranges).made


class _Quantizer:
    def __init__(self, network: Network, ranges: Ranges):
        self.ranges, self.before = ranges, network
        first = Format(8, 1.0 if ranges.whole else ranges.arrays.get("x", 0.0) / 127)
        self.fraction = _fraction(max(ranges.arrays.values(), default=1.0))
        self.layers = list[Layer]()
        after = Network(network.title, network.prefix, network.x, self.layers, network.y, network.dtype, network.lost)
        self.made = IntegerNetwork(after, {"x": first}, self.fraction)
        self.current = Format(32, 2.0**-self.fraction, MOST)
        self.known = dict[tuple[str, Format, bool], Array]()
        self.written = {"x"}
        for neuron in network.neurons:  # before the layers: weights may read their states and spikes of the step before
            self._prepare(neuron)
        for layer in network.layers:
            self._add(layer)
            self.written.add(layer.y.name)

    def _prepare(self, layer: Neuron) -> None:
        most = self.ranges.neurons.get(layer.name, 1.0)
        own = min(self.fraction, _fraction(most))
        if own < LEAST_BITS:
            refuse(
                layer.title,
                f"its values reach {most:.3g} in the example, so that 32 bits leave only {own} fractional bits; scale "
                "its input or weights down",
            )
        made = lowered(layer.equation, own)
        self.made.neurons[layer.name] = made
        for array in layer.states.values():
            self.made.formats[array.name] = Format(32, 2.0**-own, MOST)
        spikes = Format(8, 1.0, 1 if made.is_spike else 127)
        self.made.formats[layer.y.name] = spikes if made.fires else Format(32, 2.0**-own, MOST)

    def _add(self, layer: Layer) -> None:
        formats = self.made.formats
        if isinstance(layer, (Linear, Conv, DelayedLinear)):
            x = self._as(layer.x[0], bits=8)
            formats |= dict.fromkeys((array.name for array in layer.kept), self.current)
            self.made.weights[layer.name] = _weighted(layer, formats[x.name].scale, self.fraction)
            formats[layer.y.name] = self.current
            self.layers.append(_reading(layer, x))
        elif isinstance(layer, Neuron):
            own = Format(32, 2.0 ** -self.made.neurons[layer.name].fraction, MOST)
            self.layers.append(_reading(layer, *[self._as(x, bits=32, target=own) for x in layer.x]))
        elif isinstance(layer, Pool):
            self._pool(layer)
        elif isinstance(layer, Norm):
            factors, dropped = _factors(layer.weight.double())
            bias = _fixed(layer.bias.double(), self.fraction)
            self.made.norms[layer.name] = quantized_norm(layer, factors, dropped, bias, self.fraction)
            formats[layer.y.name] = self.current
            self.layers.append(_reading(layer, self._as(layer.x[0], bits=32, target=self.current)))
        elif isinstance(layer, Product):
            if formats[layer.x[0].name] != Format(8, 1.0, 1):
                refuse(layer.title, "its first factor is no array of spikes, which number='int8' needs")
            formats[layer.y.name] = self.current
            self.layers.append(_reading(layer, layer.x[0], self._as(layer.x[1], bits=32, target=self.current)))
        elif isinstance(layer, Pick):
            formats[layer.y.name] = formats[layer.x[0].name]
            self.layers.append(layer)
        elif isinstance(layer, Delay):
            formats |= dict.fromkeys((layer.y.name, layer.kept[0].name), formats[layer.x[0].name])
            self.layers.append(layer)
        elif isinstance(layer, Scale):
            x = self._as(layer.x[0], bits=32, target=self.current)
            shift = torch.zeros_like(layer.scale) if layer.shift is None else layer.shift
            factors, dropped = _factors(layer.scale.double())
            self.made.scales[layer.name] = factors, dropped, _fixed(shift.double(), self.fraction)
            formats[layer.y.name] = self.current
            self.layers.append(_reading(layer, x))
        elif isinstance(layer, Join):
            read = [formats[x.name] for x in layer.x]
            same = len({(own.bits, own.scale) for own in read}) == 1
            target = max(read, key=lambda own: own.most) if same else self.current
            formats[layer.y.name] = target
            self.layers.append(_reading(layer, *[self._as(x, bits=target.bits, target=target) for x in layer.x]))
        else:
            refuse(layer.title, "it has no form in integers")

    def _pool(self, layer: Pool) -> None:
        formats, x = self.made.formats, layer.x[0]
        own = formats[x.name]
        if layer.kind == "max":
            formats[layer.y.name] = own
        else:
            divisors, count = layer.divisors.double(), layer.kernel[0] * layer.kernel[1]
            even = bool((divisors == divisors.flatten()[0]).all())
            if (
                own.bits == 8 and even and own.most * count <= 127
            ):  # the sum itself, whose unit is a part of the input's
                formats[layer.y.name] = Format(8, own.scale / float(divisors.flatten()[0]), own.most * count)
                self.made.means[layer.name] = None
            else:
                formats[layer.y.name] = self.current
                self.made.means[layer.name] = _factors(own.scale / divisors * 2.0**self.fraction)
        self.layers.append(_reading(layer, x))

    def _as(self, array: Array, bits: int, target: Format | None = None) -> Array:
        """The array in a format; a layer that converts it is added where that is needed."""
        own = self.made.formats[array.name]
        if own == target or (target is None and own.bits == bits):
            return array
        if target is None:
            target = Format(8, max(self.ranges.arrays.get(array.name, 0.0), 1e-12) / 127)
        elif own.bits == target.bits and own.scale == target.scale:
            return array
        key = array.name, target, array.name in self.written  # before it is written it has the values of the last step
        if key not in self.known:
            name = f"{array.name}_{'narrow' if target.bits == 8 else 'wide'}{len(self.known) or ''}"
            factors, shift = _factors(torch.tensor(own.scale / target.scale, dtype=torch.float64))
            y = Array(name, array.shape)
            comment_text = f"{array.name} in {target.bits} bits"
            self.layers.append(Rescale(f"{self.before.prefix}_{name}", comment_text, (array,), y, int(factors), shift))
            self.made.formats[name] = target
            self.known[key] = y
        return Array(self.known[key].name, array.shape)


def _reading(layer: Layer, *x: Array) -> Layer:
    """The layer with other arrays to read."""
    return replace(layer, x=x)


def _fraction(most: float) -> int:
    """The fractional bits with which a value of this size fits 32 bits, with headroom."""
    if not 0 < most < math.inf:
        return FINEST
    return min(FINEST, max(0, math.floor(31 - math.log2(most * HEADROOM))))


def _factors(values: Tensor) -> tuple[Tensor, int]:
    """Values as integers of 31 bits and the shift that they share."""
    most = float(values.abs().max())
    shift = 30 if most == 0 else max(1, min(60, math.floor(30 - math.log2(most))))
    return (values * 2.0**shift).round().clamp(-MOST, MOST).to(torch.int64), shift


def _fixed(values: Tensor, fraction: int) -> Tensor:
    return (values * 2.0**fraction).round().clamp(-MOST, MOST).to(torch.int64)


def _weighted(layer: Linear | Conv | DelayedLinear, scale: float, fraction: int) -> Weighted:
    weight = layer.weight.double().flatten(1)
    if not bool(weight.isfinite().all()):
        refuse(layer.title, "a weight is infinite or NaN, which 8 bits cannot represent")
    if weight.shape[1] * 127 * 127 > MOST:
        refuse(layer.title, f"a sum of {weight.shape[1]} products of 8 bits may exceed 32 bits")
    own = weight.abs().amax(1).clamp(min=1e-30) / 127
    whole = (weight / own[:, None]).round().clamp(-127, 127).to(torch.int64)
    factors, shift = _factors(own * scale * 2.0**fraction)
    return Weighted(whole.view(layer.weight.shape), factors, shift, _fixed(layer.bias.double(), fraction))
