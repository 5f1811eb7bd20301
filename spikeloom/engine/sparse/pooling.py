"""Pooling of images [N, C, H, W] on the CPU, with windows within the image, and the gradient of the input.

Either the pixels or the channels of an image are adjacent in memory. For a line of neighboring results, each value of
the windows is then a line in memory, which the compiler processes by vector instructions. So the sizes of windows and
strides are constants of the source. Results have the memory format of the images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from textwrap import indent

import torch
from torch import Tensor

from ..jit import buffer_pool
from .kernel import row_kernel

BODY = """    for n in range(low, high):
        image = x + SIZE * n * height * width * channels
        for m in range({cleared}):
            store(image, m, R(0))
        for i in range(out_height):
            for j in range({outer}):
                window = image + SIZE * (i * {down} * width + j * {across}) * channels
                first = ((n * out_height + i) * {outer} + j) * {inner}
                for m in range({inner}):
                    at = m * {step}
{body}"""

Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """The windows of the pooling, within the image.

    Args:
        kind: "maximum" or "average".
        size: rows and columns of a window.
        stride: the distance between windows, down and across.
    """

    kind: str
    size: Pair
    stride: Pair

    def result(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """The shape of the result, for that of the images."""
        images, channels, *size = shape
        rows, columns = ((n - w) // s + 1 for n, w, s in zip(size, self.size, self.stride, strict=True))
        return images, channels, rows, columns


def _pooling_lines(windows: Windows) -> str:
    """Lines that write result `first + m`, and its place in the window, where a result goes through `at`."""
    first, *others = _taps(windows)
    if windows.kind == "average":
        body = [f"total = load(window, {first})", *(f"total += load(window, {tap})" for tap in others)]
        body += [f"store(out, first + m, total / R({1 + len(others)}))"]
    else:  # the first of the largest values, or the last NaN, as in torch
        body = [f"best, place = load(window, {first}), R(0)"]
        for k, tap in enumerate(others, 1):
            body += [f"value = load(window, {tap})", "taken = value > best or value != value"]
            body += [f"best, place = value if taken else best, R({k}) if taken else place"]
        body += ["store(out, first + m, best)", "store_byte(places, first + m, np.uint8(place))"]
    return indent("\n".join(body), " " * 20)


def _gradient_lines(windows: Windows) -> str:
    """Lines that give each value of a window the gradient of the result; added up where windows overlap."""
    taps = _taps(windows)
    values = ["grad"] * len(taps)
    body = [f"grad = load(out, first + m) / R({len(taps)})"]
    if windows.kind == "maximum":
        values = [f"(grad if place == R({k}) else R(0))" for k in range(len(taps))]
        body = ["grad, place = load(out, first + m), R(byte(places, first + m))"]
    apart = all(stride >= size for stride, size in zip(windows.stride, windows.size, strict=True))
    for tap, value in zip(taps, values, strict=True):
        body.append(f"store(window, {tap}, {value if apart else f'load(window, {tap}) + {value}'})")
    return indent("\n".join(body), " " * 20)


def _taps(windows: Windows) -> list[str]:
    """The offsets of the values of a window, row by row."""
    rows, columns = windows.size
    return [f"at + ({a} * width + {b}) * channels" for a in range(rows) for b in range(columns)]


@cache
def _kernel(windows: Windows, channels_last: bool, backward: bool) -> Callable[[torch.dtype], Callable[..., None]]:
    down, across = windows.stride
    outer, inner, step = ("out_width", "channels", 1) if channels_last else (1, "out_width", across)
    return row_kernel(
        f"{'gradient of the ' if backward else ''}{windows.kind} of windows",
        "images, height, width, channels, out_height, out_width, x*, out*, places*",
        BODY.format(
            cleared="height * width * channels" if backward else 0,
            outer=outer,
            inner=inner,
            step=step,
            down=down,
            across=across,
            body=_gradient_lines(windows) if backward else _pooling_lines(windows),
        ),
    )


def lies_channels_last(images: Tensor) -> bool:
    """Whether the channels are last in memory; a single channel has the layout of its stride."""
    pixels = images.shape[2:].numel()
    return images.stride(1) == 1 < pixels and images.is_contiguous(memory_format=torch.channels_last)


def pooled(x: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The maximum or average of each window, [N, C, H', W'].

    The second result is, for a maximum, its index in the window, row by row, in bytes; otherwise it is empty.
    """
    channels_last, shape = lies_channels_last(x), windows.result(x.shape)
    out, count = buffer_pool.images(shape, x, channels_last), shape if windows.kind == "maximum" else (*shape[:3], 0)
    places = buffer_pool.images(count, torch.empty(0, dtype=torch.uint8, device="cpu"), channels_last)
    _run(windows, channels_last, False, _laid(x, channels_last), out, places)
    return out, places


def pooled_gradient(
    grad: Tensor, places: Tensor, shape: Sequence[int], windows: Windows, channels_last: bool
) -> Tensor:
    """The gradient of images of a shape from the gradient of the result, in the given memory format."""
    dx = buffer_pool.images(shape, grad, channels_last)
    _run(windows, channels_last, True, dx, _laid(grad, channels_last), _laid(places, channels_last))
    return dx


def _run(windows: Windows, channels_last: bool, backward: bool, x: Tensor, out: Tensor, places: Tensor) -> None:
    images, channels, height, width = x.shape
    if not channels_last:
        images, channels = images * channels, 1
    sizes = {"images": images, "size": height * width * channels, "height": height, "width": width}
    sizes |= {"channels": channels, "out_height": out.shape[2], "out_width": out.shape[3]}
    _kernel(windows, channels_last, backward)(x.dtype)(**sizes, x=x, out=out, places=places)


def _laid(x: Tensor, channels_last: bool) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
