"""What an unrolled run saves for its backward, with spikes as bits.

A product or a convolution saves its input. Where that is spikes, float32 holds 32 times what they tell. So while a
network is unrolled, autograd hands over what it saves, and large tensors of zeros and ones are kept as bits, whoever
made them: a neuron, or a pooling layer after one. The backward gets the same values back, bit for bit. What a neuron
saves for itself stays as it is: a scan reads it once, and packing would take a third as long as the scan.

To pack and unpack takes as long as to read the values five times or so, which a narrow product feels: so the first
`PLAIN` bytes of a run stay as they are.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._torch import saved_hooks, saved_hooks_allowed, transformed
from ..neurons._time import Time
from ..scan import arena, bits
from ..scan.saved import Quiet
from ..scan.select import numba_missing

PLAIN = 32 << 20
"""Bytes of large tensors that a run keeps as they are, before it looks for spikes in what follows."""

CHANGED = (
    "one of the variables needed for gradient computation has been modified by an inplace operation: a tensor of shape "
    "{shape} is at version {now}; expected version {then} instead"
)


def spikes_as_bits(time: Time, inputs: Iterable[Tensor]) -> AbstractContextManager[Any]:
    """Within this context what autograd saves is kept so; nothing is changed where it saves nothing, or for another.

    Args:
        time: the run.
        inputs: tensors that someone else holds in any case.
    """
    free = saved_hooks_allowed() and saved_hooks() is None
    if not torch.is_grad_enabled() or not free or transformed() or numba_missing():
        return nullcontext()
    held = frozenset(_memory(x) for x in inputs if type(x) is Tensor)
    return torch.autograd.graph.saved_tensors_hooks(_Keep(time, held, PLAIN), _recalled)


@dataclass
class _Keep(Quiet):
    """What is kept of a saved tensor.

    Args:
        time: the run.
        held: where tensors lie that someone else holds.
        plain: how many bytes may still be kept as they are.
    """

    time: Time
    held: frozenset[int]
    plain: int

    def __call__(self, x: Tensor) -> Any:
        large = x.nbytes >= arena.SMALLEST and not self.time.at_work
        if large and type(x) is Tensor and x.device.type == "cpu" and _memory(x) not in self.held:
            if x.nbytes <= self.plain:
                self.plain -= x.nbytes
            elif (packed := bits.packed(x)) is not None:
                return packed
        return x.detach(), x._version  # with its graph it would hold itself


def _recalled(kept: Any) -> Tensor:
    if isinstance(kept, bits.Bits):
        return bits.unpacked(kept)
    x: Tensor
    x, version = kept
    if x._version != version:  # which torch does not compare where it hands over what it saves
        raise RuntimeError(CHANGED.format(shape=list(x.shape), now=x._version, then=version))
    return x


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
