"""Convolutions of images that are mostly zeros, such as spikes: the kernels, run.

Images are [N, C, H, W] in any memory order. Results lie as torch's do: with their channels last if those of the input,
or of the weight, are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from ..graph import dtype_name
from ..jit import LINE, buffer_pool, compiled, openmp
from .conv_source import emit_convolution
from .csr import column_sums, packed, whole_panels
from .pooling import Pair, Pooling, Windows, empty_results, lies_channels_last

CHUNK_BYTES = 1 << 18
"""Bytes of an output gradient that the weight's gradient goes through together, so that they stay in the cache."""


@cache
def _convolution_kernel(kind: str, dtype: str, pooling: Pooling | None = None) -> openmp.Kernel:
    return compiled(partial(emit_convolution, kind, dtype, pooling))


@dataclass(frozen=True)
class Patch:
    """How a convolution walks over an image: its kernel's size, and what torch.nn.Conv2d calls by these names."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Pair

    @property
    def bands(self) -> tuple[int, int, int]:
        """How many bands a patch has, how many in each of its rows, and how many pixels one is (`emit_convolution`)."""
        rows, columns = self.kernel
        return (rows, 1, columns) if self.dilation[1] == 1 else (rows * columns, columns, 1)

    def framed(self, axis: int, size: int) -> int:
        """Rows (axis 0) or columns (1) of an image with its padding."""
        return size + 2 * self.padding[axis]

    def positions(self, axis: int, size: int) -> int:
        """Rows or columns of the result."""
        return (self.framed(axis, size) - self.dilation[axis] * (self.kernel[axis] - 1) - 1) // self.stride[axis] + 1

    def result(self, x: Tensor, weight: Tensor) -> tuple[int, int, int, int]:
        """The shape of the result, for images and weight."""
        return len(x), len(weight), self.positions(0, x.shape[2]), self.positions(1, x.shape[3])

    def meeting_columns(self, width: int) -> Tensor:
        """For each column of the kernel, and of the image, that of the result where they meet; -1 if there is none."""
        offsets = torch.arange(self.kernel[1], device="cpu")[:, None] * self.dilation[1]
        moved = torch.arange(width, device="cpu") + self.padding[1] - offsets
        place, rest = moved // self.stride[1], moved % self.stride[1]
        return torch.where((rest == 0) & (place >= 0) & (place < self.positions(1, width)), place, -1)

    def meeting_rows(self, height: int) -> Tensor:
        """For each row of the kernel the rows of the image that it meets, where these are sorted by their remainder.

        The first, the last and one, as places in that order; and how much further down than the row divided by the
        stride the row of the result is.
        """
        stride, meeting = self.stride[0], []
        order = sorted(range(height), key=lambda i: (i % stride, i))
        for a in range(self.kernel[0]):
            offset = a * self.dilation[0] - self.padding[0]
            rows = [i for i in range(offset, offset + stride * self.positions(0, height), stride) if 0 <= i < height]
            first = order.index(rows[0]) if rows else 0
            down = (rows[0] - offset) // stride - rows[0] // stride if rows else 0
            meeting.append((first, first + len(rows), down))
        return torch.tensor(meeting, device="cpu")


def _geometry(patch: Patch, x: Tensor, out_channels: int, panels: int) -> list[int]:
    """The arguments from SHAPE to RESULT."""
    images, channels, height, width = x.shape
    down, across = patch.framed(0, height), patch.framed(1, width)
    rows, columns = patch.positions(0, height), patch.positions(1, width)
    size = rows * columns * out_channels * channels
    shape = [images, size, 0, channels, height, width, *patch.padding, down, across]
    return [*shape, *x.stride(), *patch.bands, *patch.dilation, *patch.stride, rows, columns, out_channels, panels]


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, patch: Patch) -> Tensor:
    """The convolution of [N, C, H, W] with [K, C, kh, kw], all finite: [N, K, H', W']."""
    out = buffer_pool.images(patch.result(x, weight), x, lies_channels_last(x) or lies_channels_last(weight))
    _convolve(x, weight, bias, patch, out, 0, None)
    return out


def convolved_and_pooled(
    x: Tensor, weight: Tensor, bias: Tensor | None, patch: Patch, windows: Windows
) -> tuple[Tensor, Tensor]:
    """What `pooled` gives for that, image by image, so that the convolution is never in memory as a whole.

    The second lies with the channels last.
    """
    shape = patch.result(x, weight)
    last = lies_channels_last(x) or lies_channels_last(weight)
    out, places = empty_results(windows.result(shape), x, windows, last, places_last=True)
    pooling = Pooling(windows, channels_last=True, dtype=dtype_name(x.dtype))
    values = math.prod(shape[1:]) + math.prod(out.shape[1:])
    _convolve(x, weight, bias, patch, out, values, pooling, [*out.shape[2:], places.data_ptr()])
    return out, places


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    patch: Patch,
    out: Tensor,
    more: int,
    pooling: Pooling | None,
    rest: Sequence[int] = (),
) -> None:
    """Write to memory in any order. A kernel that pools takes so many more values of scratch memory, and the rest."""
    _, channels, height, width = x.shape
    matrix = packed(weight.permute(2, 3, 1, 0).reshape(-1, len(weight))).panels
    first = x.new_zeros(whole_panels(len(weight), x))
    if bias is not None:
        first[: len(weight)] = bias
    frame = patch.framed(0, height) * patch.framed(1, width)
    more += patch.positions(1, width) * matrix.shape[-1]
    scratch_bytes, scratch, team = _scratch(
        8 * (frame + 1) + x.element_size() * (2 * frame * channels + more) + 4 * frame * channels
    )
    words = [*_geometry(patch, x, len(weight), len(matrix)), *out.stride()]
    words += [t.data_ptr() for t in (x, matrix, first, out, scratch)]
    _convolution_kernel("forward", dtype_name(x.dtype), pooling).run_words([*words, scratch_bytes, *rest], team)


def input_gradient(grad: Tensor, weight: Tensor, like: Tensor, patch: Patch) -> Tensor:
    """The gradient of the input, laid out as the input `like`, from that of the result; all finite."""
    _, channels, height, width = like.shape
    count, _, reach = patch.bands
    cut = weight.permute(2, 3, 0, 1).reshape(count, -1, len(weight), channels).transpose(1, 2)
    matrix = torch.stack([packed(band.reshape(len(weight), -1)).panels for band in cut])
    beyond = whole_panels(reach * channels, like)
    dx = torch.empty_like(like)
    last = _channels_last(grad)
    elements = patch.framed(0, height) * patch.framed(1, width) * channels + beyond + len(weight)
    scratch_bytes, scratch, team = _scratch(elements * like.element_size() + 4 * len(weight))
    words = _geometry(patch, dx, len(weight), 0)
    words += [t.data_ptr() for t in (last, matrix, dx, scratch)]
    _convolution_kernel("input", dtype_name(like.dtype)).run_words([*words, scratch_bytes], team)
    return dx


def weight_gradient(x: Tensor, grad: Tensor, patch: Patch) -> Tensor:
    """The gradient [K, C, kh, kw] of the weight from the input and the gradient of the result, which is finite."""
    images, channels, height, width = x.shape
    (count, rows, columns), wide = (grad.shape[1], *grad.shape[2:]), whole_panels(grad.shape[1], x)
    last = torch.nn.functional.pad(_channels_last(grad), (0, wide - count)) if wide > count else _channels_last(grad)
    out = x.new_zeros((*patch.kernel, channels, wide))
    chunk = max(1, min(images, CHUNK_BYTES // (rows * columns * wide * x.element_size())))
    most = chunk * height * width + 1
    meeting = patch.meeting_rows(height), patch.meeting_columns(width)
    scratch_bytes, scratch, team = _scratch(8 * (2 * height + 2 + 2 * most) + (2 * x.element_size() + 4) * most)
    words = [images, rows * columns * count * channels, 0, channels, height, width, *x.stride(), *patch.kernel]
    words += [patch.stride[0], chunk, rows, columns, wide // whole_panels(1, x)]
    words += [t.data_ptr() for t in (*meeting, x, last, out, scratch)]
    _convolution_kernel("weight", dtype_name(x.dtype)).run_words([*words, scratch_bytes], team)
    return out[..., :count].permute(3, 2, 0, 1).contiguous()


def over_pixels(images: Tensor) -> Tensor:
    """The sum of [N, C, H, W] over all but the channels."""
    return column_sums(_channels_last(images).view(-1, images.shape[1]))


def _channels_last(images: Tensor) -> Tensor:
    """[N, C, H, W] as contiguous [N, H, W, C]."""
    return images.permute(0, 2, 3, 1).contiguous()


def _scratch(size: int) -> tuple[int, Tensor, int]:
    """Bytes of scratch memory per thread, a whole number of cache lines, that of all threads, and how many they are."""
    size = -(-size // LINE) * LINE
    return size, *openmp.scratch(size)
