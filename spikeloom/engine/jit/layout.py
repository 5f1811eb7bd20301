"""Tensors as kernels see them: address, strides and broadcast dimensions."""

import numpy as np
import torch
from torch import Tensor

from ..graph import Param

SUMMED_BY_ONE = 1 << 15
"""Elements up to which torch sums with one thread, and so always in one order."""


def plain(x: Tensor) -> Tensor:
    """Materialize a negated view, such as `z.conj().imag`: torch marks it by a flag that kernels do not see."""
    return x.resolve_neg() if x.is_neg() else x


def rows(x: Tensor) -> tuple[Tensor, int]:
    """A sequence [T, *S] whose rows are contiguous, and its time stride in elements, 0 if all rows are the same."""
    x = plain(x)
    steps, stride = x.shape[0], x.stride(0)
    if x.is_contiguous():
        return x, stride if steps > 1 else 0
    if steps == 1 or stride == 0:
        return x[0].contiguous(), 0
    if x[0].is_contiguous():
        return x, stride
    x = x.contiguous()
    return x, x.stride(0)


def spread(param: Tensor, kind: Param, shape: torch.Size) -> Tensor:
    """A hoisted value as the kernel reads it: one number, or one per element, or per element and step."""
    if kind.fixed == Param.NUMBER:
        return param
    return param.contiguous() if kind.fixed == Param.STEP else param.expand(shape).contiguous()


def sum_to(total: Tensor, param: Tensor) -> Tensor:
    """Sum over what the parameter was broadcast over; on the CPU in an order that does not depend on the threads."""
    if not total.is_cpu:
        return total.sum_to_size(param.shape).to(param.device)
    if not param.dim() and total.numel() <= SUMMED_BY_ONE:
        return total.sum()
    lead = total.dim() - param.dim()
    axes = (*range(lead), *(lead + i for i, size in enumerate(param.shape) if size == 1))
    summed = np.sum(total.numpy(), axis=axes) if axes else total.numpy()
    return torch.from_numpy(np.asarray(summed)).reshape(param.shape)
