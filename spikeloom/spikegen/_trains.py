"""Spike trains, [T, *S], from times or steps."""

import torch
from torch import Tensor


def over_time(like: Tensor, num_steps: int) -> Tensor:
    """The steps 0 to num_steps - 1, in a shape that broadcasts against [T, *S], where `like` is [*S]."""
    return torch.arange(num_steps, device=like.device).reshape(-1, *[1] * like.dim())


def single_spikes(
    times: Tensor, num_steps: int, silent: Tensor, dtype: torch.dtype, on: float = 1, off: float = 0
) -> Tensor:
    """One spike per element: `on` at its time, a whole number from 0 on, unless it is silent; `off` elsewhere."""
    value = torch.where(silent, off, on).to(dtype)
    spk = torch.full((num_steps, *times.shape), off, dtype=dtype, device=times.device)
    return spk.scatter_(0, times.clamp(max=num_steps - 1).long().unsqueeze(0), value.unsqueeze(0))
