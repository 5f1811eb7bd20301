"""Counts over each step of a sequence [T, ...], in one pass through memory."""

import torch
from torch import Tensor

from .kernel import row_kernel

MET = """    for t in range(low, high):
        total, other = 0, 0
        for b in range(rows):
            row = x + SIZE * (t * rows + b) * features
            for f in range(features):
                value = load(row, f)
                total += word(fan, f) if value != R(0) else 0
                other += 1 if value != R(0) and value != R(1) and value != R(-1) else 0
        store_word(counts, t, total)
        store_word(others, t, other)
"""

FIRED = """    for t in range(low, high):
        row, total = x + SIZE * t * size, 0
        for n in range(size):
            total += 1 if load(row, n) != R(0) else 0
        store_word(counts, t, total)
"""

CHANGED = """    for t in range(low, high):
        row, total = x + SIZE * t * size, 0
        for n in range(size):
            total += 1 if load(row, n) != load(row, n + size) else 0
        store_word(counts, t, total)
"""

_met = row_kernel("fan-outs of nonzero inputs", "steps, rows, features, x*, fan*, counts*, others*", MET)
_fired = row_kernel("nonzero values", "steps, x*, counts*", FIRED)
_changed = row_kernel("values that differ from those before", "steps, x*, counts*", CHANGED)


def met(x: Tensor, fan: Tensor) -> tuple[Tensor, Tensor]:
    """For each step: the sum of the fan-outs of the nonzero values, and the number of values other than -1, 0 and 1.

    Args:
        x: [T, B, *N], contiguous.
        fan: for each value of a row, [*N], integers of 64 bits.
    """
    steps, rows, features = len(x), x.shape[1], fan.numel()
    counts, others = _empty(steps), _empty(steps)
    _met(x.dtype)(
        steps=steps, size=rows * features, rows=rows, features=features, x=x, fan=fan, counts=counts, others=others
    )
    return counts, others


def fired(x: Tensor) -> int:
    """The number of values of x [T, ...], contiguous, that are not zero."""
    return _total(_fired, x, len(x))


def changed(x: Tensor) -> int:
    """The number of values of x [T, ...], contiguous, that differ from the value one step before."""
    return _total(_changed, x, len(x) - 1)


def _total(kernel: object, x: Tensor, steps: int) -> int:
    if steps < 1:
        return 0
    counts = _empty(steps)
    kernel(x.dtype)(steps=steps, size=x[0].numel(), x=x, counts=counts)  # type: ignore[operator]
    return int(counts.sum())


def _empty(steps: int) -> Tensor:
    return torch.empty(steps, dtype=torch.int64, device="cpu")
