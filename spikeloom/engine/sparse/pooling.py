"""Pooling of images [N, C, H, W] on the CPU, whose windows lie within the image, and the gradient of the input.

An image lies with its pixels, or with its channels, next to each other in memory. Planes of one channel are the first
kind, whatever they belong to. Either way a line of neighboring results takes each value of its windows from a line in
memory, which the compiler makes vector instructions of; so windows and strides are written into the source. Results lie
in memory as images do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from ..graph import dtype_name
from ..jit import buffer_pool, compiled, lines, module_source, openmp

WORDS = ["images", "size", "team", "height", "width", "channels", "out_height", "out_width"]
"""Arguments of all: `size` is what an image costs. With pixels next to each other `channels` is 1."""

ARGUMENTS = {"maximum": ("x", "out", "places"), "average": ("x", "out")}
"""Those of each kind beyond: where the input lies, the result, and, in bytes, which of its window each value is. In
the backward they are the gradients."""

BODY = """    part = (images + threads - 1) // threads
    for n in range(me * part, min(me * part + part, images)):
        image = x + SIZE * n * height * width * channels
{start}
        for i in range(out_height):
            for j in range({outer}):
                window = image + SIZE * (i * {down} * width + j * {across}) * channels
                first = ((n * out_height + i) * {outer} + j) * {inner}
                for m in range({inner}):
                    at = m * {step}
{body}"""

ZERO = """        for m in range(height * width * channels):
            store(image, m, R(0))"""


Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """What is pooled, within the image.

    Args:
        kind: "maximum" or "average".
        size: rows and columns of a window.
        stride: from a window to the next, down and across.
    """

    kind: str
    size: Pair
    stride: Pair

    def result(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """The shape of the result, for that of the images."""
        images, channels, *size = shape
        rows, columns = ((n - w) // s + 1 for n, w, s in zip(size, self.size, self.stride, strict=True))
        return images, channels, rows, columns


@dataclass(frozen=True)
class Pooling:
    """What a kernel is made for.

    Args:
        windows: what it pools.
        channels_last: whether the channels are next to each other in memory; else the pixels are.
        dtype: "float32" or "float64".
    """

    windows: Windows
    channels_last: bool
    dtype: str

    def taps(self, width: str = "width", channels: str = "channels") -> list[str]:
        """Where the values of a window lie, row by row, in an image of that width."""
        rows, columns = self.windows.size
        return [f"at + ({a} * {width} + {b}) * {channels}" for a in range(rows) for b in range(columns)]


def emit_pooling(pooling: Pooling, backward: bool, team: bool, cached: bool) -> str:
    """The source of the kernel of the result, or of that of the gradient of the input."""
    body = GRADIENTS[pooling.windows.kind](pooling) if backward else result_lines(pooling, pooling.taps())
    down, across = pooling.windows.stride
    outer, inner, step = ("out_width", "channels", 1) if pooling.channels_last else (1, "out_width", across)
    start = ZERO if backward else ""
    source = BODY.format(
        start=start, outer=outer, inner=inner, step=step, down=down, across=across, body=lines(body, 5)
    )
    imports = "from spikeloom.engine.jit.intrinsics import byte, store_byte\n"
    title = f"{'gradient of the ' if backward else ''}{pooling.windows.kind} of windows, {pooling.dtype}"
    words = [*WORDS, *ARGUMENTS[pooling.windows.kind]]
    return module_source(title, pooling.dtype, words, source, team, cached, imports)


def result_lines(pooling: Pooling, taps: list[str], out: str = "out") -> list[str]:
    """Lines that write one result, and its place, from the values of its window."""
    return (_maximum if pooling.windows.kind == "maximum" else _average)(taps, out)


def _maximum(taps: list[str], out: str) -> list[str]:
    """The first of the largest values, or the last NaN, as torch takes them."""
    first, *others = taps
    body = [f"best, place = load(window, {first}), R(0)"]
    for k, tap in enumerate(others, 1):
        body += [
            f"value = load(window, {tap})",
            "taken = value > best or value != value",
            f"best, place = value if taken else best, R({k}) if taken else place",
        ]
    return [*body, f"store({out}, first + m, best)", "store_byte(places, first + m, np.uint8(place))"]


def _average(taps: list[str], out: str) -> list[str]:
    body = [f"total = load(window, {taps[0]})", *(f"total += load(window, {tap})" for tap in taps[1:])]
    return [*body, f"store({out}, first + m, total / R({len(taps)}))"]


def _to_the_maximum(pooling: Pooling) -> list[str]:
    values = [f"grad if place == R({k}) else R(0)" for k in range(len(pooling.taps()))]
    return ["grad, place = load(out, first + m), R(byte(places, first + m))", *_spread(pooling, values)]


def _to_all(pooling: Pooling) -> list[str]:
    taps = pooling.taps()
    return [f"grad = load(out, first + m) / R({len(taps)})", *_spread(pooling, ["grad"] * len(taps))]


def _spread(pooling: Pooling, values: list[str]) -> list[str]:
    """Lines that give each value of a window its gradient; added up where windows overlap."""
    windows = pooling.windows
    apart = all(stride >= size for stride, size in zip(windows.stride, windows.size, strict=True))
    before = "{value}" if apart else "load(window, {tap}) + ({value})"
    pairs = zip(pooling.taps(), values, strict=True)
    return [f"store(window, {tap}, {before.format(tap=tap, value=value)})" for tap, value in pairs]


GRADIENTS = {"maximum": _to_the_maximum, "average": _to_all}
"""Lines for the gradient of one result, by kind."""


@cache
def _pooling_kernel(pooling: Pooling, backward: bool) -> openmp.Kernel:
    return compiled(partial(emit_pooling, pooling, backward))


def lies_channels_last(images: Tensor) -> bool:
    """Whether the channels are last in memory; one channel by itself lies as its stride says."""
    pixels = images.shape[2:].numel()
    return images.stride(1) == 1 < pixels and images.is_contiguous(memory_format=torch.channels_last)


def pooled(x: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The maximum or average of each window, [N, C, H', W'].

    The second is, for a maximum, which value of its window each is, counted row by row, in bytes; else it is empty.
    """
    channels_last = lies_channels_last(x)
    out, places = empty_results(windows.result(x.shape), x, windows, channels_last, channels_last)
    _run(windows, channels_last, False, _laid(x, channels_last), out, places)
    return out, places


def empty_results(
    shape: Sequence[int], like: Tensor, windows: Windows, channels_last: bool, places_last: bool
) -> tuple[Tensor, Tensor]:
    """Memory for both, each laid out with the channels last or not."""
    count = shape if windows.kind == "maximum" else (*shape[:3], 0)
    places = buffer_pool.images(count, torch.empty(0, dtype=torch.uint8, device="cpu"), places_last)
    return buffer_pool.images(shape, like, channels_last), places


def pooled_gradient(
    grad: Tensor, places: Tensor, shape: Sequence[int], windows: Windows, channels_last: bool
) -> Tensor:
    """The gradient of images of that shape from that of the result, laid out with the channels last or not."""
    dx = buffer_pool.images(shape, grad, channels_last)
    _run(windows, channels_last, True, dx, _laid(grad, channels_last), _laid(places, channels_last))
    return dx


def _run(windows: Windows, channels_last: bool, backward: bool, x: Tensor, out: Tensor, places: Tensor) -> None:
    images, channels, height, width = x.shape
    if not channels_last:
        images, channels = images * channels, 1
    sizes = [images, x.numel() // max(1, images), 0, height, width, channels, *out.shape[2:]]
    addresses = [t.data_ptr() for t in (x, out, *([places] if windows.kind == "maximum" else []))]
    _pooling_kernel(Pooling(windows, channels_last, dtype_name(x.dtype)), backward).run_words([*sizes, *addresses])


def _laid(x: Tensor, channels_last: bool) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
