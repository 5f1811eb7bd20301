"""Operations of many steps with one gradient: running sums and extremes, and calls that are computed one by one."""

import warnings
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


class RunningMaximum(torch.autograd.Function):
    """``maximum(... maximum(start, rows[0]) ..., rows[-1])``; equal values share the gradient as in a loop."""

    sign = 1

    @staticmethod
    def forward(ctx: Any, start: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(start, rows)
        return RunningMaximum._through(start, rows, torch.maximum)[-1]

    @staticmethod
    def _through(start: Tensor, rows: Tensor, extreme: Any) -> list[Tensor]:
        """The value before the first row, and after each."""
        found = [start]
        for row in rows.unbind():
            found.append(extreme(found[-1], row))
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return RunningMaximum._gradients(ctx, grad, torch.maximum, torch.lt)

    @staticmethod
    def _gradients(ctx: Any, grad: Tensor, extreme: Any, loses: Any) -> tuple[Tensor, Tensor]:
        start, rows = ctx.saved_tensors
        with torch.no_grad():
            before = torch.stack(
                [value.expand(grad.shape) for value in RunningMaximum._through(start, rows, extreme)[:-1]]
            )
            share = torch.where(before == rows, 0.5, 1.0).to(grad.dtype)
            kept = share.masked_fill(loses(before, rows), 0)  # what of the gradient goes to the steps before
            taken = share.masked_fill(loses(rows, before), 0)  # and to the row
            arrives = kept.flip(0).cumprod(0).flip(0)  # at the value before each row
            after = torch.cat((arrives[1:], torch.ones_like(arrives[:1])))
        return (grad * arrives[0]).sum_to_size(start.shape), (grad * (after * taken)).sum_to_size(rows.shape)


class RunningMinimum(torch.autograd.Function):
    """The same for minima."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(start, rows)
        return RunningMaximum._through(start, rows, torch.minimum)[-1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return RunningMaximum._gradients(ctx, grad, torch.minimum, torch.gt)


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
        tensors = [
            t if again else t.detach().requires_grad_(needs) for t, needs in zip(ctx.saved_tensors, needed, strict=True)
        ]
        axes = tuple(0 if differs else None for differs in stacked)
        with in_mode(found.mode), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the forward has warned
            out = torch.func.vmap(lambda *parts: found.call(parts, numbers), in_dims=axes)(*tensors)
            learned = [t for t, needs in zip(tensors, needed, strict=True) if needs]
            grads = iter(torch.autograd.grad(out, learned, grad, create_graph=again, allow_unused=True))
        return None, None, None, *[next(grads) if needs else None for needs in needed]
