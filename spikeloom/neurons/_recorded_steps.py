"""A neuron that runs step by step while torch exports: its whole step is recorded once, as the body of a scan."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .._torch import tree_flatten, tree_unflatten, unrecorded
from ..engine.run import recorded_scan
from ._parameters import broadcasts


def recorded_steps(neuron: Any, step: Callable[[Tensor], Any], x: Tensor, static: bool, steps: Any) -> Any:
    """The results of a step over time, each [T, B, *N], in the containers that the step returns.

    The states of the neuron, and of layers within it, are those after the last step.

    Args:
        neuron: the layer.
        step: one step of it, which reads and writes the attributes of the layer.
        x: input, [T, B, *N]; [1, B, *N] if static.
        static: whether it is the same at every step.
        steps: T, an integer or a symbol.
    """
    slots = [(layer, name) for layer in neuron.modules() if hasattr(layer, "_carried") for name in layer._carried()]
    form: list[Any] = []

    def body(carried: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        with _attributes_of(neuron):
            for (layer, name), value in zip(slots, carried, strict=True):
                vars(layer)[name] = value
            results, containers = tree_flatten(step(x[0] if static else inputs[0]))
            form[:] = [containers]
            return [vars(layer)[name] for layer, name in slots], results

    with _attributes_of(neuron), unrecorded(), torch.no_grad():
        step(x[0])
        after = [vars(layer)[name] for layer, name in slots]
    first = [_start(layer, name, like) for (layer, name), like in zip(slots, after, strict=True)]
    final_states, results = recorded_scan(body, first, [] if static else [x], steps)
    for (layer, name), final in zip(slots, final_states, strict=True):
        vars(layer).update({name: final, "_before": None, "_reset": None} if name == "mem" else {name: final})
    return tree_unflatten(results, form[0])


@contextmanager
def _attributes_of(neuron: Any) -> Iterator[None]:
    """A context that undoes assignments to attributes of a layer and of layers within it."""
    before = [(layer, dict(vars(layer))) for layer in neuron.modules()]
    try:
        yield
    finally:
        for layer, attributes in before:
            vars(layer).clear()
            vars(layer).update(attributes)


def _start(layer: Any, name: str, like: Tensor) -> Tensor:
    """The state before the first step: the stored one, broadcast, or the initial value."""
    if not isinstance(like, Tensor):
        raise RuntimeError(f"{type(layer).__name__} counts its steps and cannot be exported within another layer")
    state = vars(layer)[name]
    if state.numel() and (state.shape == like.shape or broadcasts(state.shape, like.shape)):
        expanded: Tensor = state.to(like.dtype).expand(like.shape)
        return expanded
    start = layer._starts_at(name) if hasattr(layer, "_starts_at") else 0.0
    return torch.full(like.shape, start, dtype=like.dtype, device=like.device)
