"""Save spike tensors for backward as bits during an unrolled run.

A product or a convolution saves its input. For spikes, float32 takes 32 times the memory of bits. So while a network is
unrolled, hooks on saved tensors store large tensors of zeros and ones as bits, whether a neuron or a pooling layer
after it created them. The backward unpacks the same values. Tensors that a neuron saves for its own scan are not
packed: the scan reads them once, and packing would take a third as long as the scan.

Packing and unpacking takes about as long as reading the values five times, which slows a narrow product noticeably. So
the first `pack_after` bytes of a run are saved unchanged.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from .._torch import saved_hooks, saved_hooks_allowed, transformed
from ..engine import tuning
from ..engine.jit import buffer_pool
from ..engine.run import numba_missing
from ..neurons._unrolled_run import UnrolledRun
from ._time_folding import Request

CHANGED = (
    "one of the variables needed for gradient computation has been modified by an inplace operation: a tensor of shape "
    "{shape} is at version {now}; expected version {then} instead"
)


def spikes_as_bits(unrolled: UnrolledRun, request: Request) -> AbstractContextManager[Any]:
    """A context in which autograd saves spike tensors as bits.

    It has no effect if autograd saves nothing, if other hooks on saved tensors are set, or if the run is too small.
    """
    if not torch.is_grad_enabled() or transformed() or not _may_pack(request) or numba_missing():
        return nullcontext()
    if not saved_hooks_allowed() or saved_hooks() is not None:
        return nullcontext()
    held = frozenset(_memory(x) for x in request.tensors() if type(x) is Tensor)
    return torch.autograd.graph.saved_tensors_hooks(_Keep(ref(unrolled), held, tuning.limits.pack_after), _recalled)


def packing(run: Any, held: Iterable[Tensor], saved: int) -> AbstractContextManager[Any] | None:
    """The context for the products of a run that saves about `saved` bytes; None if it would have no effect."""
    if saved <= tuning.limits.pack_after or numba_missing() or not saved_hooks_allowed() or saved_hooks() is not None:
        return None
    known = frozenset(_memory(x) for x in held)
    return torch.autograd.graph.saved_tensors_hooks(_Keep(ref(run), known, tuning.limits.pack_after), _recalled)


def _may_pack(request: Request) -> bool:
    """Whether layers on the CPU may save more than `pack_after` bytes: an upper bound from the sizes of the weights."""
    x = max(request.tensors(), key=Tensor.numel)
    if not x.is_cpu or not x.numel():
        return False
    rows = request.steps * request.batch
    values = area = x.numel() // (request.batch if request.static else rows)
    for module in request.names:
        for p in module._parameters.values():
            if isinstance(p, UninitializedParameter):
                return True
            if p is not None and p.dim() > 1:
                values += max(p.shape[:2]) * (area if p.dim() > 2 else 1)
    return rows * values * x.element_size() > tuning.limits.pack_after


@dataclass
class _Keep:
    """The hook that packs saved tensors."""

    unrolled: "ref[Any]"
    """The run, by weak reference: it holds the network, whose states hold the graph, which holds this hook."""
    held: frozenset[int]
    """Addresses of tensors that the caller holds anyway."""
    plain: int
    """Number of bytes that may still be saved unchanged."""

    def __call__(self, x: Tensor) -> Any:
        unrolled = self.unrolled()
        large = x.nbytes >= tuning.limits.pool_from and unrolled is not None and not unrolled.at_work
        if large and type(x) is Tensor and x.device.type == "cpu" and _memory(x) not in self.held:
            if x.nbytes <= self.plain:
                self.plain -= x.nbytes
            elif (packed := pack_bits(x)) is not None:
                return packed
        return x.detach(), x._version  # detached: with its graph it would hold itself


def _recalled(saved: Any) -> Tensor:
    if isinstance(saved, Bits):
        return unpack_bits(saved)
    x: Tensor
    x, version = saved
    if x._version != version:  # torch does not check versions if hooks are set
        raise RuntimeError(CHANGED.format(shape=list(x.shape), now=x._version, then=version))
    return x


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


# -- tensors of zeros and ones as bits: a thirty-second of their memory in float32 ------------------------------------

ONE: dict[torch.dtype, Any] = {torch.float32: np.float32(1).view(np.int32), torch.float64: np.float64(1).view(np.int64)}
"""1.0 as an integer of the same bits; 0.0 is 0."""

PART = 1 << 18
"""Values that are compared and then packed at a time, so that intermediate results stay in the cache."""


@dataclass(frozen=True)
class Bits:
    """A tensor, whose memory has no gaps, as bits, eight to a byte."""

    data: Any
    dtype: torch.dtype
    shape: torch.Size
    strides: tuple[int, ...]


def pack_bits(x: Tensor) -> Bits | None:
    """A tensor on the CPU as bits; None if it is of another dtype or layout, or if any value is neither 0 nor 1.

    -0.0 is neither: what `unpack_bits` gives is the same to the last bit.
    """
    if x.dtype not in ONE or not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
        return None
    values = x.detach().as_strided((x.numel(),), (1,)).numpy().view(ONE[x.dtype].dtype)
    data = np.empty(-(-len(values) // 8), dtype=np.uint8)
    for first in range(0, len(values), PART):
        part = values[first : first + PART]
        ones = part == ONE[x.dtype]
        if np.count_nonzero(ones) != np.count_nonzero(part):
            return None
        data[first // 8 : (first + PART) // 8] = np.packbits(ones)
    return Bits(data, x.dtype, x.shape, x.stride())


def unpack_bits(bits: Bits) -> Tensor:
    """The unpacked tensor, in new memory."""
    out = buffer_pool.empty((bits.shape.numel(),), torch.empty(0, dtype=bits.dtype, device="cpu"))
    values = out.numpy()
    for first in range(0, len(values), PART):
        part = values[first : first + PART]
        part[:] = np.unpackbits(bits.data[first // 8 : (first + PART) // 8], count=len(part))
    return out.as_strided(bits.shape, bits.strides)
