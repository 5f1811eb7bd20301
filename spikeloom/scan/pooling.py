"""Pooling of images on the CPU: the kernels, run. Images are [N, C, H, W]; results lie in memory as they do."""

from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from . import arena, threads
from .emit_numba import word_of
from .emit_pooling import Pooling, emit_pooling
from .numba_module import compiled

Pair = tuple[int, int]


@cache
def _kernel(pooling: Pooling, backward: bool) -> threads.Entry:
    return compiled(partial(emit_pooling, pooling, backward))


def pooled(x: Tensor, kind: str, window: Pair, stride: Pair) -> tuple[Tensor, Tensor]:
    """The "maximum" or "average" of each window, [N, C, H', W'].

    The second is, for a maximum, which value of its window each is, counted row by row, in bytes; else it is empty.
    """
    channels_last = outline(x).channels_last
    x = _laid(x, channels_last)
    rows, columns = ((size - w) // s + 1 for size, w, s in zip(x.shape[2:], window, stride, strict=True))
    shape = (*x.shape[:2], rows, columns)
    out = arena.images(shape, x, channels_last)
    count = out.numel() if kind == "maximum" else 0
    places = arena.empty((count,), torch.empty(0, dtype=torch.uint8, device="cpu"))
    pooling = Pooling(kind, window, stride, channels_last, word_of(x.dtype))
    _run(pooling, False, x, out, places)
    return out, places


@dataclass(frozen=True)
class Outline:
    """What a backward knows of the images that were pooled: their shape, and whether channels are last in memory."""

    shape: tuple[int, ...]
    channels_last: bool


def outline(x: Tensor) -> Outline:
    """That of images [N, C, H, W]."""
    return Outline(tuple(x.shape), not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last))


def pooled_gradient(grad: Tensor, places: Tensor, like: Outline, kind: str, window: Pair, stride: Pair) -> Tensor:
    """The gradient of the input, laid out as that was, from that of the result."""
    channels_last = like.channels_last
    dx = arena.images(like.shape, grad, channels_last)
    pooling = Pooling(kind, window, stride, channels_last, word_of(grad.dtype))
    _run(pooling, True, dx, _laid(grad, channels_last), places)
    return dx


def _run(pooling: Pooling, backward: bool, x: Tensor, out: Tensor, places: Tensor) -> None:
    images, channels, height, width = x.shape
    if not pooling.channels_last:
        images, channels = images * channels, 1
    sizes = [images, x.numel() // max(1, images), 0, height, width, channels, *out.shape[2:]]
    addresses = [t.data_ptr() for t in (x, out, *([places] if pooling.kind == "maximum" else []))]
    _kernel(pooling, backward).run([*sizes, *addresses])


def _laid(x: Tensor, channels_last: bool) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
