"""Inputs, states and parameters: which dtype a neuron computes in, and what a call starts from."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of states: that of the input, but float32 for half precision, whose steps are too coarse to add up."""
    return torch.float32 if x.dtype in HALVES else x.dtype


def checked_input(x: Tensor, label: Callable[[], str]) -> Tensor:
    """The input as a floating tensor; integers and booleans become the default dtype, as in torch's own promotion."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{label()} got an input of type {type(x).__name__}; pass a torch.Tensor")
    if x.is_complex():
        raise TypeError(f"{label()} got an input of dtype {x.dtype}; pass real numbers")
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def fresh_state(state: Tensor, x: Tensor) -> Tensor:
    """The state that the layer keeps, or zeros where its shape is not that of the input (the last, smaller batch)."""
    if state.shape != x.shape or state.device != x.device:
        return torch.zeros(x.shape, dtype=compute_dtype(x), device=x.device)
    return state.to(compute_dtype(x))


def broadcast_state(state: Tensor, x: Tensor, label: str, name: str) -> Tensor:
    """A state given by hand: zeros where it is empty, else broadcast to the input."""
    if not isinstance(state, Tensor):
        raise TypeError(f"{label} got {name} of type {type(state).__name__}; pass a tensor or nothing")
    if state.numel() == 0 and state.shape != x.shape:
        return torch.zeros(x.shape, dtype=compute_dtype(x), device=x.device)
    if state.device != x.device:
        raise ValueError(f"{label} got {name} on {state.device} and an input on {x.device}; move one to the other")
    if state.is_complex():
        raise TypeError(f"{label} got {name} of dtype {state.dtype}; pass real numbers")
    if not _broadcasts(state.shape, x.shape):
        raise ValueError(
            f"{label} got {name} of shape {tuple(state.shape)} for an input of shape {tuple(x.shape)}; "
            f"pass {name} of the same shape, one that broadcasts to it, or none"
        )
    state = state.to(compute_dtype(x))
    return state if state.shape == x.shape else state.expand(x.shape)


def checked_params(
    params: Mapping[str, Tensor], device: torch.device, shape: torch.Size, dtype: torch.dtype, label: Callable[[], str]
) -> dict[str, Tensor]:
    """The parameters in the dtype of the state, each one number or broadcastable to one step of the input."""
    for name, p in params.items():
        if p.dim() and not _broadcasts(p.shape, shape):
            raise ValueError(
                f"{label()} has {name} of shape {tuple(p.shape)} and got an input of shape {tuple(shape)}; "
                f"{name} must broadcast to the input's trailing dimensions"
            )
        if p.dim() and p.device != device:
            raise ValueError(f"{label()} has {name} on {p.device} and an input on {device}; move one")
    return {name: p.to(dtype) for name, p in params.items()}


def detached(state: Tensor) -> Tensor:
    """The state without its graph: in place, as whoever holds the same tensor expects, unless it is a view."""
    return state.detach() if state._is_view() else state.detach_()


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    pairs = zip(reversed(shape), reversed(target), strict=False)
    return shape == target or (len(shape) <= len(target) and all(a in (1, b) for a, b in pairs))
