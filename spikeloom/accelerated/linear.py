"""nn.Linear for spike inputs: adds the weight rows of nonzero inputs if these are few, and has a separate product for
few outputs."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..engine import tuning
from ..engine.jit import sum_to
from ..engine.saved_tensors import saved_by
from ..engine.sparse import csr
from .plan import Plan, SkipsZeros, fewer, kernel_refusals, of_plain, too_dense


class SpikeLinear(SkipsZeros, nn.Linear):
    """An nn.Linear that skips zeros of its input. Created by `accelerate`, not constructed directly.

    y = x @ weight.T + bias, [*, in_features] -> [*, out_features], equal to nn.Linear up to the order of summation.
    """

    def plan(self, x: Tensor) -> Plan:
        weight = self.weight
        reason, lists = next(self._refusals(x, weight), ""), None
        if not reason:
            lists = _listed(_rows(x.detach()), self.out_features)
            reason = "the weight is not finite"
            if lists is None:
                reason = too_dense(_dense_above(self.out_features), "linear_dense_above, linear_listing")
        if lists is not None:
            matrix = csr.pack_panels(weight.detach().t())
            if matrix.finite:
                return Plan("sparse", found=(lists, matrix))
        return Plan("narrow") if _is_narrow(x, weight) else Plan("dense", reason)

    def _refusals(self, x: Tensor, weight: Tensor) -> Iterator[str]:
        # sizes first: a small product takes no longer than the other checks
        if type(x) is Tensor and (work := x.numel() * self.out_features) < tuning.limits.linear_least_work:
            yield fewer(work, "multiplications", "linear_least_work")
        if type(x) is Tensor and x.numel() < tuning.limits.linear_least_rows * self.in_features:
            yield fewer(x.numel() // self.in_features, "rows", "linear_least_rows")
        yield from kernel_refusals(x, weight)
        if not x.dim() or x.shape[-1] != weight.shape[1]:
            yield "the sizes of input and weight differ"

    def run(self, x: Tensor, plan: Plan) -> Tensor:
        if plan.route == "sparse":
            out: Tensor = _SparseProduct.apply(x, self.weight, self.bias, *plan.found)
        elif plan.route == "narrow":
            out = _NarrowProduct.apply(x, self.weight, self.bias)
        else:
            out = self._plain(x)
        return out


def _is_narrow(x: Tensor, weight: Tensor) -> bool:
    """Whether the product has few outputs, from 2 to the values of a cache line, and is large enough for a kernel."""
    return (
        type(x) is Tensor
        and x.nbytes >= tuning.limits.narrow_from
        and 1 < len(weight) <= tuning.shapes.line // x.element_size()
        and x.dim() > 0
        and x.shape[-1] == weight.shape[1]
        and not any(kernel_refusals(x, weight))
    )


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).contiguous()


def _listed(rows: Tensor, outputs: int) -> csr.CSR | None:
    """The nonzeros as CSR, if they are few enough for a product with that many outputs."""
    limit = _dense_above(outputs)
    return csr.listed_below(rows, limit * rows.numel()) if limit > 0 else None


def _dense_above(outputs: int) -> float:
    """The share of nonzero inputs from which torch's product is used; 0 or less for few outputs."""
    return tuning.limits.linear_dense_above - tuning.limits.linear_listing / outputs


class _SparseProduct(torch.autograd.Function):
    """x @ weight.T + bias; saves only the nonzeros of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, lists: csr.CSR, matrix: csr.Packed) -> Tensor:
        ctx.layer, ctx.shape = "a SpikeLinear", lists.shape
        saved = [lists.starts, lists.index, lists.values] if weight.requires_grad else []
        ctx.save_for_backward(weight if x.requires_grad else None, *saved)
        return csr.product(lists, matrix, bias).view(*x.shape[:-1], len(weight)).detach()  # no view, but an output

    @staticmethod
    @of_plain
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *saved = saved_by(ctx, grad)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        rows = _rows(grad)
        dx = _input_gradient(rows, weight).view(*grad.shape[:-1], -1) if wants_x else None
        if not wants_weight:
            return dx, None, sum_to(rows, rows[0]) if wants_bias else None, None, None
        lists = csr.CSR(ctx.shape, *saved)
        dweight, total = csr.outer((lists, rows))
        if not csr.finite(total):  # a zero of x times a non-finite value is NaN
            dweight = rows.t() @ lists.dense()
        return dx, dweight, total if wants_bias else None, None, None


def _input_gradient(rows: Tensor, weight: Tensor) -> Tensor:
    """grad @ weight. The gradient may be mostly zero, too, if the surrogate is zero away from the threshold."""
    lists = _listed(rows, weight.shape[1])
    if lists is not None:
        matrix = csr.pack_panels(weight)
        if matrix.finite:
            return csr.product(lists, matrix, None)
    return rows @ weight


class _NarrowProduct(torch.autograd.Function):
    """x @ weight.T + bias for few outputs, without skipping zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.layer = "a SpikeLinear"
        ctx.save_for_backward(x if weight.requires_grad else None, weight if x.requires_grad else None)
        out = csr.narrow_product(_rows(x.detach()), weight.detach(), bias)
        return out.view(*x.shape[:-1], len(weight)).detach()  # no view, but an output

    @staticmethod
    @of_plain
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = saved_by(ctx, grad)
        rows = _rows(grad)
        dx = None if weight is None else csr.narrow_input_gradient(rows, weight).view(*grad.shape[:-1], -1)
        dweight = None if x is None else rows.t() @ x.reshape(-1, x.shape[-1])
        return dx, dweight, rows.sum(0) if ctx.needs_input_grad[2] else None
