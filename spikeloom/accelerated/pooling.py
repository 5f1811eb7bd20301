"""nn.MaxPool2d and nn.AvgPool2d as kernels that run at the speed of memory, forward and backward."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..engine import tuning
from ..engine.saved_tensors import saved_by
from ..engine.sparse import Pair, Windows, lies_channels_last
from ..engine.sparse import pooling as kernels
from .plan import Accelerated, Plan, kernel_refusals, of_plain, report

WITH_CONVOLUTION = "numba, with the convolution"
"""The route of pooling that the convolution before it does in its own result."""


class Pool(Accelerated):
    """Runs on kernels, "numba", or by torch's own pooling, "torch"."""

    kind = ""
    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool

    def _run(self, input: Tensor) -> Tensor:
        plan = self.plan(input)
        report(self, plan)
        return self._plain(input) if plan.windows is None else _Pooling.apply(input, plan.windows)

    def plan(self, x: Tensor) -> Plan:
        """How these images are pooled."""
        reason = next(self.refusals(x.shape), "") if isinstance(x, Tensor) else ""
        reason = reason or next(kernel_refusals(x), "")
        return Plan("torch", reason) if reason else Plan("numba", windows=self.windows())

    def windows(self) -> Windows:
        """What kernels pool, where they do not refuse."""
        return Windows(self.kind, _pair(self.kernel_size), _pair(self.stride))

    def refusals(self, shape: Sequence[int]) -> Iterator[str]:
        """Why kernels do not pool images of that shape."""
        if math.prod(shape) < tuning.limits.pooling_least_values:
            yield "it has fewer values than pooling_least_values"
        if len(shape) != 4:
            yield "kernels pool batches of images"
        if _pair(self.padding) != (0, 0):
            yield "it has padding"
        size, stride = _pair(self.kernel_size), _pair(self.stride)
        if not 0 < math.prod(size) <= tuning.limits.pooling_largest_window or min(stride) < 1:
            yield "its windows are larger than pooling_largest_window"
        left = [n - w for n, w in zip(shape[2:], size, strict=True)]
        if min(left) < 0 or (self.ceil_mode and any(n % s for n, s in zip(left, stride, strict=True))):
            yield "its windows extend beyond the images"


class SpikeMaxPool2d(Pool, nn.MaxPool2d):
    """An nn.MaxPool2d on kernels, as `accelerate` makes it. Not constructed by itself.

    Results and gradients are torch's, bit for bit. For its backward it saves a byte for each result, which says whose
    value that is, where torch saves eight, and the input. Padding, dilation, `return_indices`, windows that extend
    beyond the image and images without a batch are torch's.
    """

    kind = "maximum"

    def refusals(self, shape: Sequence[int]) -> Iterator[str]:
        if self.return_indices or _pair(self.dilation) != (1, 1):
            yield "it returns indices or is dilated"
        yield from super().refusals(shape)


class SpikeAvgPool2d(Pool, nn.AvgPool2d):
    """An nn.AvgPool2d on kernels, as `accelerate` makes it. Not constructed by itself.

    Results and gradients are torch's, bit for bit. Padding, `divisor_override`, windows that extend beyond the image
    and images without a batch are torch's.
    """

    kind = "average"

    def refusals(self, shape: Sequence[int]) -> Iterator[str]:
        if self.divisor_override is not None:
            yield "it has a divisor of its own"
        yield from super().refusals(shape)


def _pair(value: Any) -> Pair:
    """Rows and columns, as torch reads them."""
    first, *rest = value if isinstance(value, tuple | list) else (value,)
    return int(first), int(rest[0] if rest else first)


class _Pooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: Windows) -> Tensor:
        out, places = kernels.pooled(x, windows)
        ctx.layer, ctx.windows, ctx.shape = "a pooling layer", windows, x.shape
        ctx.channels_last = lies_channels_last(x)
        ctx.save_for_backward(places)
        return out

    @staticmethod
    @of_plain
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = saved_by(ctx, grad)
        return kernels.pooled_gradient(grad, places, ctx.shape, ctx.windows, ctx.channels_last), None
