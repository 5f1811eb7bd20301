"""A state carried over from an earlier batch, whose graph backward() has freed: noticed, and told in a sentence.

A layer goes on from its last state, with the graph that made it. If backward() has been through that graph, a second
one fails somewhere inside torch. Two parts turn this into a sentence, at the cost of a comparison per step:

- `Passage` hangs on what the layer returned first since its state last had no graph. Every later backward reaches it.
- `carried` wraps a state that starts the next call after such a backward. Its own backward looks whether the graph
  behind it is still there (``retain_graph=True``) before torch runs into it.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor

LOOKED_AT = 100
"""How many nodes behind a state are asked whether they are freed; those of one step are about ten."""


class Passage:
    """Knows whether a backward has gone through the outputs it watches. It holds neither the layer nor the tensors."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, grads: Any) -> None:
        self.done = True

    @classmethod
    def watching(cls, outputs: Iterable[Tensor]) -> "Passage | None":
        """A passage over the outputs that have a graph; None if none has."""
        if torch.compiler.is_compiling():  # which cannot trace the question for a grad_fn
            return None
        nodes = [out.grad_fn for out in outputs if out.grad_fn is not None]
        if not nodes:
            return None
        passage = cls()
        for node in nodes:
            node.register_prehook(passage)
        return passage


class _Carried(torch.autograd.Function):
    """Identity; its backward refuses to enter a graph that is freed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(state: Tensor, label: str, name: str) -> Tensor:
        return state.view_as(state)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str, str], output: Tensor) -> None:
        state, ctx.label, ctx.name = inputs
        ctx.behind = state.grad_fn

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        if is_freed(ctx.behind):
            raise RuntimeError(
                f"{ctx.label} goes on from {ctx.name} of an earlier batch, and backward() has already freed the graph "
                "that made it. Before each batch call spikeloom.utils.reset(net) to start from zeros, or "
                "spikeloom.utils.detach(net) to keep the values without their graph."
            )
        return grads[0], None, None


def carried(state: Tensor, label: str, name: str) -> Tensor:
    """The same state, guarded: a backward that meets a freed graph behind it raises a sentence naming `label`."""
    guarded: Tensor = _Carried.apply(state, label, name)
    return guarded


def is_freed(node: Any) -> bool:
    """Whether one of the nearest nodes of the graph that ends in `node` has lost the tensors it saved."""
    seen: set[Any] = {node}
    queue = [node]
    while queue and len(seen) < LOOKED_AT:
        node = queue.pop(0)
        if node is None:
            continue
        try:
            for name in _saved_names(type(node).__mro__):
                getattr(node, name)
        except RuntimeError as error:
            if "second time" in str(error):
                return True
        for behind, _ in node.next_functions:
            if behind not in seen:
                seen.add(behind)
                queue.append(behind)
    return False


@cache
def _saved_names(kinds: tuple[type, ...]) -> tuple[str, ...]:
    return tuple(name for name in dir(kinds[0]) if name == "saved_tensors" or name.startswith("_saved_"))
