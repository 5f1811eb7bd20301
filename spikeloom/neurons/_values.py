"""The values of a neuron: what its equation takes beside input and states, each a buffer or a learned parameter."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ..cells.decay import DECAYS
from ..cells.firing import AnyModel
from ._state import checked_value, copies_values


def is_ours(thing: Any) -> bool:
    """Whether a class, function or method is one of the library's."""
    return (getattr(thing, "__module__", None) or "").partition(".")[0] == __name__.partition(".")[0]


class Values(nn.Module):
    """Registers values, and finds them again under the names that the equation has for them.

    A decay that is not clamped is kept as the number from which it follows, under a name that says so (`beta_logit`),
    so that no checkpoint is read as something else. The attribute `beta` is the decay itself.
    """

    model: AnyModel
    decay: str = "clamp"
    _sources: tuple[tuple[str, str], ...] = ()
    _starts: Mapping[str, float] = MappingProxyType({})

    def _state_names(self) -> tuple[str, ...]:
        return self.model.states if hasattr(type(self), "model") else ()

    def _heard_names(self) -> tuple[str, ...]:
        """The states that who listens to the layer hears at every step."""
        return self._state_names()

    def _starts_at(self, name: str) -> float:
        """The value of a state before the first step."""
        return self._starts[name]

    def _value_names(self) -> tuple[str, ...]:
        return self.model.params if hasattr(type(self), "model") else ()

    def _kept_as(self, name: str) -> str:
        """The name under which a value is registered."""
        decays = self.model.decays if hasattr(type(self), "model") else ()
        return name + DECAYS[self.decay].suffix if name in decays else name

    def _register_value(self, name: str, value: Any, learn: bool) -> None:
        tensor, kept = checked_value(value, type(self).__name__, name), self._kept_as(name)
        if kept != name:
            tensor = DECAYS[self.decay].kept(tensor.to(torch.promote_types(tensor.dtype, torch.get_default_dtype())))
        if learn:
            tensor = tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
            self.register_parameter(kept, nn.Parameter(tensor))
        else:
            self.register_buffer(kept, tensor)

    def _values(self, copied: bool = True) -> dict[str, Tensor]:
        """What the equation takes, as it stands now; see `copies_values` for what is copied."""
        copied = copied and copies_values()
        buffers, parameters = self._buffers, self._parameters
        values = {}
        for name, kept in self._sources:
            value = buffers.get(kept)
            if value is None:
                value = parameters.get(kept)
            if value is None:  # in replicas and parametrized layers it is neither, and found the long way
                value = getattr(self, kept or name)
            if not isinstance(value, Tensor):  # a number is a plain attribute
                value = torch.tensor(value, dtype=torch.float64, device="cpu")
            values[name] = value.clone() if copied and not value.requires_grad else value
        return values

    def _numbers(self) -> tuple[float, ...] | None:
        """The same where each is a number on the CPU that is not learned; else None."""
        buffers, numbers = self._buffers, []
        for _, kept in self._sources:
            value = buffers.get(kept)
            if type(value) is not Tensor or value.dim() or value.requires_grad or not value.is_cpu:
                return None
            numbers.append(value.item())
        return tuple(numbers)

    def _find_values(self) -> None:
        """Note where each value is and each state starts, so that a step, or torch.compile, need not look."""
        theirs = {name for kind in type(self).__mro__ if not is_ours(kind) for name in vars(kind)}
        names = ((name, self._kept_as(name)) for name in self._value_names())
        # a property of the user's stands before the buffer of its name
        self.__dict__["_sources"] = tuple((name, "" if kept in theirs else kept) for name, kept in names)
        self.__dict__["_starts"] = dict(self.model.initial) if hasattr(type(self), "model") else {}

    def __getattr__(self, name: str) -> Any:
        buffers = self.__dict__.get("_buffers")
        if buffers is not None and name in buffers:  # the commonest, found sooner
            return buffers[name]
        if self.__dict__.get("decay", "clamp") != "clamp" and self._kept_as(name) != name:
            return DECAYS[self.decay].bounded(getattr(self, self._kept_as(name)))
        return super().__getattr__(name)
