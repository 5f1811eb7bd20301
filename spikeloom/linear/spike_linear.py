"""nn.Linear driven by spikes: it adds up the weight rows of active inputs where these are few."""

from typing import Any

import torch
from torch import Tensor, nn

from ..scan import sparse
from ..scan.saved import saved_by
from ..scan.select import numba_missing
from .watched import as_one

DENSE_ABOVE = 0.16
"""Share of nonzero inputs from which the dense product is taken (the measurements are in docs/linear.md). Set to 0, it
is always taken."""

LISTING = 12
"""How many outputs cost as much as looking whether an input is zero: `DENSE_ABOVE` sinks by this over the outputs."""

LEAST_WORK = 1 << 22
"""Multiplications of the dense product below which it is taken: it is over before a kernel is called."""

LEAST_ROWS = 256
"""Rows below which the dense product is taken: packing the weight would cost more than zeros save."""


class SpikeLinear(nn.Linear):
    """An nn.Linear that skips zeros of its input, as `accelerate` makes it. Not constructed by itself.

    y = x @ weight.T + bias, [*, in_features] -> [*, out_features], equal to nn.Linear's to the order of summation.

    Attributes:
        path: "sparse" or "dense", as the last input was multiplied; "" before any.
    """

    path: str = ""

    def forward(self, input: Tensor) -> Tensor:
        """x @ weight.T + bias."""
        if torch.compiler.is_compiling() or not _can_skip(input, self):
            self.__dict__["path"] = "dense"
            return super().forward(input)
        return as_one(_multiplied, input, self)

    def dense(self, input: Tensor) -> Tensor:
        """What nn.Linear does."""
        return super().forward(input)


def _multiplied(input: Tensor, layer: SpikeLinear) -> Tensor:
    lists = _lists(input, layer.out_features)
    layer.__dict__["path"] = "dense" if lists is None else "sparse"
    if lists is None:
        return layer.dense(input)
    return _SpikeProduct.apply(input, layer.weight, layer.bias, lists)  # type: ignore[no-any-return]


def _can_skip(x: Tensor, layer: nn.Linear) -> bool:
    """Whether the kernels can do this product; else it is nn.Linear's, errors included."""
    return (
        kernels_can(x, layer.weight)
        and x.dim() > 0
        and x.shape[-1] == layer.in_features
        and x.numel() * layer.out_features >= LEAST_WORK
        and x.numel() >= LEAST_ROWS * layer.in_features
        and sparse.finite(layer.weight)
    )


def kernels_can(x: Tensor, weight: Tensor) -> bool:
    """Whether kernels can read these, and what they compute may be recorded as one operation."""
    return (
        type(x) is Tensor
        and type(weight) is nn.Parameter
        and x.layout is torch.strided
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and not numba_missing()
    )


def _lists(x: Tensor, outputs: int) -> sparse.Lists | None:
    """What is not zero in x, if that is little enough for a product with that many outputs."""
    rows = x.detach().reshape(-1, x.shape[-1]).contiguous()
    limit = DENSE_ABOVE - LISTING / outputs
    if limit <= 0:
        return None
    counts = sparse.counted(rows)
    return sparse.listed(rows, counts) if int(counts.sum()) < limit * rows.numel() else None


class _SpikeProduct(torch.autograd.Function):
    """x @ weight.T + bias; of x only its lists are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, lists: sparse.Lists) -> Tensor:
        ctx.layer, ctx.shape = "a SpikeLinear", lists.shape
        kept = [lists.starts, lists.index, lists.values] if weight.requires_grad else []
        ctx.save_for_backward(weight if x.requires_grad else None, *kept)
        return sparse.product(lists, weight.detach().t(), bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *kept = saved_by(ctx)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        rows = grad.reshape(-1, grad.shape[-1]).contiguous()
        total = sparse.column_sums(rows)
        dx = _input_gradient(grad, rows, weight) if wants_x else None
        dweight = _weight_gradient(sparse.Lists(ctx.shape, *kept), rows, total) if wants_weight else None
        return dx, dweight, total if wants_bias else None, None


def _input_gradient(grad: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """grad @ weight. The gradient too may be mostly zero, as behind a surrogate that ends near the threshold."""
    lists = _lists(rows, weight.shape[1]) if sparse.finite(weight) else None
    return grad @ weight if lists is None else sparse.product(lists, weight, None).view(*grad.shape[:-1], -1)


def _weight_gradient(lists: sparse.Lists, grad: Tensor, total: Tensor) -> Tensor:
    """grad.T @ x; a zero of x times what is not finite is NaN."""
    return sparse.outer((lists, grad)) if sparse.finite(total) else grad.t() @ lists.dense()
