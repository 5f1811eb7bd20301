"""Tensors of zeros and ones, such as spikes, as one bit per value: a thirty-second of their memory in float32."""

from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from ..graph import dtype_name
from ..jit import buffer_pool, compiled, module_source, openmp

ONES = {torch.float32: 0x3F800000, torch.float64: 0x3FF0000000000000}
"""The bits of 1.0; those of 0.0 are all zero."""

WIDTH = 64
"""Words of bits in a block. A block lies there so that a vector of words takes a vector of values: value number
j * WIDTH + k of it is a bit of word k."""

BLOCK = 64 * WIDTH
"""Values in a block."""

WORDS = ("steps", "size", "team", "values", "bits", "found")
"""Arguments of both kernels: values in a block, blocks, and where a thread says that it found other values."""

SHARE = """    for i in range(me * size // threads, (me + 1) * size // threads):
        start = i * {width}
"""

PACK = """        other = types.int64(0)
        for k in range({width}):
            store_word(bits, start + k, 0)
        for j in range({words}):
            at = (i * {words} + j) * {width}
            for k in range({width}):
                value = word(values, at + k)
                some = {some}
                store_word(bits, start + k, word(bits, start + k) | some << j * {per_word})
                other |= value ^ ({value})
        if other != 0 or word(found, 0) != 0:
            store_word(found, 0, 1)
            break"""

UNPACK = """        for j in range({words}):
            at = (i * {words} + j) * {width}
            for k in range({width}):
                some = word(bits, start + k) >> j * {per_word}
                store_word(values, at + k, {value})"""


@dataclass(frozen=True)
class Bits:
    """A tensor as bits.

    Args:
        words: 64 values each.
        rest: the values after the last whole block, as they are.
        shape: of the tensor.
        strides: of the tensor, whose memory has no gaps.
    """

    words: Tensor
    rest: Tensor
    shape: torch.Size
    strides: tuple[int, ...]


def packed(x: Tensor) -> Bits | None:
    """A tensor on the CPU as bits; None if it is of another dtype or layout, or if any value is neither 0 nor 1.

    -0.0 is neither: what `unpacked` gives is the same to the last bit.
    """
    if x.dtype not in ONES or not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
        return None
    flat = x.detach().as_strided((x.numel(),), (1,))
    blocks = len(flat) // BLOCK
    words = torch.empty(WIDTH * blocks, dtype=torch.int64, device="cpu")
    found = torch.zeros(1, dtype=torch.int64, device="cpu")
    _bits_kernel(x.dtype, PACK).run_words([BLOCK, blocks, 0, flat.data_ptr(), words.data_ptr(), found.data_ptr()])
    return None if found.item() else Bits(words, flat[BLOCK * blocks :].clone(), x.shape, x.stride())


def unpacked(bits: Bits) -> Tensor:
    """The tensor, in fresh memory."""
    blocks = len(bits.words) // WIDTH
    flat = buffer_pool.empty((BLOCK * blocks + len(bits.rest),), bits.rest)
    _bits_kernel(flat.dtype, UNPACK).run_words([BLOCK, blocks, 0, flat.data_ptr(), bits.words.data_ptr(), 0])
    flat[BLOCK * blocks :] = bits.rest
    return flat.as_strided(bits.shape, bits.strides)


@cache
def _bits_kernel(dtype: torch.dtype, body: str) -> openmp.Kernel:
    return compiled(partial(_source, dtype, body))


def _source(dtype: torch.dtype, body: str, team: bool, cached: bool) -> str:
    """Memory is read in words of 64 bits: two values of float32, one of float64."""
    one, per_word = ONES[dtype], 8 // dtype.itemsize
    lowest = (one & -one).bit_length() - 1  # of those that are set in 1.0
    some, value = f"value >> {lowest} & 1", f"-(some & 1) & {one}"
    if per_word == 2:
        some += f" | (value >> {lowest + 32} & 1) << 1"
        value += f" | -(some >> 1 & 1) & {one << 32}"
    lines = (SHARE + body).format(words=64 // per_word, per_word=per_word, width=WIDTH, some=some, value=value)
    title = "Zeros and ones to bits." if body is PACK else "Bits to zeros and ones."
    imports = "from spikeloom.engine.jit.intrinsics import store_word\n"
    return module_source(title, dtype_name(dtype), WORDS, lines, team, cached, imports)
