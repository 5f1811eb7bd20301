"""Memory for large results, used again.

The system hands out fresh memory page by page, and filling 48 MB of it takes longer than the kernels that write it
(Leaky at [500, 16, 512], forward and backward: 8.7 ms with fresh memory, 4 ms with memory used before). So the block
behind a large result is kept when the last tensor on it dies, and given to the next result of the same size.
"""

import math
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST = 1 << 20
"""Bytes from which a block is worth keeping; below, the C library's own reuse is as good."""

KEPT = 256 << 20
"""Bytes of unused blocks that are kept at most; the oldest go first."""

_unused: dict[int, Tensor] = {}  # by address, oldest first; each operation on it is one step of the interpreter


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Uninitialised memory, as `torch.empty` gives it."""
    size = math.prod(shape) * like.element_size()
    if size < SMALLEST:
        return torch.empty(tuple(shape), dtype=like.dtype)
    block = _take(size)
    if block is None:
        block = torch.empty(size, dtype=torch.uint8)
    lent = block.numpy()
    # torch holds this very array for as long as any tensor lives on its memory
    weakref.finalize(lent, _give_back, block).atexit = False
    memory = torch.from_numpy(lent).view(like.dtype).view(tuple(shape))
    if torch.are_deterministic_algorithms_enabled() and torch.utils.deterministic.fill_uninitialized_memory:  # type: ignore[attr-defined]
        memory.fill_(math.nan)  # as `torch.empty` does, so that a read before a write is seen
    return memory


def images(shape: Sequence[int], like: Tensor, channels_last: bool) -> Tensor:
    """The same for images [N, C, H, W], which may have their channels last in memory."""
    if not channels_last:
        return empty(shape, like)
    count, channels, height, width = shape
    return empty((count, height, width, channels), like).permute(0, 3, 1, 2)


def _take(size: int) -> Tensor | None:
    fitting = [address for address, block in list(_unused.items()) if block.numel() == size]
    taken = (_unused.pop(address, None) for address in reversed(fitting))  # another thread may be faster
    return next((block for block in taken if block is not None), None)


def _give_back(block: Tensor) -> None:
    _unused[block.data_ptr()] = block
    blocks = list(_unused.items())
    surplus = sum(block.numel() for _, block in blocks) - KEPT
    for address, block in blocks:
        if surplus > 0:
            surplus -= block.numel()
            _unused.pop(address, None)
