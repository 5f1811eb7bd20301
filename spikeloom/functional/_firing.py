"""When a neuron fires: its first spike, or its first few, with a gradient."""

import torch
from torch import Tensor, nn

from ._steps import Steps


def spike_times(spk: Tensor, steps: Steps, number: int = 1) -> Tensor:
    """The steps of the first spikes of every neuron, [number, B, C], from spk [T, B, C].

    A spike is what is not zero. A neuron that fires fewer times has the last step for the spikes that it lacks. The
    gradient for a time goes, with its sign turned, to the spike at that step: a larger one would have come earlier.
    """
    total = len(spk)
    index = torch.arange(total, dtype=torch.int32, device=spk.device).view(-1, 1, 1)
    fired = torch.where(steps.only(spk) != 0, index, total)
    at = fired.topk(min(number, total), dim=0, largest=False).values.long()
    at = nn.functional.pad(at, (0, 0, 0, 0, 0, number - len(at)), value=total)
    at = torch.where(at == total, steps.end - 1, at)
    spike = spk.gather(0, at)
    return at.to(spk.dtype) - (spike - spike.detach())
