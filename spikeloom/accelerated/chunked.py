"""torch's own convolution of many images, in chunks that stay in the cache.

The C library gives a block of more than 32 MiB back to the system as soon as it is free, so each new one is fresh
memory, page by page. torch's convolution makes several: for its result, and for images in an order of its own where
their channels are not last. Those of a chunk are used again, and so is the memory of the result (`buffer_pool`).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..engine import tuning
from ..engine.jit import buffer_pool
from ..engine.sparse import Patch, lies_channels_last
from .plan import of_plain


def pays(x: Tensor, weight: Tensor, result: Sequence[int]) -> bool:
    """Whether a result of that shape is large, or the images are which torch brings into its order."""
    values, least = math.prod(result), tuning.limits.chunk_images_from // x.element_size()
    return values > least or (x.numel() > least and not _last(x, weight))


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, patch: Patch, groups: int) -> Tensor:
    """The convolution of [N, C, H, W] with [K, C / groups, kh, kw]: [N, K, H', W']."""
    return _Chunked.apply(x, weight, bias, patch, groups)  # type: ignore[no-any-return]


def _last(x: Tensor, weight: Tensor) -> bool:
    """Whether torch works with the channels last."""
    return lies_channels_last(x) or lies_channels_last(weight)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, patch: Patch, groups: int) -> Tensor:
        last, shape = _last(x, weight), patch.result(x, weight)
        each = x.element_size() * math.prod(shape[1:])
        images = max(
            1, tuning.limits.chunk_bytes * torch.get_num_threads() // (each if last else max(x[0].nbytes, each))
        )
        how = patch.stride, patch.padding, patch.dilation
        ctx.images = len(x) if last else images  # then torch's backward brings nothing into order
        ctx.how = [len(weight)], *how, False, (0, 0), groups
        out = buffer_pool.images(shape, x, last)
        for part, to in zip(x.split(images), out.split(images), strict=True):
            to.copy_(torch.conv2d(part, weight, bias, *how, groups))
        ctx.save_for_backward(x, weight)
        return out

    @staticmethod
    @of_plain
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]

        def gradients(rows: slice) -> Any:
            return torch.ops.aten.convolution_backward(grad[rows], x[rows], weight, *ctx.how, wanted)

        if ctx.images == len(x):
            return *gradients(slice(None)), None, None
        dx = buffer_pool.images(x.shape, x, channels_last=False) if wanted[0] else None
        sums: list[Any] = [0 if asked else None for asked in wanted[1:]]
        for first in range(0, len(x), ctx.images):
            rows = slice(first, first + ctx.images)
            found, *parts = gradients(rows)
            if dx is not None:
                dx[rows] = found
            sums = [None if total is None else total + part for total, part in zip(sums, parts, strict=True)]
        return dx, *sums, None, None
