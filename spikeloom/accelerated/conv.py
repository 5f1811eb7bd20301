"""nn.Conv2d for spike inputs, and pooling on kernels."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import padding_of
from ..engine import tuning
from ..engine.jit import buffer_pool
from ..engine.saved_tensors import saved_by
from ..engine.sparse import Pair, Windows, conv, csr, pooling
from .plan import Accelerated, Plan, SkipsZeros, kernel_refusals, of_plain, report


class SpikeConv2d(SkipsZeros, nn.Conv2d):
    """An nn.Conv2d that skips zeros of its input. Created by `accelerate`, not constructed directly.

    [N, C, H, W] -> [N, K, H', W'], equal to nn.Conv2d up to the order of summation. The memory format of the result is
    torch's: channels last if the images or the weight are. Groups, padding that is asymmetric or not of zeros, and
    images without a batch dimension use torch.
    """

    def plan(self, x: Tensor) -> Plan:
        weight = self.weight
        reason = next(self._unreadable(x, weight), "")
        if reason:
            return Plan("dense", reason)
        left, _, top, _ = self._frame()
        pairs = (self.kernel_size, self.stride, self.dilation, (top, left))
        patch = conv.Patch(*((int(pair[0]), int(pair[1])) for pair in pairs))
        result = patch.result(x, weight)
        if min(result) < 1:
            return Plan("dense", "the result has no values")
        reason = next(self._refusals(x, weight, result), "")
        if reason:
            return Plan("dense", reason, (patch,) if _chunks_pay(x, weight, result) else ())
        return Plan("sparse", found=(patch,))

    def run(self, x: Tensor, plan: Plan) -> Tensor:
        if plan.route == "sparse":
            out: Tensor = _SpikeConvolution.apply(x, self.weight, self.bias, *plan.found)
        elif plan.found:
            out = _Chunked.apply(x, self.weight, self.bias, *plan.found, self.groups)
        else:
            out = self._plain(x)
        return out

    def _frame(self) -> tuple[int, ...]:
        """The padding on the left, the right, above and below."""
        if isinstance(self.padding, str):
            return padding_of(self)
        top, left = self.padding  # the current value; torch's second attribute is that of the constructor
        return left, left, top, top

    def _unreadable(self, x: Tensor, weight: Tensor) -> Iterator[str]:
        """Why a `Patch` cannot describe these images and this weight."""
        yield from kernel_refusals(x, weight)
        if x.dim() != 4 or (x.shape[1], *self.kernel_size) != (self.groups * weight.shape[1], *weight.shape[2:]):
            yield "kernels require batches of images, with the channels of the weight"
        left, right, top, bottom = self._frame()
        if self.padding_mode != "zeros" or (left, top) != (right, bottom):
            yield "its padding is not of zeros, or is asymmetric"

    def _refusals(self, x: Tensor, weight: Tensor, result: Sequence[int]) -> Iterator[str]:
        """Why kernels do not skip the zeros of images that they can read; `result` is the shape of the result."""
        limits = tuning.limits
        if self.groups != 1:
            yield "it has groups"
        if self.out_channels < limits.conv_least_channels:
            yield "it has fewer channels than conv_least_channels"
        if weight.numel() < limits.conv_least_inputs * self.out_channels:
            yield "its results have fewer inputs than conv_least_inputs"
        if len(x) * result[2] * result[3] * weight.numel() < limits.conv_least_work:
            yield "it has fewer multiplications than conv_least_work"
        if not csr.finite(weight):
            yield "the weight is not finite"
        if _density(x) >= limits.conv_dense_above:
            yield "too few inputs are zero"


def _density(images: Tensor) -> float:
    """The share of nonzero values in a sample of the images."""
    some = images[:: max(1, len(images) // tuning.limits.conv_sampled)]
    return float(torch.count_nonzero(some)) / some.numel()


class _SpikeConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, patch: conv.Patch) -> Tensor:
        ctx.layer, ctx.patch = "a SpikeConv2d", patch
        ctx.save_for_backward(x, weight)
        return conv.convolution(x, weight, bias, patch)

    @staticmethod
    @of_plain
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = saved_by(ctx, grad)
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        total = conv.over_pixels(grad)
        finite = csr.finite(total)
        sparse_x = wants_x and finite and _density(grad) < tuning.limits.conv_dense_input_above
        sparse_weight = wants_weight and finite and _density(x) < tuning.limits.conv_dense_weight_above
        dx, dweight = _dense(ctx.patch, grad, x, weight, wants_x and not sparse_x, wants_weight and not sparse_weight)
        if sparse_x:
            dx = conv.input_gradient(grad, weight, x, ctx.patch)
        if sparse_weight:
            dweight = conv.weight_gradient(x, grad, ctx.patch)
        return dx, dweight, total if wants_bias else None, None


def _dense(
    patch: conv.Patch, grad: Tensor, x: Tensor, weight: Tensor, wants_x: bool, wants_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The requested gradients of the input and the weight, by torch."""
    if not (wants_x or wants_weight):
        return None, None
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    how = (patch.stride, patch.padding, patch.dilation, False, (0, 0), 1, (wants_x, wants_weight, False))
    dx, dweight, _ = torch.ops.aten.convolution_backward(grad, x, weight, None, *how)
    return dx, dweight


# -- torch's own convolution of many images ----------------------------------------------------------------------------


def _chunks_pay(x: Tensor, weight: Tensor, result: Sequence[int]) -> bool:
    """Whether the result is large, or torch reorders large images in memory."""
    values, least = math.prod(result), tuning.limits.chunk_images_from // x.element_size()
    return values > least or (x.numel() > least and not _channels_last(x, weight))


def _channels_last(x: Tensor, weight: Tensor) -> bool:
    """Whether torch uses the channels-last memory format."""
    return pooling.lies_channels_last(x) or pooling.lies_channels_last(weight)


class _Chunked(torch.autograd.Function):
    """torch's convolution of [N, C, H, W] with [K, C / groups, kh, kw], in chunks of images that stay in the cache.

    The C library returns a block of more than 32 MiB to the system as soon as it is free, so each new block causes page
    faults. torch's convolution allocates several: for its result, and for reordered images if their channels are not
    last. The blocks of a chunk are reused, and so is the memory of the result (`buffer_pool`).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, patch: conv.Patch, groups: int) -> Tensor:
        last, shape = _channels_last(x, weight), patch.result(x, weight)
        out = buffer_pool.images(shape, x, last)
        largest = out[0].nbytes if last else max(x[0].nbytes, out[0].nbytes)
        images = max(1, tuning.limits.chunk_bytes * torch.get_num_threads() // largest)
        how = patch.stride, patch.padding, patch.dilation
        ctx.images = len(x) if last else images  # channels last: torch's backward does not reorder
        ctx.how = [len(weight)], *how, False, (0, 0), groups
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


# -- pooling -----------------------------------------------------------------------------------------------------------


class Pool(Accelerated):
    """A pooling layer that runs on kernels (route "numba") or by torch's own pooling ("torch")."""

    kind = ""
    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool

    def _run(self, input: Tensor) -> Tensor:
        reason = next(self.refusals(input.shape), "") if isinstance(input, Tensor) else ""
        reason = reason or next(kernel_refusals(input), "")
        report(self, Plan("torch", reason) if reason else Plan("numba"))
        return self._plain(input) if reason else _Pooling.apply(input, self.windows())

    def windows(self) -> Windows:
        """The windows of the pooling, for kernels."""
        return Windows(self.kind, _pair(self.kernel_size), _pair(self.stride))

    def refusals(self, shape: Sequence[int]) -> Iterator[str]:
        """Why kernels do not pool images of this shape."""
        if math.prod(shape) < tuning.limits.pooling_least_values:
            yield "it has fewer values than pooling_least_values"
        if len(shape) != 4:
            yield "kernels require batches of images"
        if _pair(self.padding) != (0, 0):
            yield "it has padding"
        size, stride = _pair(self.kernel_size), _pair(self.stride)
        if not 0 < math.prod(size) <= tuning.limits.pooling_largest_window or min(stride) < 1:
            yield "its windows are larger than pooling_largest_window"
        left = [n - w for n, w in zip(shape[2:], size, strict=True)]
        if min(left) < 0 or (self.ceil_mode and any(n % s for n, s in zip(left, stride, strict=True))):
            yield "its windows extend beyond the images"


class SpikeMaxPool2d(Pool, nn.MaxPool2d):
    """An nn.MaxPool2d on kernels. Created by `accelerate`, not constructed directly.

    Results and gradients are bit-identical to torch's. For backward it saves one byte per output, the index of the
    maximum in its window; torch saves eight, and the input. Padding, dilation, `return_indices`, windows that extend
    beyond the image, and images without a batch dimension use torch.
    """

    kind = "maximum"

    def refusals(self, shape: Sequence[int]) -> Iterator[str]:
        if self.return_indices or _pair(self.dilation) != (1, 1):
            yield "it returns indices or is dilated"
        yield from super().refusals(shape)


class SpikeAvgPool2d(Pool, nn.AvgPool2d):
    """An nn.AvgPool2d on kernels. Created by `accelerate`, not constructed directly.

    Results and gradients are bit-identical to torch's. Padding, `divisor_override`, windows that extend beyond the
    image, and images without a batch dimension use torch.
    """

    kind = "average"

    def refusals(self, shape: Sequence[int]) -> Iterator[str]:
        if self.divisor_override is not None:
            yield "it has a divisor_override"
        yield from super().refusals(shape)


def _pair(value: Any) -> Pair:
    """Rows and columns of an int or a tuple, in torch's convention."""
    first, *rest = value if isinstance(value, tuple | list) else (value,)
    return int(first), int(rest[0] if rest else first)


class _Pooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: Windows) -> Tensor:
        out, places = pooling.pooled(x, windows)
        ctx.layer, ctx.windows, ctx.shape = "a pooling layer", windows, x.shape
        ctx.channels_last = pooling.lies_channels_last(x)
        ctx.save_for_backward(places)
        return out

    @staticmethod
    @of_plain
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = saved_by(ctx, grad)
        return pooling.pooled_gradient(grad, places, ctx.shape, ctx.windows, ctx.channels_last), None
