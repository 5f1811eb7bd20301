"""Quantized states: a million values to 256 levels, compared with snnTorch and PyTorch."""

import torch
from torch import Tensor

from spikeloom.functional.quant import state_quant

from .result import Shape
from .runner import Case, Outcome, Run, installed

ROUNDED, BISECTED, PEER = "(x * 128).round() / 128", "torch.bucketize", "snnTorch, uniform"
OURS, OURS_APART = "spikeloom, uniform", "spikeloom, non-uniform"


def states(shape: Shape) -> Tensor:
    """Membranes around and beyond the uniform levels, none half-way between two levels."""
    draw = torch.Generator().manual_seed(1)
    low, above = state_quant(num_bits=8).levels()[:2]
    places = torch.randint(-50, 300, shape, generator=draw) + 0.9 * (torch.rand(shape, generator=draw) - 0.5)
    membranes: Tensor = low + places * (above - low)
    return membranes


def ours(x: Tensor, uniform: bool) -> Run:
    """spikeloom's quantizer at 8 bits."""
    q = state_quant(num_bits=8, uniform=uniform)
    return lambda: {"values": q(x)}


def peer(x: Tensor) -> Run:
    """snnTorch's quantizer, which compares every value with every level: a gigabyte for a million values."""
    theirs = installed("snntorch.functional.quant")
    q = theirs.state_quant(num_bits=8)
    return lambda: {"values": q(x)}


def rounded(x: Tensor) -> Run:
    """The minimum for quantization: three operations."""

    def run() -> Outcome:
        return {"values": (x * 128).round() / 128}

    return run


def bisected(x: Tensor) -> Run:
    """A search among the 255 boundaries of the non-uniform levels, without reading the levels."""
    levels = state_quant(num_bits=8, uniform=False).levels()
    boundaries = (levels[1:] + levels[:-1]) / 2
    return lambda: {"values": torch.bucketize(x, boundaries)}


QUANT = Case(
    name="quant",
    title="state_quant at 8 bits over N values, forward, float32",
    axes=("N",),
    shapes=((1_000_000,),),
    small=(1000,),
    inputs=states,
    contestants={
        OURS: lambda x: ours(x, uniform=True),
        OURS_APART: lambda x: ours(x, uniform=False),
        BISECTED: bisected,
        ROUNDED: rounded,
        PEER: peer,
    },
    reference=OURS,
    ours=OURS,
    floor=ROUNDED,
    unchecked=(OURS_APART, BISECTED, ROUNDED),
)
