"""The outputs of chunks, put one after the other into one tensor for each: there is never a second copy of them."""

from typing import Any

import torch
from torch import Tensor

from .._torch import TreeSpec, tree_flatten, tree_unflatten


class Joined:
    """Outputs over `steps` steps, to which chunks are added in order.

    Args:
        steps: T.
    """

    def __init__(self, steps: int) -> None:
        self._steps, self._filled = steps, 0
        self._form: TreeSpec | None = None
        self._leaves: list[Any] = []
        self._tickets: list[list[Tensor]] = []

    def add(self, outputs: Any, steps: int) -> None:
        """Take over what the network returned for the next so many steps.

        Raises:
            ValueError: if it has another structure, or other shapes, than what it returned before.
        """
        leaves, form = tree_flatten(outputs)
        if self._form is None:
            self._form, self._tickets = form, [[] for _ in leaves]
            self._leaves = [_room(leaf, self._steps) for leaf in leaves]
        shapes = [_kind(leaf) for leaf in leaves]
        if form != self._form or shapes != [_kind(leaf) for leaf in self._leaves]:
            raise ValueError(
                f"the forward returned {shapes} for steps {self._filled} to {self._filled + steps - 1}, and "
                f"{[_kind(leaf) for leaf in self._leaves]} for those before; return the same for every chunk"
            )
        for leaf, whole, tickets in zip(leaves, self._leaves, self._tickets, strict=True):
            if isinstance(leaf, Tensor):
                whole[self._filled : self._filled + steps].copy_(leaf.detach())
                tickets.append(_Ticket.apply(leaf) if leaf.requires_grad else leaf.new_zeros(()).expand(leaf.shape))
        self._filled += steps

    def outputs(self, net: Any) -> Any:
        """What one run over all steps would have returned; its graph holds the network, which its backward runs."""
        assert self._form is not None
        return tree_unflatten(
            [
                _Whole.apply([leaf], net, *tickets) if any(ticket.requires_grad for ticket in tickets) else leaf
                for leaf, tickets in zip(self._leaves, self._tickets, strict=True)
            ],
            self._form,
        )


def _room(leaf: Any, steps: int) -> Any:
    return leaf.detach().new_empty((steps, *leaf.shape[1:])) if isinstance(leaf, Tensor) else leaf


def _kind(leaf: Any) -> Any:
    """What must be the same for all chunks."""
    return ("T", *leaf.shape[1:], leaf.dtype) if isinstance(leaf, Tensor) else type(leaf).__name__


class _Ticket(torch.autograd.Function):
    """Stands for a chunk of outputs in the graph, without memory of its own: zeros of its shape."""

    @staticmethod
    def forward(ctx: Any, chunk: Tensor) -> Tensor:
        return chunk.new_zeros(()).expand(chunk.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class _Whole(torch.autograd.Function):
    """The chunks as one tensor, which is already filled; each ticket gets its part of the gradient."""

    @staticmethod
    def forward(ctx: Any, whole: list[Tensor], net: Any, *tickets: Tensor) -> Tensor:
        ctx.net = net
        ctx.sizes = [len(ticket) for ticket in tickets]
        return whole[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *grad.split(ctx.sizes)
