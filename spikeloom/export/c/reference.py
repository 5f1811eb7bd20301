"""The layers of a network run in torch, step by step: what the C must compute, and where the ranges come from."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ...engine.graph import OPERATORS, Symbol
from .equation import Equation
from .layers import Network, Neuron

Seen = Callable[[str, Tensor], None]
"""Receives the values of an array, by its name, or of an operation of a neuron."""


def inputs_of(x: Tensor, steps: int | None) -> Iterator[Tensor]:
    """The input of each step, [B, ...]."""
    yield from x if steps is None else [x] * steps


class Reference:
    """A run of a network, from the initial states.

    Args:
        network: the network.
        batch: B.
        seen: called with every array after it was computed, [B, *shape].
        inner: called with every node of an equation after it was computed.
    """

    def __init__(
        self,
        network: Network,
        batch: int,
        seen: Seen | None = None,
        inner: Callable[[Neuron, Symbol, Tensor], None] | None = None,
    ):
        self.network, self.seen, self.inner = network, seen, inner
        self.arrays: dict[str, Tensor] = {}
        self.memory: dict[str, Any] = {}
        for layer in network.layers:
            self.arrays[layer.y.name] = torch.zeros(batch, *layer.y.shape, dtype=network.dtype)
            if isinstance(layer, Neuron):
                for state, array in layer.states.items():
                    start = layer.equation.starts[state]
                    self.arrays[array.name] = torch.full((batch, *array.shape), start, dtype=network.dtype)

    def step(self, x: Tensor) -> Tensor:
        """One step for an input [B, ...]; returns the output, [B, *shape]."""
        batch = len(x)
        self._keep("x", x)
        for layer in self.network.layers:
            read = [self.arrays[a.name].reshape(batch, *a.shape) for a in layer.x]
            if isinstance(layer, Neuron):
                self._neuron(layer, read)
            else:
                value, self.memory[layer.name] = layer.advance(self.memory.get(layer.name), *read)
                self._keep(layer.y.name, value)
        y = self.network.y
        return self.arrays[y.name].reshape(batch, *y.shape)

    def _keep(self, name: str, value: Tensor) -> None:
        self.arrays[name] = value
        if self.seen is not None:
            self.seen(name, value)

    def _neuron(self, layer: Neuron, read: list[Tensor]) -> None:
        equation = layer.equation
        leaves = dict(zip(equation.inputs, driven(layer, read), strict=True))
        leaves |= {leaf: self.arrays[layer.states[name].name] for name, leaf in equation.states.items()}
        values = evaluated(equation, leaves)
        if self.inner is not None:
            for node, value in values.items():
                self.inner(layer, node, value)
        shape = (len(read[0]), *layer.y.shape)
        self._keep(layer.y.name, values[equation.results[0]].expand(shape))
        for array, node in zip(layer.states.values(), equation.results[1:], strict=True):
            self._keep(array.name, values[node].expand(shape))


def driven(layer: Neuron, read: list[Tensor]) -> list[Tensor]:
    """The inputs of an equation: if it has one, the sum of all arrays; else an array each, or parts of the sum."""
    inputs = layer.equation.inputs
    if len(inputs) == len(read) > 1:
        return read
    total = read[0] if len(read) == 1 else read[0] + read[1]
    return [total] if len(inputs) == 1 else [*total.chunk(len(inputs), 1)]


def evaluated(equation: Equation, leaves: Mapping[Symbol, Tensor]) -> dict[Symbol, Tensor]:
    """Every node of an equation in torch."""
    known: dict[Symbol, Tensor] = dict(leaves)
    like = next(iter(leaves.values()))
    with torch.no_grad():
        for node in equation.nodes:
            if node in known:
                continue
            if equation.is_value(node):
                value = equation.values.get(node)
                known[node] = like.new_tensor(equation.number(node)) if value is None else value
            elif node.op in ("full", "full_like"):
                known[node] = torch.full_like(like, float(known[equation.resolved(node.args[-1])]))
            else:
                function = OPERATORS.get(node.op) or getattr(ops, node.op)
                known[node] = function(*[known[arg] for arg in equation.arguments(node)])
    return known


def differing(layers: Network, x: Tensor, steps: int | None, wanted: Tensor, states: Mapping[str, Tensor]) -> float:
    """The share of values that differ from the wanted ones by more than rounding, the largest of any array.

    Args:
        wanted: the outputs, [T, B, ...].
        states: after the last step, by array.
    """
    run = Reference(layers, x.shape[0 if steps is not None else 1])
    outs = torch.stack([run.step(x_t) for x_t in inputs_of(x, steps)])
    pairs = [(outs.flatten(2), wanted.flatten(2)), *((run.arrays[name], state) for name, state in states.items())]
    near: Any = {"rtol": 1e-3, "atol": 1e-3, "equal_nan": True}
    return max(float((~torch.isclose(got, want, **near)).float().mean()) for got, want in pairs)


def states_of(layers: Network) -> dict[str, Tensor]:
    """The states that the layers of the library store, by array."""
    found = dict[str, Tensor]()
    for layer in layers.neurons:
        for name, array in layer.states.items():
            value = vars(layer.module).get(name) if layer.module is not None else None
            if isinstance(value, Tensor) and value.shape[1:] == array.shape:
                found[array.name] = value.detach().clone()
    return found
