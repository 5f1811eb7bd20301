"""nn.Conv2d driven by spikes: it adds up the weight rows of active inputs where these are few."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import padding_of
from ..engine import tuning
from ..engine.saved_tensors import saved_by
from ..engine.sparse import Windows, csr, pooled_gradient
from ..engine.sparse import conv as kernels
from . import chunked
from .plan import Plan, SkipsZeros, kernel_refusals, of_plain, report, untouched
from .pooling import Pool


class SpikeConv2d(SkipsZeros, nn.Conv2d):
    """An nn.Conv2d that skips zeros of its input, as `accelerate` makes it. Not constructed by itself.

    [N, C, H, W] -> [N, K, H', W'] as nn.Conv2d computes it, to the order of summation. Results lie in memory as torch's
    do: with their channels last if those of the images or of the weight are. Groups, other paddings than zeros or by
    unequal numbers of rows, and images without a batch are torch's.

    Pooling behind it in an nn.Sequential is done within its kernel, image by image, while the image is in the cache.
    The result as a whole is then never in memory.
    """

    def plan(self, x: Tensor, weight: Tensor, following: nn.Module | None = None) -> Plan:
        reason = next(self._unreadable(x, weight), "")
        if reason:
            return Plan("dense", reason)
        patch = self._patch()
        result = patch.result(x, weight)
        if min(result) < 1:
            return Plan("dense", "the result has no values")
        reason = next(self._refusals(x, weight, result), "")
        if reason:
            return Plan("dense", reason, (patch,) if chunked.pays(x, weight, result) else ())
        if isinstance(following, Pool) and untouched(following) and not any(following.refusals(result)):
            return Plan("sparse", found=(patch,), windows=following.windows())
        return Plan("sparse", found=(patch,))

    def run(self, x: Tensor, plan: Plan, weight: Tensor, bias: Tensor | None) -> Tensor:
        report(self, plan)
        if plan.route == "sparse":
            out: Tensor = _SpikeConvolution.apply(x, weight, bias, *plan.found, plan.windows)
        elif plan.found:
            out = chunked.convolution(x, weight, bias, plan.found[0], self.groups)
        else:
            out = self._conv_forward(x, weight, bias)
        return out

    def _unreadable(self, x: Tensor, weight: Tensor) -> Iterator[str]:
        """Why a `Patch` cannot describe these images and this weight."""
        yield from kernel_refusals(x, weight)
        if x.dim() != 4 or (x.shape[1], *self.kernel_size) != (self.groups * weight.shape[1], *weight.shape[2:]):
            yield "kernels take batches of images, with the channels of the weight"
        left, right, top, bottom = self._frame()
        if self.padding_mode != "zeros" or (left, top) != (right, bottom):
            yield "its padding is not of zeros, or unequal"

    def _refusals(self, x: Tensor, weight: Tensor, result: Sequence[int]) -> Iterator[str]:
        """Why kernels do not skip the zeros of images that they can read, for the shape of the result."""
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
        if density(x) >= limits.conv_dense_above:
            yield "too few inputs are zero"

    def _frame(self) -> tuple[int, ...]:
        """How many rows of padding are on the left, the right, above and below."""
        if isinstance(self.padding, str):
            return padding_of(self)
        top, left = self.padding  # as it is now: that of the attribute torch keeps beside it is of the construction
        return left, left, top, top

    def _patch(self) -> kernels.Patch:
        left, _, top, _ = self._frame()
        pairs = (self.kernel_size, self.stride, self.dilation, (top, left))
        return kernels.Patch(*((int(pair[0]), int(pair[1])) for pair in pairs))


def density(images: Tensor) -> float:
    """The share of nonzero values, of some images."""
    some = images[:: max(1, len(images) // tuning.limits.conv_sampled)]
    return float(torch.count_nonzero(some)) / some.numel()


class _SpikeConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, patch: kernels.Patch, windows: Windows | None
    ) -> Tensor:
        ctx.layer, ctx.patch, ctx.windows = "a SpikeConv2d", patch, windows
        if windows is None:
            ctx.save_for_backward(x, weight)
            return kernels.convolution(x, weight, bias, patch)
        out, places = kernels.convolved_and_pooled(x, weight, bias, patch, windows)
        ctx.save_for_backward(x, weight, places)
        return out

    @staticmethod
    @of_plain
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *places = saved_by(ctx, grad)
        wants_x, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        total = kernels.over_pixels(grad)  # pooling spreads each gradient over a window: the sum is the same
        if places:
            grad = pooled_gradient(grad, places[0], ctx.patch.result(x, weight), ctx.windows, channels_last=True)
        finite = csr.finite(total)
        sparse_x = wants_x and finite and density(grad) < tuning.limits.conv_dense_input_above
        sparse_weight = wants_weight and finite and density(x) < tuning.limits.conv_dense_weight_above
        dx, dweight = _dense(ctx.patch, grad, x, weight, wants_x and not sparse_x, wants_weight and not sparse_weight)
        if sparse_x:
            dx = kernels.input_gradient(grad, weight, x, ctx.patch)
        if sparse_weight:
            dweight = kernels.weight_gradient(x, grad, ctx.patch)
        return dx, dweight, total if wants_bias else None, None, None


def _dense(
    patch: kernels.Patch, grad: Tensor, x: Tensor, weight: Tensor, wants_x: bool, wants_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of the input and the weight that are wanted, by torch."""
    if not (wants_x or wants_weight):
        return None, None
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    how = (patch.stride, patch.padding, patch.dilation, False, (0, 0), 1, (wants_x, wants_weight, False))
    dx, dweight, _ = torch.ops.aten.convolution_backward(grad, x, weight, None, *how)
    return dx, dweight
