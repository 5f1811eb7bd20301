"""Inputs, states and parameters: which dtype a neuron computes in, and what a call starts from."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .._torch import is_view
from ..scan.emit_numba import HALVES


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of states: that of the input, but float32 for half precision, whose steps are too coarse to add up."""
    return torch.float32 if x.dtype in HALVES else x.dtype


def checked_input(x: Tensor, label: Callable[[], str]) -> Tensor:
    """The input as a floating tensor; integers and booleans become the default dtype, as in torch's own promotion."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{label()} got an input of type {type(x).__name__}; pass a torch.Tensor")
    if x.is_complex():
        raise TypeError(f"{label()} got an input of dtype {x.dtype}; pass real numbers")
    if x.layout is not torch.strided:
        raise TypeError(f"{label()} got an input of layout {x.layout}; pass a dense tensor, x.to_dense()")
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def checked_value(value: Any, label: str, name: str) -> Tensor:
    """A parameter as a tensor: the number or the tensor that the user gave, which is used as it is."""
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{label} got {name}={value!r}; pass a number or a tensor of numbers") from error
    if tensor.is_complex():
        raise TypeError(f"{label} got {name} of dtype {tensor.dtype}; pass real numbers")
    return tensor.resolve_neg()


def fresh_state(
    state: Tensor, x: Tensor, dtype: torch.dtype, label: Callable[[], str], name: str, start: float = 0.0
) -> Tensor:
    """The state that the layer keeps, or its start where its shape is not the input's (the last, smaller batch)."""
    if state.shape != x.shape or state.is_meta != x.is_meta or not state.numel():
        return torch.full(x.shape, start, dtype=dtype, device=x.device)
    if state.device != x.device:
        raise ValueError(
            f"{label()} keeps {name} on {state.device} and got an input on {x.device}; "
            "move the layer with .to(device), or the input"
        )
    compiling = torch.compiler.is_dynamo_compiling()  # which cannot trace the question
    if not compiling and state.is_inference() and not torch.is_inference_mode_enabled():
        state = state.clone()  # autograd does not take tensors made in inference mode
    return state if state.dtype is dtype else state.to(dtype)


def broadcast_state(
    state: Tensor, x: Tensor, dtype: torch.dtype, label: Callable[[], str], name: str, start: float = 0.0
) -> Tensor:
    """A state given by hand: its start where it is empty, else broadcast to the input."""
    if not isinstance(state, Tensor):
        raise TypeError(f"{label()} got {name} of type {type(state).__name__}; pass a tensor or nothing")
    if state.numel() == 0 and state.shape != x.shape:
        return torch.full(x.shape, start, dtype=dtype, device=x.device)
    if state.device != x.device:
        raise ValueError(f"{label()} got {name} on {state.device} and an input on {x.device}; move one to the other")
    if state.is_complex():
        raise TypeError(f"{label()} got {name} of dtype {state.dtype}; pass real numbers")
    if not _broadcasts(state.shape, x.shape):
        raise ValueError(
            f"{label()} got {name} of shape {tuple(state.shape)} for an input of shape {tuple(x.shape)}; "
            f"pass {name} of the same shape, one that broadcasts to it, or none"
        )
    state = state if state.dtype is dtype else state.to(dtype)
    return (state if state.shape == x.shape else state.expand(x.shape)).resolve_neg()


def taken(value: Tensor) -> Tensor:
    """A value as a call takes it: of one that is not learned a copy, where the call may be differentiated.

    Its backward needs what the call has seen, and DistributedDataParallel of torch 2.11 and before writes over buffers
    at each call. Under torch.compile nothing is copied: what the backward of a graph keeps is the compiler's choice.
    """
    differentiated = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return value.clone() if differentiated and not value.requires_grad else value


def checked_params(
    params: Mapping[str, Tensor], x: Tensor, dtype: torch.dtype, label: Callable[[], str]
) -> dict[str, Tensor]:
    """The parameters in the dtype of the state, each one number or broadcastable to one step x of the input, [*S]."""
    checked = {}
    for name, p in params.items():
        if p.dtype is dtype and not p.dim() and p.is_cpu:
            checked[name] = p  # most are: one number, which goes with every input
            continue
        if p.dim() and not _broadcasts(p.shape, x.shape):
            raise ValueError(
                f"{label()} has {name} of shape {tuple(p.shape)} and got an input of shape {tuple(x.shape)}; "
                f"{name} must broadcast to the input's trailing dimensions"
            )
        if p.device != x.device and (p.dim() or p.device.type != "cpu"):  # a single number may stay on the CPU
            raise ValueError(f"{label()} has {name} on {p.device} and got an input on {x.device}; move one of them")
        checked[name] = p if p.dtype is dtype else p.to(dtype)
    return checked


def moved(state: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """A state after `fn` of `.to(...)` and its like; zeros where the meta device had no values to move."""
    new = fn(state)
    return torch.zeros_like(new) if state.is_meta and not new.is_meta else new


def detached(state: Tensor) -> Tensor:
    """The state without its graph: in place, as whoever holds the same tensor expects, unless it is a view."""
    return state.detach() if is_view(state) else state.detach_()


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    more = len(target) - len(shape)
    return shape == target or (more >= 0 and all(a in (1, b) for a, b in zip(shape, target[more:], strict=True)))
