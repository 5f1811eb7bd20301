"""What the encoders take: tensors of numbers, and whole numbers of time steps; and spike trains [T, *S] of these."""

import operator
from typing import Any

import torch
from torch import Tensor

from ..neurons._state import compute_dtype


def checked(data: Any, taker: str) -> Tensor:
    """The data, if they are a tensor of real numbers."""
    if not isinstance(data, Tensor):
        raise TypeError(f"{taker} takes a tensor; got {type(data).__name__}; convert it with torch.as_tensor")
    if data.is_complex():
        raise TypeError(f"{taker} takes real numbers; got {data.dtype}; pass its real part, or abs()")
    return data


def floating(data: Any, taker: str) -> Tensor:
    """The data in a floating dtype: its own, or the default dtype for integers and bools."""
    tensor = checked(data, taker)
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())


def computable(data: Tensor) -> Tensor:
    """The data in a dtype that is fine enough for a formula: float32 for the half precisions."""
    return data.to(compute_dtype(data))


def between(data: Tensor, low: float, high: float, taker: str) -> Tensor:
    """The data, if all of it lies between two bounds, which NaN does not."""
    if not bool(((data >= low) & (data <= high)).all()):
        found = f"{data.min().item():g} to {data.max().item():g}"
        raise ValueError(f"{taker} takes data from {low:g} to {high:g}; got {found}; scale it first")
    return data


def whole(value: Any, name: str, least: int | None = 0) -> int:
    """A whole number of at least `least`; None is any."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; pass a whole number")
    number = operator.index(value)
    if least is not None and number < least:
        raise ValueError(f"{name} is {number}; pass {least} or more")
    return number


def given(num_steps: Any) -> int | None:
    """num_steps, or None where it is False, None or 0, all of which stand for "not given"."""
    return None if num_steps is None or num_steps is False else whole(num_steps, "num_steps") or None


def window(num_steps: int, first_spike_time: float) -> int:
    """num_steps, if the first spike comes within them."""
    if first_spike_time > num_steps - 1:
        raise ValueError(
            f"first_spike_time is {first_spike_time}, beyond the last of num_steps={num_steps}; "
            f"pass at most {num_steps - 1}"
        )
    return num_steps


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
