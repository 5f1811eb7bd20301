"""Operations of many steps with one gradient: running sums, and calls that are computed one by one."""

from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from .recorded import OpClass, in_mode


class RunningSum(torch.autograd.Function):
    """``start + rows[0] + rows[1] + ...``, in this order."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, rows: Tensor) -> Tensor:
        ctx.shape, ctx.start = rows.shape, start.shape
        total = start + rows[0]
        for row in rows[1:].unbind():
            total += row
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad.sum_to_size(ctx.start), grad.sum_to_size(ctx.shape[1:]).expand(ctx.shape)


class StepValues(torch.autograd.Function):
    """The results [n, *S] of n calls of an operation: the values one by one, the gradients as one.

    Args:
        found: the operation.
        numbers: its numbers.
        stacked: which of the tensors are [n, *S], one of each call; the others are the same in all calls.
    """

    @staticmethod
    def forward(ctx: Any, found: OpClass, numbers: Any, stacked: list[bool], *tensors: Tensor) -> Tensor:
        ctx.call = found, numbers, stacked
        ctx.save_for_backward(*tensors)
        each = [t.unbind(0) if differs else repeat(t) for t, differs in zip(tensors, stacked, strict=True)]
        return torch.stack([found.call(parts, numbers) for parts in zip(*each, strict=False)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (found, numbers, stacked), again = ctx.call, torch.is_grad_enabled()
        needed = ctx.needs_input_grad[3:]
        tensors = [  # two, also if an operation has the same tensor as two arguments
            t.view_as(t) if again else t.detach().requires_grad_(needs)
            for t, needs in zip(ctx.saved_tensors, needed, strict=True)
        ]
        axes = tuple(0 if differs else None for differs in stacked)
        with in_mode(found.mode):
            out = torch.func.vmap(lambda *parts: found.call(parts, numbers), in_dims=axes)(*tensors)
            learned = [t for t, needs in zip(tensors, needed, strict=True) if needs]
            grads = iter(torch.autograd.grad(out, learned, grad, create_graph=again, allow_unused=True))
        return None, None, None, *[next(grads) if needs else None for needs in needed]
