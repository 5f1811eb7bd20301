"""Tensors of zeros and ones, such as spikes, as one bit per value: a thirty-second of their memory in float32."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..jit import buffer_pool

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


def packed(x: Tensor) -> Bits | None:
    """A tensor on the CPU as bits; None if it is of another dtype or layout, or if any value is neither 0 nor 1.

    -0.0 is neither: what `unpacked` gives is the same to the last bit.
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


def unpacked(bits: Bits) -> Tensor:
    """The tensor, in fresh memory."""
    out = buffer_pool.empty((bits.shape.numel(),), torch.empty(0, dtype=bits.dtype, device="cpu"))
    values = out.numpy()
    for first in range(0, len(values), PART):
        part = values[first : first + PART]
        part[:] = np.unpackbits(bits.data[first // 8 : (first + PART) // 8], count=len(part))
    return out.as_strided(bits.shape, bits.strides)
