"""When a neuron fires: its first spike, or its first few, with a gradient."""

import torch
from torch import Tensor

from ._steps import Steps


def spike_times(spk: Tensor, steps: Steps, number: int = 1) -> Tensor:
    """The steps of the first spikes of every neuron, [number, B, C], from spk [T, B, C] that `read` has read.

    A spike is what is not zero. A neuron that fires fewer times has the last step for the spikes that it lacks. The
    gradient for a time goes, with its sign turned, to the spike at that step: a larger one would have come earlier.
    """
    last = len(spk) - 1
    dtype = next(kind for kind in (torch.uint8, torch.int16, torch.int32) if last <= torch.iinfo(kind).max)
    countdown = torch.arange(last, -1, -1, dtype=dtype, device=spk.device).view(-1, 1, 1)
    left = (
        spk.bool() * countdown
    )  # steps that are left after each spike; none after the last step, nor where it is silent
    found: list[Tensor] = []
    for _ in range(number):
        if found:
            left.scatter_(0, found[-1], 0)
        found.append((last - left.amax(0, keepdim=True)).long())
    at = torch.cat(found) if number > 1 else found[0]
    if steps.mask is not None:
        at = at.clamp(max=steps.end - 1)
    spike = spk.gather(0, at)
    return at.to(spk.dtype) - (spike - spike.detach())
