"""Pooling of images on the CPU: the kernels, run. Images are [N, C, H, W]; results lie in memory as they do."""

from collections.abc import Sequence
from functools import cache, partial

import torch
from torch import Tensor

from ..graph.variant import dtype_name
from ..jit import buffer_pool, openmp
from ..jit.numba_jit import compiled
from .pooling_source import Pooling, Windows, emit_pooling


@cache
def _kernel(pooling: Pooling, backward: bool) -> openmp.Entry:
    return compiled(partial(emit_pooling, pooling, backward))


def lies_last(x: Tensor) -> bool:
    """Whether results of images have their channels last in memory, as the images themselves."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def pooled(x: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The maximum or average of each window, [N, C, H', W'].

    The second is, for a maximum, which value of its window each is, counted row by row, in bytes; else it is empty.
    """
    channels_last = lies_last(x)
    out, places = room_for(windows.result(x.shape), x, windows, channels_last, channels_last)
    pool(x, windows, out, places, channels_last)
    return out, places


def room_for(
    shape: Sequence[int], like: Tensor, windows: Windows, channels_last: bool, places_last: bool
) -> tuple[Tensor, Tensor]:
    """Memory for both, each laid out with the channels last or not."""
    count = shape if windows.kind == "maximum" else (*shape[:3], 0)
    places = buffer_pool.images(count, torch.empty(0, dtype=torch.uint8, device="cpu"), places_last)
    return buffer_pool.images(shape, like, channels_last), places


def pool(x: Tensor, windows: Windows, out: Tensor, places: Tensor, channels_last: bool) -> None:
    """Write both to memory. The places lie with the channels last or not; the result may lie otherwise."""
    same = lies_last(out) == channels_last
    to = out if same else buffer_pool.images(out.shape, out, channels_last)
    _run(windows, channels_last, False, _laid(x, channels_last), to, places)
    if not same:
        out.copy_(to)


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
    _kernel(Pooling(windows, channels_last, dtype_name(x.dtype)), backward).run([*sizes, *addresses])


def _laid(x: Tensor, channels_last: bool) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
