"""Checks of the encoders' arguments, and helpers that create spike trains [T, *S]."""

import operator
from typing import Any

import torch
from torch import Tensor

from ..neurons._state import compute_dtype


def checked(data: Any, taker: str) -> Tensor:
    """Return the data if they are a real tensor."""
    if not isinstance(data, Tensor):
        raise TypeError(f"{taker} expects a tensor, got {type(data).__name__}; convert it with torch.as_tensor")
    if data.is_complex():
        raise TypeError(f"{taker} expects real numbers, got {data.dtype}; pass the real part or abs()")
    return data


def floating(data: Any, taker: str) -> Tensor:
    """Return the data in a floating-point dtype: their own, or the default dtype for integers and bools."""
    tensor = checked(data, taker)
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())


def computable(data: Tensor) -> Tensor:
    """Return the data in the dtype for computation: float32 for half precision."""
    return data.to(compute_dtype(data))


def between(data: Tensor, low: float, high: float, taker: str) -> Tensor:
    """Return the data if all values are in [low, high]; NaN is not."""
    if not bool(((data >= low) & (data <= high)).all()):
        found = f"{data.min().item():g} to {data.max().item():g}"
        raise ValueError(f"{taker} expects data in [{low:g}, {high:g}], got {found}; scale the data first")
    return data


def whole(value: Any, name: str, least: int | None = 0) -> int:
    """Return an integer of at least `least`; None is any."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; pass an integer")
    number = operator.index(value)
    if least is not None and number < least:
        raise ValueError(f"{name} is {number}; pass {least} or more")
    return number


def given(num_steps: Any) -> int | None:
    """Return num_steps, or None if it is False, None or 0, which all mean "not given"."""
    return None if num_steps is None or num_steps is False else whole(num_steps, "num_steps") or None


def window(num_steps: int, first_spike_time: float) -> int:
    """Return num_steps if the first spike is within them."""
    if first_spike_time > num_steps - 1:
        raise ValueError(
            f"first_spike_time is {first_spike_time}, after the last step of num_steps={num_steps}; "
            f"pass at most {num_steps - 1}"
        )
    return num_steps


def over_time(like: Tensor, num_steps: int) -> Tensor:
    """The steps 0 to num_steps - 1, in a shape that broadcasts with [T, *S], where `like` is [*S]."""
    return torch.arange(num_steps, device=like.device).reshape(-1, *[1] * like.dim())


def single_spikes(
    times: Tensor, num_steps: int, silent: Tensor, dtype: torch.dtype, on: float = 1, off: float = 0
) -> Tensor:
    """One spike per element: `on` at its time, an integer >= 0, unless it is silent; `off` elsewhere."""
    value = torch.where(silent, off, on).to(dtype)
    spk = torch.full((num_steps, *times.shape), off, dtype=dtype, device=times.device)
    return spk.scatter_(0, times.clamp(max=num_steps - 1).long().unsqueeze(0), value.unsqueeze(0))
