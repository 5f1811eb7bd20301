"""nn.MaxPool2d and nn.AvgPool2d as kernels that run at the speed of memory, forward and backward."""

from typing import Any

import torch
from torch import Tensor, nn

from ..scan import pooling as kernels
from ..scan.convolution import Pair
from ..scan.saved import saved_by
from .skipping import Accelerated, kernels_can

LEAST_VALUES = 1 << 16
"""Values of the input below which torch's pooling is taken: it is over before a kernel is called."""

LARGEST_WINDOW = 64
"""Values of a window above which torch's pooling is taken: the kernels name each."""


class _Pool(Accelerated):
    """Takes kernels or torch's own pooling, and says so in `path`: "numba" or "torch"."""

    kind = ""
    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool

    def _run(self, input: Tensor) -> Tensor:
        own = self._can(input)
        self.__dict__["path"] = "numba" if own else "torch"
        return _Pooling.apply(input, self._windows()) if own else self._plain(input)

    def _can(self, x: Tensor) -> bool:
        if not kernels_can(x) or x.dim() != 4 or x.numel() < LEAST_VALUES or _pair(self.padding) != (0, 0):
            return False
        windows = self._windows()
        (rows, columns), stride = windows.size, windows.stride
        left = [x.shape[2] - rows, x.shape[3] - columns]
        beyond = self.ceil_mode and any(more % step for more, step in zip(left, stride, strict=True))
        return 0 < rows * columns <= LARGEST_WINDOW and min(*left, *(s - 1 for s in stride)) >= 0 and not beyond

    def _windows(self) -> kernels.Windows:
        return kernels.Windows(self.kind, _pair(self.kernel_size), _pair(self.stride))


class SpikeMaxPool2d(_Pool, nn.MaxPool2d):
    """An nn.MaxPool2d on kernels, as `accelerate` makes it. Not constructed by itself.

    Results and gradients are torch's, bit for bit. For its backward it keeps a byte for each result, which tells whose
    value that is, where torch keeps eight, and the input. Padding, dilation, `return_indices`, windows that stick out
    of the image and images without a batch are torch's.
    """

    kind = "maximum"

    def _can(self, x: Tensor) -> bool:
        return not self.return_indices and _pair(self.dilation) == (1, 1) and super()._can(x)


class SpikeAvgPool2d(_Pool, nn.AvgPool2d):
    """An nn.AvgPool2d on kernels, as `accelerate` makes it. Not constructed by itself.

    Results and gradients are torch's, bit for bit. Padding, `divisor_override`, windows that stick out of the image and
    images without a batch are torch's.
    """

    kind = "average"

    def _can(self, x: Tensor) -> bool:
        return self.divisor_override is None and super()._can(x)


def _pair(value: Any) -> Pair:
    """Rows and columns, as torch reads them."""
    first, *rest = value if isinstance(value, tuple | list) else (value,)
    return int(first), int(rest[0] if rest else first)


class _Pooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: kernels.Windows) -> Tensor:
        out, places = kernels.pooled(x, windows)
        ctx.layer, ctx.windows, ctx.shape = "a pooling layer", windows, x.shape
        ctx.channels_last = kernels.lies_last(x) or getattr(x.grad_fn, "wants_channels_last", False)
        ctx.save_for_backward(places)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = saved_by(ctx)
        return kernels.pooled_gradient(grad, places, ctx.shape, ctx.windows, ctx.channels_last), None
