"""How the states change in one step, as methods that a subclass may override or call: snnTorch's names for them.

`_base_state_function` is the charge of the equation without any reset, and `_base_sub`, `_base_zero` and `_base_int`
are the charge with each reset. They read the states that the layer keeps (`self.mem`) and the reset signal
(`self.reset`), and return the new states: one tensor, or a tuple that ends in the membrane.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ._state import checked_params, taken

Update = Tensor | tuple[Tensor, ...]
"""The new states: one tensor, or a tuple that ends in the membrane."""

Neuron = Any
"""A `SpikingNeuron`, which is built upon this file and can therefore not be imported here."""

METHODS: Mapping[str, str] = {"subtract": "_base_sub", "zero": "_base_zero", "none": "_base_int"}
"""The method of each reset mechanism."""


class _OfMode:
    """The attribute `state_function`: the method of the reset mechanism in force, unless another is assigned."""

    def __get__(self, neuron: Neuron, kind: type) -> Any:
        return self if neuron is None else getattr(neuron, METHODS[neuron.reset_mechanism])


class Dynamics:
    """The update of the states by a `Model`, as methods of the layer."""

    state_function = _OfMode()

    def _base_state_function(self: Neuron, input_: Tensor) -> Update:
        """The new states by the charge alone, for an input [B, *N] and the states that the layer keeps."""
        return _as_returned(charged(self, input_))

    def _base_sub(self: Neuron, input_: Tensor) -> Update:
        """The new states with the reset by subtraction."""
        return _with_reset(self, "subtract", input_)

    def _base_zero(self: Neuron, input_: Tensor) -> Update:
        """The new states with the reset to zero."""
        return _with_reset(self, "zero", input_)

    def _base_int(self: Neuron, input_: Tensor) -> Update:
        """The new states without a reset."""
        return _with_reset(self, "none", input_)


class ClearedByEquation:
    """A neuron from which a reset to zero takes what the equation has charged, whatever a subclass has charged."""

    def _base_state_reset_zero(self: Neuron, input_: Tensor) -> tuple[Any, ...]:
        """What a reset to zero takes off each new state: nothing off the currents, the whole membrane."""
        *rest, mem = charged(self, input_)
        return (*[0] * len(rest), mem)

    def _base_zero(self: Neuron, input_: Tensor) -> Update:
        """The new states with the reset to zero."""
        return less(self, self._base_state_function(input_), self._base_state_reset_zero(input_))


def charged(neuron: Neuron, input_: Tensor) -> tuple[Tensor, ...]:
    """The new states by the charge of the equation, whatever is overridden."""
    model = neuron.model
    states = [getattr(neuron, name) for name in neuron._state_names()]
    mem = states[-1]
    x: Any = neuron._drive_step(input_, states)
    values = checked_params(neuron._values(copied=False), mem, mem.dtype, neuron._label)
    if model.recurrent:
        x = x + taken(values["V"]) * states[0]
    if model.inputs > 1:
        x = x.chunk(model.inputs, neuron.map.axis)
    values |= {name: taken(values[name]) for name in model.charge_params if name not in model.decays}
    new: tuple[Tensor, ...] = model.charging(neuron.decay, values)(x, *states[-len(model.charged) :])
    return new


def less(neuron: Neuron, states: Update, taken_off: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """The new states less what the reset takes off each where the neuron has fired."""
    fired = _signal(neuron)
    return tuple([state - fired * off for state, off in zip(as_tuple(states), taken_off, strict=True)])


def as_tuple(update: Update) -> tuple[Tensor, ...]:
    """The new states as a tuple."""
    return tuple(update) if isinstance(update, (tuple, list)) else (update,)


def _as_returned(states: tuple[Tensor, ...]) -> Update:
    return states[0] if len(states) == 1 else states


def _signal(neuron: Neuron) -> Tensor:
    """The reset signal that the step, or a forward of the user's, has set; else that of the present membrane."""
    fired: Tensor = neuron.mem_reset(neuron.mem) if neuron.reset is None else neuron.reset
    return fired


def _with_reset(neuron: Neuron, mode: str, input_: Tensor) -> Update:
    """The charge, which may be the user's, with the reset of the equation."""
    names = neuron.model.charged
    rule = neuron.model.rule(mode)
    states = tuple([getattr(neuron, name) for name in names])

    def charge(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        neuron.__dict__.update(zip(names, states, strict=True))  # a rule may have cleared the membrane first
        return as_tuple(neuron._base_state_function(x))

    return _as_returned(rule(charge, input_, states, _signal(neuron), neuron.threshold))
