"""What a forward returned, with time unfolded: every tensor [T, B, ...]."""

from typing import Any

import torch
from torch import Tensor

from .._torch import transformed, tree_flatten_with_path, tree_unflatten
from ..neurons._time import Time


def unfolded(outputs: Any, time: Time) -> Any:
    """Every tensor led by [T, B], in the containers that the forward returned; what is no tensor stays.

    Raises:
        ValueError: for a tensor without a row for every step and batch entry.
        TypeError: for an object that holds tensors and is no container that torch knows.
    """
    if isinstance(outputs, Tensor):  # this and the next are what neurons return; looking into containers takes 50 us
        return _unfolded(outputs, time, "")
    if type(outputs) is tuple and all(isinstance(out, Tensor) for out in outputs):
        return tuple([_unfolded(out, time, f"[{i}]") for i, out in enumerate(outputs)])
    leaves, form = tree_flatten_with_path(outputs)
    return tree_unflatten([_unfolded(leaf, time, "".join(map(str, path))) for path, leaf in leaves], form)


def _unfolded(out: Any, time: Time, path: str) -> Any:
    if not isinstance(out, Tensor):
        if any(isinstance(value, Tensor) for value in getattr(out, "__dict__", {}).values()):
            raise TypeError(
                f"the forward returned a {type(out).__name__}, into which unroll cannot look; return tensors in "
                "tuples, lists or dicts, or register the class with torch.utils._pytree.register_dataclass"
            )
        return out
    if out.dim() and len(out) == time.rows(out):
        static = time.is_static(out)
        return _Repeat.call(out, time.steps) if static else _Unfold.call(out, (time.steps, time.batch, *out.shape[1:]))
    raise ValueError(
        f"output{path} of the unrolled forward has shape {tuple(out.shape)}; dimension 0 must be "
        f"{time.told_rows(out)}. Return one row per step and batch entry, and sum up what unroll returns"
    )


# Views would do, but for `detach_()`, which torch refuses on views. What these functions return shares memory with its
# input, and knows of writes to it, and is no view. Transforms of torch.func and tangents see through views alone.


class _Unfold(torch.autograd.Function):
    @staticmethod
    def call(x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if transformed():
            return x.view(shape)
        if not x.requires_grad or not torch.is_grad_enabled():
            return x.view(shape).detach()
        out: Tensor = _Unfold.apply(x, shape)
        return out

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.shape = x.shape
        return x.view(shape).detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.reshape(ctx.shape), None


class _Repeat(torch.autograd.Function):
    @staticmethod
    def call(x: Tensor, steps: int) -> Tensor:
        if transformed():
            return x.expand(steps, *x.shape)
        if not x.requires_grad or not torch.is_grad_enabled():
            return x.expand(steps, *x.shape).detach()
        out: Tensor = _Repeat.apply(x, steps)
        return out

    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: int) -> Tensor:
        return x.expand(steps, *x.shape).detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.sum(0), None
