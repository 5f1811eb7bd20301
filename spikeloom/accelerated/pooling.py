"""nn.MaxPool2d and nn.AvgPool2d as kernels that run at the speed of memory, forward and backward."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..engine import tuning
from ..engine.saved_tensors import saved_by
from ..engine.sparse import Pair, Windows
from ..engine.sparse import pooling as kernels
from .skipping import Accelerated, kernels_can, of_plain

WITH_CONVOLUTION = "numba, with the convolution"


class Pool(Accelerated):
    """Takes kernels or torch's own pooling, and says so in `path`: "numba" or "torch".

    Where the convolution before it pools each part of its result at once, the path is `WITH_CONVOLUTION`.
    """

    kind = ""
    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool

    def _run(self, input: Tensor) -> Tensor:
        windows = self.windows(input.shape) if kernels_can(input) else None
        told = self.__dict__.pop("told", "numba")
        self.__dict__["path"] = "torch" if windows is None else told
        return self._plain(input) if windows is None else _Pooling.apply(input, windows)

    def windows(self, shape: Sequence[int]) -> Windows | None:
        """What kernels would pool in images of that shape; None if it is torch's."""
        if len(shape) != 4 or math.prod(shape) < tuning.limits.pooling_least_values or _pair(self.padding) != (0, 0):
            return None
        (rows, columns), stride = _pair(self.kernel_size), _pair(self.stride)
        left = [shape[2] - rows, shape[3] - columns]
        beyond = self.ceil_mode and any(more % step for more, step in zip(left, stride, strict=True))
        fits = (
            0 < rows * columns <= tuning.limits.pooling_largest_window
            and min(*left, *(s - 1 for s in stride)) >= 0
            and not beyond
        )
        return Windows(self.kind, (rows, columns), stride) if fits else None


class SpikeMaxPool2d(Pool, nn.MaxPool2d):
    """An nn.MaxPool2d on kernels, as `accelerate` makes it. Not constructed by itself.

    Results and gradients are torch's, bit for bit. For its backward it keeps a byte for each result, which tells whose
    value that is, where torch keeps eight, and the input. Padding, dilation, `return_indices`, windows that stick out
    of the image and images without a batch are torch's.
    """

    kind = "maximum"

    def windows(self, shape: Sequence[int]) -> Windows | None:
        return None if self.return_indices or _pair(self.dilation) != (1, 1) else super().windows(shape)


class SpikeAvgPool2d(Pool, nn.AvgPool2d):
    """An nn.AvgPool2d on kernels, as `accelerate` makes it. Not constructed by itself.

    Results and gradients are torch's, bit for bit. Padding, `divisor_override`, windows that stick out of the image and
    images without a batch are torch's.
    """

    kind = "average"

    def windows(self, shape: Sequence[int]) -> Windows | None:
        return None if self.divisor_override is not None else super().windows(shape)


def _pair(value: Any) -> Pair:
    """Rows and columns, as torch reads them."""
    first, *rest = value if isinstance(value, tuple | list) else (value,)
    return int(first), int(rest[0] if rest else first)


class _Pooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: Windows) -> Tensor:
        out, places = kernels.pooled(x, windows)
        ctx.layer, ctx.windows, ctx.shape = "a pooling layer", windows, x.shape
        ctx.channels_last = kernels.lies_last(x) or getattr(x.grad_fn, "wants_channels_last", False)
        ctx.save_for_backward(places)
        return out

    @staticmethod
    @of_plain
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = saved_by(ctx, grad)
        return kernels.pooled_gradient(grad, places, ctx.shape, ctx.windows, ctx.channels_last), None
