"""What an unrolled run saves for its backward, with spikes as bits.

A product or a convolution saves its input. Where that is spikes, float32 holds 32 times what they tell. So while a
network is unrolled, autograd hands over what it saves, and large tensors of zeros and ones are kept as bits, whoever
made them: a neuron, or a pooling layer after one. The backward gets the same values back, bit for bit. What a neuron
saves for itself stays as it is: a scan reads it once, and packing would take a third as long as the scan.

To pack and unpack takes as long as to read the values five times or so, which a narrow product feels: so the first
`pack_after` bytes of a run stay as they are.
"""

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
    """Within this context what autograd saves in the run is kept so.

    Nothing is changed where autograd saves nothing, or hands it to another, or where the run is too small.
    """
    if not torch.is_grad_enabled() or transformed() or not _may_pack(request) or numba_missing():
        return nullcontext()
    if not saved_hooks_allowed() or saved_hooks() is not None:
        return nullcontext()
    held = frozenset(_memory(x) for x in request.tensors() if type(x) is Tensor)
    return torch.autograd.graph.saved_tensors_hooks(_Keep(ref(unrolled), held, tuning.limits.pack_after), _recalled)


def _may_pack(request: Request) -> bool:
    """Whether layers on the CPU may save more than what stays as it is: an upper bound by the sizes of the weights."""
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
    """The hook that packs what autograd saves."""

    unrolled: "ref[UnrolledRun]"
    """The run. It holds the network, whose states hold what autograd saves, and that holds this hook: hence the ref."""
    held: frozenset[int]
    """Where tensors lie that someone else holds."""
    plain: int
    """How many bytes may still be saved as they are."""

    def __call__(self, x: Tensor) -> Any:
        unrolled = self.unrolled()
        large = x.nbytes >= tuning.limits.pool_from and unrolled is not None and not unrolled.at_work
        if large and type(x) is Tensor and x.device.type == "cpu" and _memory(x) not in self.held:
            if x.nbytes <= self.plain:
                self.plain -= x.nbytes
            elif (packed := pack_bits(x)) is not None:
                return packed
        return x.detach(), x._version  # with its graph it would hold itself


def _recalled(kept: Any) -> Tensor:
    if isinstance(kept, Bits):
        return unpack_bits(kept)
    x: Tensor
    x, version = kept
    if x._version != version:  # which torch does not compare where it hands over what it saves
        raise RuntimeError(CHANGED.format(shape=list(x.shape), now=x._version, then=version))
    return x


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


# -- tensors of zeros and ones as bits: a thirty-second of their memory in float32 ------------------------------------

ONE: dict[torch.dtype, Any] = {torch.float32: np.float32(1).view(np.int32), torch.float64: np.float64(1).view(np.int64)}
"""1.0 as an integer of the same bits; 0.0 is 0."""

PART = 1 << 18
"""Values that are compared, and then packed, at a time: what is between stays in the cache."""


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
    """The tensor, in fresh memory."""
    out = buffer_pool.empty((bits.shape.numel(),), torch.empty(0, dtype=bits.dtype, device="cpu"))
    values = out.numpy()
    for first in range(0, len(values), PART):
        part = values[first : first + PART]
        part[:] = np.unpackbits(bits.data[first // 8 : (first + PART) // 8], count=len(part))
    return out.as_strided(bits.shape, bits.strides)
