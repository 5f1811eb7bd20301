"""nn.Linear driven by spikes: it adds up the weight rows of active inputs where these are few."""

from typing import Any

import torch
from torch import Tensor, nn

from ..scan import sparse
from ..scan.saved import saved_by
from ..scan.select import numba_missing

DENSE_ABOVE = 0.12
"""Share of nonzero inputs from which the dense product is taken (the measurements are in docs/linear.md). Set to 0, it
is always taken."""

LEAST_WORK = 1 << 22
"""Multiplications of the dense product below which it is taken: it is over before a kernel is called."""

LEAST_ROWS = 2
"""Rows per input below which the dense product is taken: packing the weight would cost more than zeros save."""

SAMPLED = 64
"""Rows in which active inputs are counted, spread evenly over all."""


class SpikeLinear(nn.Linear):
    """An nn.Linear that skips zeros of its input, as `accelerate` makes it. Not constructed by itself.

    y = x @ weight.T + bias, [*, in_features] -> [*, out_features], equal to nn.Linear's to the order of summation.

    Attributes:
        path: "sparse" or "dense", as the last input was multiplied; "" before any.
    """

    path: str = ""

    def forward(self, input: Tensor) -> Tensor:
        """x @ weight.T + bias."""
        if torch.compiler.is_compiling():
            return super().forward(input)
        sparse_wins = _can_skip(input, self) and _density(input) < DENSE_ABOVE
        self.__dict__["path"] = "sparse" if sparse_wins else "dense"
        if not sparse_wins:
            return super().forward(input)
        return _SpikeProduct.apply(input, self.weight, self.bias)  # type: ignore[no-any-return]


def _can_skip(x: Tensor, layer: nn.Linear) -> bool:
    """Whether the kernels can do this product; else it is nn.Linear's, errors included."""
    plain = type(x) is Tensor and type(layer.weight) is nn.Parameter and x.layout is torch.strided
    return (
        plain
        and x.device.type == layer.weight.device.type == "cpu"
        and x.dtype == layer.weight.dtype in (torch.float32, torch.float64)
        and x.dim() > 0
        and x.shape[-1] == layer.in_features
        and x.numel() * layer.out_features >= LEAST_WORK
        and x.numel() >= LEAST_ROWS * layer.in_features**2
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and not numba_missing()
    )


def _density(x: Tensor) -> float:
    """The share of nonzero values, of some rows."""
    rows = x.reshape(-1, x.shape[-1])
    some = rows[:: max(1, len(rows) // SAMPLED)]
    return float(torch.count_nonzero(some)) / some.numel()


class _SpikeProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.layer = "a SpikeLinear"
        ctx.save_for_backward(x if weight.requires_grad else None, weight if x.requires_grad else None)
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        return sparse.product(rows, weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = saved_by(ctx)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1]).contiguous()
        total = torch.from_numpy(rows.numpy().sum(0))  # by numpy, whose order does not depend on the threads
        dx = grad @ weight if wants_x else None
        dweight = sparse.outer(x.reshape(-1, x.shape[-1]), rows, sparse.finite(total)) if wants_weight else None
        return dx, dweight, total if wants_bias else None
