"""A pool that reuses the memory of large results.

The system maps new memory page by page, which takes longer than the kernels that write it (Leaky at [4000, 16, 512],
forward and backward: 14 us per step in new memory, 8 us in reused memory). So when the last tensor of a large result is
deleted, the pool stores its block for the next result of the same size.

If results keep changing size, blocks that fit none of them are released, so that all blocks together never exceed the
memory that was in use at one time by more than `pool_spare`.

`trim` returns the free pages of the C library's heap to the system. glibc does not fill a hole again by an aligned
request of the same size once a small allocation is next to it. So a heap in which small objects outlive large ones, as
the nodes of a graph outlive the results of layers, grows with every large one: unrolling a network in chunks took
172 MB at 69 MB of tensors, and 90 MB with `trim`.
"""

import ctypes
import math
import mmap
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import tuning

Block = Any  # an array of bytes

_unused: dict[int, Block] = {}  # by address, oldest first; each operation on it is one step of the interpreter


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Uninitialized memory, as of `torch.empty`: not a view, so the caller may write to it in place."""
    size = math.prod(shape) * like.element_size()
    if size < tuning.limits.pool_from or not like.is_cpu:  # torch reuses memory on a GPU itself
        return torch.empty(tuple(shape), dtype=like.dtype, device=like.device)
    block = _take(size)
    if block is None:
        release(tuning.limits.pool_spare)
        block = _fresh(size)
    alias = block[:]
    # torch references this array as long as any tensor uses its memory
    weakref.finalize(alias, _give_back, block).atexit = False
    memory = torch.from_numpy(alias).view(like.dtype).view(tuple(shape)).detach()
    if torch.are_deterministic_algorithms_enabled() and torch.utils.deterministic.fill_uninitialized_memory:  # type: ignore[attr-defined]
        unlikely = math.nan if memory.is_floating_point() else torch.iinfo(memory.dtype).max
        memory.fill_(unlikely)  # as `torch.empty` does, so that a read before a write is seen
    return memory


def empty_like(like: Tensor) -> Tensor:
    """Return pooled memory in the shape of a contiguous tensor."""
    return empty(like.shape, like)


def images(shape: Sequence[int], like: Tensor, channels_last: bool) -> Tensor:
    """Return pooled memory for images [N, C, H, W], also in the channels-last format."""
    if not channels_last:
        return empty(shape, like)
    count, channels, height, width = shape
    return empty((count, height, width, channels), like).permute(0, 3, 1, 2).detach()


def release(remaining: int = 0) -> None:
    """Release unused blocks, the oldest first, until at most the given number of bytes remains."""
    blocks = list(_unused.items())
    surplus = sum(len(block) for _, block in blocks) - remaining
    for address, block in blocks:
        if surplus > 0:
            surplus -= len(block)
            _unused.pop(address, None)


def _take(size: int) -> Block | None:
    fitting = [address for address, block in list(_unused.items()) if len(block) == size]
    taken = (_unused.pop(address, None) for address in reversed(fitting))  # another thread may have removed it
    return next((block for block in taken if block is not None), None)


def _give_back(block: Block) -> None:
    _unused[block.ctypes.data] = block
    release(tuning.limits.pool_most)


def _fresh(size: int) -> Block:
    """A block from the system, in huge pages if available. A block of the C library's heap might not be returned
    completely, because of other allocations in between."""
    if sys.platform == "win32":
        return np.empty(size, dtype=np.uint8)
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"the system has no {size} bytes of memory for a result") from error
    if sys.platform == "linux":
        with suppress(OSError):  # a kernel built without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.uint8)


_next = 0.0  # by the clock of perf_counter


def trim() -> None:
    """Return free pages of the heap to the system. Has no effect without glibc."""
    malloc_trim = _malloc_trim()
    if malloc_trim is not None:
        malloc_trim(0)


@cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim if sys.platform == "linux" else None
    except (OSError, AttributeError):
        return None


def trim_now_and_then() -> None:
    """Trim, unless the last call was too recent, relative to its duration."""
    global _next
    begin = perf_counter()
    if begin >= _next:
        trim()
        end = perf_counter()
        _next = end + tuning.limits.trim_share * (end - begin)
