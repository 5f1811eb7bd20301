"""Inputs and states: which dtype a neuron computes in, and what state a call starts from."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Compute:
    """The dtype of states: that of the input, but float32 for half precision, whose steps are too coarse to add up."""

    dtype: torch.dtype

    @staticmethod
    def of(x: Tensor) -> "Compute":
        return Compute(torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype)


def checked_input(x: Tensor, label: Callable[[], str]) -> Tensor:
    """The input as a floating tensor; integers and booleans become the default dtype, as in torch's own promotion."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{label()} got an input of type {type(x).__name__}; pass a torch.Tensor")
    if x.is_complex():
        raise TypeError(f"{label()} got an input of dtype {x.dtype}; pass real numbers")
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def fresh_state(state: Tensor, x: Tensor, compute: Compute) -> Tensor:
    """The state that the layer keeps, or zeros where its shape is not that of the input (the last, smaller batch)."""
    if state.shape != x.shape or state.device != x.device:
        return torch.zeros(x.shape, dtype=compute.dtype, device=x.device)
    return state.to(compute.dtype)


def broadcast_state(state: Tensor, x: Tensor, compute: Compute, label: str, name: str) -> Tensor:
    """A state given by hand: zeros where it is empty, else broadcast to the input."""
    if not isinstance(state, Tensor):
        raise TypeError(f"{label} got {name} of type {type(state).__name__}; pass a tensor or nothing")
    if state.numel() == 0 and state.shape != x.shape:
        return torch.zeros(x.shape, dtype=compute.dtype, device=x.device)
    if state.device != x.device:
        raise ValueError(f"{label} got {name} on {state.device} and an input on {x.device}; move one to the other")
    if state.is_complex():
        raise TypeError(f"{label} got {name} of dtype {state.dtype}; pass real numbers")
    if state.shape == x.shape:
        return state.to(compute.dtype)
    try:
        fits = torch.broadcast_shapes(state.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{label} got {name} of shape {tuple(state.shape)} for an input of shape {tuple(x.shape)}; "
            f"pass {name} of the same shape, one that broadcasts to it, or none"
        )
    return state.to(compute.dtype).expand(x.shape)


def detached(state: Tensor) -> Tensor:
    """The state without its graph: in place, as whoever holds the same tensor expects, unless it is a view."""
    return state.detach() if state._is_view() else state.detach_()
