"""Convolutions of images that are mostly zeros, such as spikes: the result, and the gradients of weight and input.

Images are [N, C, H, W] in any memory format. The memory format of the result is torch's: channels last if the input or
the weight is.

A patch of the input is cut into bands, runs of the channels of `reach` neighboring pixels that are contiguous in memory
in an image with channels last: one per row of the patch or, if it is dilated along a row, one per pixel. Each band is
a part of a matrix product (see `microkernels`), which adds up only the rows that belong to nonzero values.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..jit import buffer_pool, sum_to
from ..tuning import shapes
from .csr import pack_panels, padded, whole_panels
from .kernel import row_kernel
from .pooling import Pair, lies_channels_last

PATCH = """kernel_down, kernel_across, stride_down, stride_across, dilation_down, dilation_across, padding_down,
    padding_across, height, width, out_height, out_width, out_channels,
    image_step, channel_step, row_step, pixel_step"""
"""Arguments of all: the steps are the strides of the images, in elements."""

FRAME = """
    down, across = height + 2 * padding_down, width + 2 * padding_across
    reach = kernel_across if dilation_across == 1 else 1
    line, run = across * channels, reach * channels"""

_forward = row_kernel(
    "convolution of a mostly zero input",
    f"images, channels, {PATCH}, to_image, to_channel, to_row, to_pixel, x*, matrix*, bias*, out*, scratch",
    FRAME
    + """
    starts = scratch
    frame = starts + 8 * (down * across + 1)
    values = frame + SIZE * down * line
    sums = values + SIZE * down * line
    active = sums + SIZE * out_width * PANEL
    for i in range(down * line):
        store(frame, i, R(0))
    for n in range(low, high):
        for i in range(height):
            for j in range(width):
                pixel = frame + SIZE * ((i + padding_down) * line + (j + padding_across) * channels)
                for c in range(channels):
                    store(pixel, c, load(x, n * image_step + c * channel_step + i * row_step + j * pixel_step))
        found = 0
        for i in range(down):
            e, end = found, found + collect(frame + SIZE * i * line, line, active + 4 * found, values + SIZE * found)
            for j in range(across):
                while e < end and short(active, e) < j * channels:
                    e += 1
                store_word(starts, i * across + j, e)
            found = end
        store_word(starts, down * across, found)
        for i in range(out_height):
            for p in range(0, out_channels, PANEL):
                for j in range(out_width):
                    copy(bias + SIZE * p, PANEL, sums + SIZE * j * PANEL)
                for a in range(kernel_down):
                    row = i * stride_down + a * dilation_down
                    for b in range(0, kernel_across, reach):
                        band = matrix + SIZE * (p * kernel_down + a * PANEL) * kernel_across * channels
                        for j in range(out_width):
                            pixel = j * stride_across + b * dilation_across
                            first = word(starts, row * across + pixel)
                            many = word(starts, row * across + pixel + reach) - first
                            if many > 0:
                                begin, to = band + SIZE * (b - pixel) * channels * PANEL, sums + SIZE * j * PANEL
                                listed(values + SIZE * first, 1, active + 4 * first, many, begin, PANEL, to)
                for j in range(out_width):
                    to = out + SIZE * (n * to_image + p * to_channel + i * to_row + j * to_pixel)
                    for k in range(min(PANEL, out_channels - p)):
                        store(to, k * to_channel, load(sums, j * PANEL + k))""",
)
"""out[n, i, j] = bias + sum over bands of patch @ matrix [panels, kernel_down * kernel_across * channels, PANEL]."""

_input_gradient = row_kernel(
    "convolution, the gradient of a mostly zero input",
    f"images, channels, {PATCH}, grad*, matrix*, dx*, scratch",
    FRAME
    + """
    wide = (run + PANEL - 1) // PANEL
    values = scratch + SIZE * (down * line + wide * PANEL)
    active = values + SIZE * out_channels
    for n in range(low, high):
        for i in range(down * line + wide * PANEL):
            store(scratch, i, R(0))
        for i in range(out_height):
            for j in range(out_width):
                pixel = grad + SIZE * ((n * out_height + i) * out_width + j) * out_channels
                many, band = collect(pixel, out_channels, active, values), matrix
                for a in range(kernel_down if many > 0 else 0):
                    row = scratch + SIZE * (i * stride_down + a * dilation_down) * line
                    for b in range(0, kernel_across, reach):
                        to = row + SIZE * (j * stride_across + b * dilation_across) * channels
                        for p in range(wide):
                            listed(values, 1, active, many, band, PANEL, to + SIZE * p * PANEL)
                            band += SIZE * out_channels * PANEL
        for i in range(height):
            for j in range(width):
                pixel = scratch + SIZE * ((i + padding_down) * line + (j + padding_across) * channels)
                for c in range(channels):
                    store(dx, n * image_step + c * channel_step + i * row_step + j * pixel_step, load(pixel, c))""",
)
"""Each nonzero value of grad [n, i, j, out_channels] adds its rows of matrix [bands, wide, out_channels, PANEL] to the
patch that it came from. Values beyond a band are zero."""

_weight_gradient = row_kernel(
    "convolution, the gradient of the weight from a mostly zero input",
    f"channels, images, chunk, {PATCH}, x*, columns*, grad*, out*, scratch",
    """
    most, wide = chunk * height * width + 1, (out_channels + PANEL - 1) // PANEL * PANEL
    begins = scratch
    firsts = begins + 8 * (height + 1)
    places = firsts + 8 * (height + 1)
    found = places + 8 * 2 * most
    values = found + SIZE * most
    active = values + SIZE * most
    for start in range(0, images, chunk):
        count = min(chunk, images - start)
        for c in range(low, high):
            seen, position = 0, 0
            for rest in range(stride_down):
                for i in range(rest, height, stride_down):
                    store_word(begins, position, seen)
                    position += 1
                    for n in range(count):
                        row = x + SIZE * ((start + n) * image_step + c * channel_step + i * row_step)
                        for j in range(width):
                            value = load(row, j * pixel_step)
                            store_word(places, 2 * seen, j)
                            store_word(places, 2 * seen + 1, (n * out_height + i // stride_down) * out_width)
                            store(found, seen, value)
                            seen += value != 0
            store_word(begins, height, seen)
            for b in range(kernel_across):
                filled = 0
                for r in range(height):
                    store_word(firsts, r, filled)
                    for e in range(word(begins, r), word(begins, r + 1)):
                        column = word(columns, b * width + word(places, 2 * e))
                        store_short(active, filled, np.int32(word(places, 2 * e + 1) + column))
                        store(values, filled, load(found, e))
                        filled += column >= 0
                store_word(firsts, height, filled)
                for a in range(kernel_down):  # uses the rows at a distance of whole strides from its offset
                    offset = a * dilation_down - padding_down
                    rest, above = offset % stride_down, offset // stride_down
                    top, bottom = max(0, -above), min(out_height, (height - 1 - offset) // stride_down + 1)
                    before = rest * (height // stride_down) + min(rest, height % stride_down) + above
                    if top < bottom:
                        first = word(firsts, before + top)
                        many = word(firsts, before + bottom) - first
                        pixel = (start * out_height - above) * out_width
                        to = out + SIZE * ((a * kernel_across + b) * channels + c) * wide
                        for p in range(0, wide, PANEL):
                            block, own = grad + SIZE * (pixel * wide + p), values + SIZE * first
                            listed(own, 1, active + 4 * first, many, block, wide, to + SIZE * p)""",
)
"""out[a, b, c] += sum over active inputs of value * the row of grad [n, out_height, out_width, wide] at its position.

For each channel, active inputs of a few images are listed row by row; rows that are whole strides apart follow each
other, since those that meet row a of the kernel are then one run."""


@dataclass(frozen=True)
class Patch:
    """The geometry of a convolution: its kernel size, and the options of torch.nn.Conv2d of these names."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Pair

    @property
    def reach(self) -> int:
        """The number of pixels of a band."""
        return self.kernel[1] if self.dilation[1] == 1 else 1

    def framed(self, height: int, width: int) -> int:
        """The number of pixels of an image with its padding."""
        return (height + 2 * self.padding[0]) * (width + 2 * self.padding[1])

    def result(self, x: Tensor, weight: Tensor) -> tuple[int, int, int, int]:
        """The shape of the result, for images and weight."""
        down, across = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, dilation, padding in zip(
                x.shape[2:], self.kernel, self.stride, self.dilation, self.padding, strict=True
            )
        )
        return len(x), len(weight), down, across

    def arguments(self, x: Tensor, out: tuple[int, ...]) -> dict[str, int]:
        """PATCH, for images and the shape of the result."""
        images, channels, height, width = x.shape
        given = {"images": images, "channels": channels, "height": height, "width": width}
        given |= {"out_channels": out[1], "out_height": out[2], "out_width": out[3]}
        given |= zip(("image_step", "channel_step", "row_step", "pixel_step"), x.stride(), strict=True)
        for name in ("kernel", "stride", "dilation", "padding"):
            given[f"{name}_down"], given[f"{name}_across"] = getattr(self, name)
        return given

    def columns(self, width: int, out_width: int) -> Tensor:
        """The column of the result for each column of the kernel and of the image; -1 if there is none."""
        offsets = torch.arange(self.kernel[1], device="cpu")[:, None] * self.dilation[1]
        moved = torch.arange(width, device="cpu") + self.padding[1] - offsets
        place, rest = moved // self.stride[1], moved % self.stride[1]
        return torch.where((rest == 0) & (place >= 0) & (place < out_width), place, -1)


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, patch: Patch) -> Tensor:
    """The convolution of [N, C, H, W] with [K, C, kh, kw], all finite: [N, K, H', W']."""
    shape = patch.result(x, weight)
    out = buffer_pool.images(shape, x, lies_channels_last(x) or lies_channels_last(weight))
    matrix = pack_panels(weight.permute(2, 3, 1, 0).reshape(-1, len(weight))).panels
    frame = patch.framed(*x.shape[2:])
    sizes = patch.arguments(x, shape) | {"size": math.prod(shape[1:]) * x.shape[1]}
    sizes |= zip(("to_image", "to_channel", "to_row", "to_pixel"), out.stride(), strict=True)
    values = 2 * frame * x.shape[1] + shape[3] * matrix.shape[2]
    sizes["scratch"] = 8 * (frame + 1) + x.element_size() * values + 4 * frame * x.shape[1]
    _forward(x.dtype)(**sizes, x=x, matrix=matrix, bias=padded(bias, matrix), out=out)
    return out


def input_gradient(grad: Tensor, weight: Tensor, like: Tensor, patch: Patch) -> Tensor:
    """The gradient of the input, laid out as the input `like`, from that of the result; all finite."""
    outputs, channels = weight.shape[:2]
    bands = weight.permute(2, 3, 0, 1).reshape(-1, patch.reach, outputs, channels).transpose(1, 2)
    matrix = torch.stack([pack_panels(band.reshape(outputs, -1)).panels for band in bands])
    dx = torch.empty_like(like)
    values = patch.framed(*like.shape[2:]) * channels + whole_panels(patch.reach * channels, like) + outputs
    sizes = patch.arguments(dx, grad.shape) | {"size": grad[0].numel() * channels}
    sizes["scratch"] = values * like.element_size() + 4 * outputs
    _input_gradient(dx.dtype)(**sizes, grad=_channels_last(grad), matrix=matrix, dx=dx)
    return dx


def weight_gradient(x: Tensor, grad: Tensor, patch: Patch) -> Tensor:
    """The gradient [K, C, kh, kw] of the weight from the input and the gradient of the result, which is finite."""
    images, channels, height, width = x.shape
    count, wide = grad.shape[1], whole_panels(grad.shape[1], x)
    last = torch.nn.functional.pad(_channels_last(grad), (0, wide - count)) if wide > count else _channels_last(grad)
    out = x.new_zeros((*patch.kernel, channels, wide))
    chunk = max(1, min(images, shapes.gradient_chunk_bytes // last[0].nbytes))
    most = chunk * height * width + 1
    sizes = patch.arguments(x, grad.shape) | {"size": grad.numel(), "chunk": chunk}
    sizes["scratch"] = 8 * (2 * height + 2 + 2 * most) + (2 * x.element_size() + 4) * most
    columns = patch.columns(width, grad.shape[3])
    _weight_gradient(x.dtype)(**sizes, x=x, columns=columns, grad=last, out=out)
    return out[..., :count].permute(3, 2, 0, 1).contiguous()


def over_pixels(images: Tensor) -> Tensor:
    """The sum of [N, C, H, W] over all but the channels, the same for any number of threads."""
    rows = _channels_last(images).view(-1, images.shape[1])
    return sum_to(rows, rows[0])


def _channels_last(images: Tensor) -> Tensor:
    """[N, C, H, W] as contiguous [N, H, W, C]."""
    return images.permute(0, 2, 3, 1).contiguous()
