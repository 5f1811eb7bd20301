"""Counts over sequences, by a kernel where there is one, which reads memory once, else by torch."""

import torch
from torch import Tensor

from ..engine import tuning
from ..engine.graph import FLOATS
from ..engine.run import forced, numba_missing
from ..engine.sparse import counting


def _has_kernel(x: Tensor) -> bool:
    """Whether a kernel reads x, [T, ...], and saves time."""
    if type(x) is not Tensor or not x.is_cpu or x.dtype not in FLOATS or x.numel() < tuning.limits.counting_from:
        return False
    return x.is_contiguous() and not x.is_neg() and forced() in (None, "numba") and not numba_missing()


def fired(x: Tensor) -> int:
    """The number of values of x, [T, ...], that are not zero."""
    return counting.fired(x) if _has_kernel(x) else int(x.count_nonzero())


def changed(*sequences: Tensor) -> int:
    """The number of places and steps at which any sequence [T, ...] differs from the step before."""
    if len(sequences) == 1 and _has_kernel(sequences[0]):
        return counting.changed(sequences[0])
    return differing([(x[1:], x[:-1]) for x in sequences])


def differing(pairs: list[tuple[Tensor, Tensor]]) -> int:
    """The number of places at which any pair differs."""
    differ = pairs[0][0] != pairs[0][1]
    for a, b in pairs[1:]:
        differ = differ | (a != b)
    return int(differ.count_nonzero())


def met(x: Tensor, fan: Tensor) -> tuple[Tensor, Tensor]:
    """Of each step: the sum of the fan-outs of nonzero values, and whether all values are -1, 0 or 1.

    Args:
        x: [T, B, *N].
        fan: [*N], integers of 64 bits.
    """
    if _has_kernel(x):
        counts, others = counting.met(x, fan.contiguous())
        return counts, others == 0
    nonzero = x != 0
    rows = nonzero.view(torch.uint8).sum(1, dtype=torch.int64)  # how many rows of the batch meet each weight
    return (rows * fan).flatten(1).sum(1), (nonzero == (x.abs() == 1)).flatten(1).all(1)
