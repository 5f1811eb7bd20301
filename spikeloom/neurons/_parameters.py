"""The parameters of a neuron: the further arguments of its equation, each a buffer or an nn.Parameter."""

from collections.abc import Callable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import is_traced
from ..cells.decay import DECAYS
from ..cells.firing import AnyModel


def is_ours(thing: Any) -> bool:
    """Whether a class, function or method is defined by the library."""
    return (getattr(thing, "__module__", None) or "").partition(".")[0] == __name__.partition(".")[0]


NO_MODEL: Any = SimpleNamespace(states=(), params=(), decays=(), initial={})
"""The model of a neuron with a custom forward and no equation."""


class Parameters(nn.Module):
    """Registers parameters and returns their values under the names of the equation.

    A decay that is not clamped is registered in its unconstrained form under another name (`beta_logit`), so that
    checkpoints are unambiguous. The attribute `beta` returns the decay.
    """

    model: AnyModel
    _model: AnyModel = NO_MODEL  # the same, in case a submodule of a user's class has that name
    decay: str = "clamp"
    _sources: tuple[tuple[str, str], ...] = ()
    _starts: Mapping[str, float] = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "model" in vars(cls):
            cls._model = vars(cls)["model"]

    def _state_names(self) -> tuple[str, ...]:
        return self._model.states

    def _carried(self) -> tuple[str, ...]:
        """The attributes that a step leaves for the next one."""
        return self._state_names()

    def _recorded_names(self) -> tuple[str, ...]:
        """The states that hooks record at every step (see `RunHook`)."""
        return self._state_names()

    def _starts_at(self, name: str) -> float:
        """The value of a state before the first step."""
        return self._starts[name]

    def _value_names(self) -> tuple[str, ...]:
        return self._model.params

    def _learnable_names(self) -> tuple[str, ...]:
        """The values that the argument `learn` of a neuron made from an equation may name."""
        return self._value_names()

    def _registered_as(self, name: str) -> str:
        return name + DECAYS[self.decay].suffix if name in self._model.decays else name

    def _register_value(self, name: str, value: Any, learn: bool) -> None:
        tensor, own = checked_value(value, type(self).__name__, name), self._registered_as(name)
        if own != name:
            if not tensor.is_meta and bool(((tensor < 0) | (tensor > 1)).any()):
                raise ValueError(
                    f"{type(self).__name__} got {name}={value!r} with decay={self.decay!r}; pass a decay per step from "
                    "0 to 1"
                )
            tensor = DECAYS[self.decay].from_decay(
                tensor.to(torch.promote_types(tensor.dtype, torch.get_default_dtype()))
            )
        if learn:
            tensor = tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
            self.register_parameter(own, nn.Parameter(tensor))
        else:
            self.register_buffer(own, tensor)

    def _values(self, copied: bool = True) -> dict[str, Tensor]:
        """The current parameter values of the equation; see `copies_values` for which are copied."""
        copied = copied and copies_values()
        buffers, parameters = self._buffers, self._parameters
        values = {}
        for name, own in self._sources:
            value = buffers.get(own)
            if value is None:
                value = parameters.get(own)
            if value is None:  # neither in replicas and parametrized layers
                value = getattr(self, own or name)
            if not isinstance(value, Tensor):  # a number is a plain attribute
                value = torch.tensor(value, dtype=torch.float64, device="cpu")
            values[name] = value.clone() if copied and not value.requires_grad else value
        return values

    def _numbers(self) -> tuple[float, ...] | None:
        """The values as numbers if each is a constant scalar on the CPU; otherwise None."""
        buffers, numbers = self._buffers, []
        for _, own in self._sources:
            value = buffers.get(own)
            if type(value) is not Tensor or value.dim() or value.requires_grad or not value.is_cpu:
                return None
            numbers.append(value.item())
        return tuple(numbers)

    def _find_values(self) -> None:
        """Cache where values and initial states are stored, so that steps and torch.compile need no lookups."""
        theirs = {name for kind in type(self).__mro__ if not is_ours(kind) for name in vars(kind)}
        names = ((name, self._registered_as(name)) for name in self._value_names())
        # a property of a user's class takes precedence over the buffer of that name
        self.__dict__["_sources"] = tuple((name, "" if own in theirs else own) for name, own in names)
        self.__dict__["_starts"] = dict(self._model.initial)

    def __getattr__(self, name: str) -> Any:
        buffers = self.__dict__.get("_buffers")
        if buffers is not None and name in buffers:  # fast path of the most common case
            return buffers[name]
        if self.__dict__.get("decay", "clamp") != "clamp" and self._registered_as(name) != name:
            return DECAYS[self.decay].bounded(getattr(self, self._registered_as(name)))
        return super().__getattr__(name)


def checked_value(value: Any, label: str, name: str) -> Tensor:
    """A parameter as a tensor; a tensor is used without a copy."""
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{label} got {name}={value!r}; pass a number or a tensor of numbers") from error
    if tensor.is_complex():
        raise TypeError(f"{label} got {name} of dtype {tensor.dtype}; pass real numbers")
    return tensor.resolve_neg()


def checked_params(
    params: Mapping[str, Tensor], x: Tensor, dtype: torch.dtype, label: Callable[[], str]
) -> dict[str, Tensor]:
    """The parameters in the dtype of the state, each one number or broadcastable to one step x of the input, [*S]."""
    checked = {}
    for name, p in params.items():
        if p.dtype is dtype and not p.dim() and p.is_cpu:
            checked[name] = p  # the most common case: a scalar, which fits every input
            continue
        if p.dim() and not broadcasts(p.shape, x.shape):
            raise ValueError(
                f"{label()} has {name} of shape {tuple(p.shape)} and got an input of shape {tuple(x.shape)}; "
                f"{name} must broadcast to the input's trailing dimensions"
            )
        if p.device != x.device and (p.dim() or p.device.type != "cpu"):  # a scalar may stay on the CPU
            raise ValueError(f"{label()} has {name} on {p.device} and got an input on {x.device}; move one of them")
        checked[name] = p if p.dtype is dtype else p.to(dtype)
    return checked


def copies_values() -> bool:
    """Whether a call copies the constant values, which it does if it may be differentiated.

    The backward pass needs the values of the call, and DistributedDataParallel of torch 2.11 and earlier overwrites
    buffers at each call. Nothing is copied under torch.compile, which decides itself what is saved for backward, nor
    under torch.jit.trace, whose check runs without gradients and must record the same operations.
    """
    return torch.is_grad_enabled() and not torch.compiler.is_compiling() and not is_traced()


def taken(value: Tensor) -> Tensor:
    """The value for a call, copied if `copies_values`."""
    return value.clone() if not value.requires_grad and copies_values() else value


def broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    """Whether a tensor of that shape can be expanded to the target."""
    more = len(target) - len(shape)
    if more == 0 and shape == target:  # lengths first: a size may be a symbol, which a comparison would fix
        return True
    return more >= 0 and all(a in (1, b) for a, b in zip(shape, target[more:], strict=True))
