"""When a neuron fires: its first spike, or its first few, with a gradient."""

import torch
from torch import Tensor

from ._steps import Steps


def spike_times(spk: Tensor, steps: Steps, number: int = 1) -> Tensor:
    """The steps of the first spikes of every neuron, [number, B, C], from spk [T, B, C] that `read` has read.

    A spike is what is not zero. A neuron that fires fewer times has the last step for the spikes that it lacks. The
    gradient for a time goes, with its sign turned, to the spike at that step: a larger one would have come earlier.
    """
    total = len(spk)
    dtype = torch.int16 if total < 2**15 else torch.int32
    countdown = torch.arange(total, 0, -1, dtype=dtype, device=spk.device).view(-1, 1, 1)
    ahead = (
        spk.bool() * countdown
    )  # T at the first step, 1 at the last; 0 where nothing fires. The first spike is highest
    found: list[Tensor] = []
    for _ in range(number):
        if found:
            ahead.scatter_(0, found[-1], 0)
        found.append((total - ahead.amax(0, keepdim=True)).long().clamp(max=steps.end - 1))
    at = torch.cat(found) if number > 1 else found[0]
    spike = spk.gather(0, at)
    return at.to(spk.dtype) - (spike - spike.detach())
