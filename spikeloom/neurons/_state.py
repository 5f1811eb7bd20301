"""Inputs, states and parameters: which dtype a neuron computes in, and what a call starts from."""

import copy
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from .._torch import is_fake, is_traced, is_wrapped
from ..engine.graph import HALVES
from ..engine.run import seen_through
from ..scoped import Scoped

Layer = Any
"""A layer that keeps states: a `SpikingNeuron` or an `OverTime`, which are built upon this file."""


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


def state_for(
    x: Tensor, dtype: torch.dtype, layer: Layer, name: str, state: Any, start: float = 0.0, kept: bool = False
) -> Tensor:
    """The state before a step: the one given, broadcast to the input; its start where it does not broadcast.

    So a loop that passes the zeros of `reset_mem`, in the shape of the last batch, goes on with a smaller one. Where
    other values are lost, a warning says so, once per layer.

    Args:
        x: one step of the input, or what has its shape, [*S].
        dtype: of the states.
        layer: whose state it is, for messages.
        name: of the state.
        state: what was passed, or what the layer has kept.
        start: what the state starts from.
        kept: whether the layer has kept it; then one that is on the meta device, or fake, is none for a real input.
    """
    if not isinstance(state, Tensor):
        raise TypeError(f"{layer._label()} got {name} of type {type(state).__name__}; pass a tensor or nothing")
    same = state.shape == x.shape
    if not (same or _broadcasts(state.shape, x.shape)) or (not state.numel() and (kept or not same)):
        _say_dropped(x, layer, name, state, start)
        return torch.full(x.shape, start, dtype=dtype, device=x.device)
    other = type(state) is not type(x) and not torch.compiler.is_compiling()
    if kept and ((other and is_fake(state) != is_fake(x)) or state.is_meta != x.is_meta):
        return torch.full(x.shape, start, dtype=dtype, device=x.device)
    if state.device != x.device:
        raise ValueError(
            f"{layer._label()} has {name} on {state.device} and got an input on {x.device}; move one to the other, "
            "with .to(device)"
        )
    if state.is_complex():
        raise TypeError(f"{layer._label()} got {name} of dtype {state.dtype}; pass real numbers")
    compiling = torch.compiler.is_dynamo_compiling()  # which cannot trace the question
    if not compiling and state.is_inference() and not torch.is_inference_mode_enabled():
        state = state.clone()  # autograd does not take tensors made in inference mode
    taken: Tensor = state if state.dtype is dtype else state.to(dtype)
    return (taken if same else taken.expand(x.shape)).resolve_neg()


_warned: WeakSet[Layer] = WeakSet()
"""The layers that have said that they dropped a state. Not an attribute of theirs: `unroll` puts those back."""

_trial: Scoped[bool] = Scoped("spikeloom_trial", False)
on_trial = partial(_trial.set, True)
"""Within this context a run only looks at a network, and is not worth a warning."""


def _say_dropped(x: Tensor, layer: Layer, name: str, state: Tensor, start: float) -> None:
    """Warn if values are lost, for the first time of a layer; not where tensors have no values to look at."""
    if torch.compiler.is_compiling() or not state.numel() or seen_through() or _trial.get() or layer in _warned:
        return
    lost = ((state != start) & (state != 0)).any()
    if type(lost) is Tensor and not lost.is_meta and lost:  # a fake tensor has no value
        warnings.warn(
            f"{layer._label()} starts from {name} = {start:g}: the {name} before, of shape {tuple(state.shape)}, does "
            f"not broadcast to {tuple(x.shape)} and is dropped. Call spikeloom.utils.reset(net) before data of another "
            "shape",
            stacklevel=2,
        )
        _warned.add(layer)


def copies_values() -> bool:
    """Whether a call takes copies of the values that are not learned: where it may be differentiated.

    Its backward needs what the call has seen, and DistributedDataParallel of torch 2.11 and before writes over buffers
    at each call. Under torch.compile nothing is copied: what the backward of a graph keeps is the compiler's choice.
    Nor under torch.jit.trace, whose check runs without gradients and must record the same operations.
    """
    return torch.is_grad_enabled() and not torch.compiler.is_compiling() and not is_traced()


def taken(value: Tensor) -> Tensor:
    """A value as a call takes it."""
    return value.clone() if not value.requires_grad and copies_values() else value


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


def deep_copied(layer: Layer, memo: dict[int, Any]) -> Layer:
    """``__deepcopy__`` of a layer that keeps states: by its `__getstate__`, which cuts them from their graph.

    Said by name, since a class that `torch.nn.utils.parametrize` derives copies every attribute as it is otherwise.
    """
    kind: Any = type(layer)
    twin = memo[id(layer)] = kind.__new__(kind)
    # the derived class's own __getstate__ raises
    source = kind.__mro__[1] if is_parametrized(layer) else kind
    twin.__setstate__(copy.deepcopy(source.__getstate__(layer), memo))
    return twin


def moved(state: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """A state after `fn` of `.to(...)` and its like; zeros where the meta device had no values to move."""
    new = fn(state)
    return torch.zeros_like(new) if state.is_meta and not new.is_meta else new


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    more = len(target) - len(shape)
    return shape == target or (more >= 0 and all(a in (1, b) for a, b in zip(shape, target[more:], strict=True)))


def fits(state: Any, shape: tuple[int, ...] | None, dtype: torch.dtype) -> bool:
    """Whether a state can be taken as it is, beside an input on the CPU."""
    return (
        type(state) is Tensor
        and state.shape == shape
        and state.dtype is dtype
        and state.is_cpu
        and (not state.is_inference() or torch.is_inference_mode_enabled())
        and not state.is_neg()
        and not is_wrapped(state)
    )
