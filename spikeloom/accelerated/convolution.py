"""nn.Conv2d driven by spikes: it adds up the weight rows of active inputs where these are few."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import padding_of
from ..engine import tuning
from ..engine.saved_tensors import saved_by
from ..engine.sparse import Windows, csr, pooled_gradient
from ..engine.sparse import conv as kernels
from . import chunked
from .pooling import WITH_CONVOLUTION, Pool
from .skipping import SkipsZeros, kernels_can, of_plain


class SpikeConv2d(SkipsZeros, nn.Conv2d):
    """An nn.Conv2d that skips zeros of its input, as `accelerate` makes it. Not constructed by itself.

    [N, C, H, W] -> [N, K, H', W'] as nn.Conv2d computes it, to the order of summation. Results lie in memory as torch's
    do: with their channels last if those of the images or of the weight are. Groups, other paddings than zeros or by
    unequal numbers of rows, and images without a batch are torch's.

    Pooling behind it in an nn.Sequential is done within it where kernels can pool, and where it runs by kernels or in
    chunks: an image or a chunk is pooled while it is in the cache. The result as a whole is then never in memory.
    """

    def _can_skip(self, x: Tensor, weight: Tensor) -> bool:
        large = (
            self.out_channels >= tuning.limits.conv_least_channels
            and weight.numel() >= tuning.limits.conv_least_inputs * self.out_channels
        )
        if self.groups != 1 or not large or not self._readable(x, weight):
            return False
        _, _, rows, columns = _patch(self).result(x, weight)
        return len(x) * rows * columns * weight.numel() >= tuning.limits.conv_least_work and csr.finite(weight)

    def _frame(self) -> tuple[int, ...]:
        """How many rows of padding are on the left, the right, above and below."""
        if isinstance(self.padding, str):
            return padding_of(self)
        top, left = self.padding  # as it is now: that of the attribute torch keeps beside it is of the construction
        return left, left, top, top

    def _sparse(self, x: Tensor, weight: Tensor, bias: Tensor | None, pool: Pool | None = None) -> Tensor | None:
        if density(x) >= tuning.limits.conv_dense_above:
            return None
        patch = _patch(self)
        run = partial(_SpikeConvolution.apply, x, weight, bias, patch)
        return _pooled_by(pool, run, patch.result(x, weight))

    def _dense(self, x: Tensor, weight: Tensor, bias: Tensor | None, pool: Pool | None = None) -> Tensor:
        if self._in_chunks(x, weight):
            patch = _patch(self)
            run = partial(chunked.convolution, x, weight, bias, patch, self.groups)
            return _pooled_by(pool, run, patch.result(x, weight))
        out: Tensor = self._conv_forward(x, weight, bias)
        return out if pool is None else pool(out)

    def _in_chunks(self, x: Tensor, weight: Tensor) -> bool:
        return self._readable(x, weight) and chunked.pays(x, weight, _patch(self))

    def pools_with(self, x: Tensor, pool: Pool) -> bool:
        """Whether `product` pools each part of its result at once."""
        weight = self.weight
        parts = (self._can_skip(x, weight) and density(x) < tuning.limits.conv_dense_above) or self._in_chunks(
            x, weight
        )
        return parts and pool.windows(_patch(self).result(x, weight)) is not None

    def _readable(self, x: Tensor, weight: Tensor) -> bool:
        """Whether these are images and a weight that `Patch` tells of."""
        if not kernels_can(x, weight) or x.dim() != 4 or not x.numel():
            return False
        if (x.shape[1], *self.kernel_size) != (self.groups * weight.shape[1], *weight.shape[2:]):
            return False
        left, right, top, bottom = self._frame()
        usual = self.padding_mode == "zeros" and (left, top) == (right, bottom)
        return usual and min(_patch(self).result(x, weight)) > 0


def _patch(layer: SpikeConv2d) -> kernels.Patch:
    left, _, top, _ = layer._frame()
    pairs = (layer.kernel_size, layer.stride, layer.dilation, (top, left))
    return kernels.Patch(*((int(pair[0]), int(pair[1])) for pair in pairs))


def density(images: Tensor) -> float:
    """The share of nonzero values, of some images."""
    some = images[:: max(1, len(images) // tuning.limits.conv_sampled)]
    return float(torch.count_nonzero(some)) / some.numel()


def _pooled_by(pool: Pool | None, run: Callable[[Windows | None], Tensor], shape: Sequence[int]) -> Tensor:
    """The convolution that `run` computes, of that shape: within it the windows are pooled if kernels can do that."""
    windows = None if pool is None else pool.windows(shape)
    out = run(windows)
    if pool is None:
        return out
    if windows is None:
        return pool(out)  # type: ignore[no-any-return]
    pool.__dict__["path"] = WITH_CONVOLUTION
    return out


class _SpikeConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, patch: kernels.Patch, windows: Windows | None
    ) -> Tensor:
        ctx.layer, ctx.patch, ctx.windows = "a SpikeConv2d", patch, windows
        ctx.wants_channels_last = True  # its gradient: who pools the result can write it so at once
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
