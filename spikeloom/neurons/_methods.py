"""The methods that a subclass may override, or assign on one neuron: dynamics, firing, reset and forward.

A neuron without overridden methods runs by its equation, on any backend. One with overridden methods runs step by step
through them, even over a whole sequence. Overriding a method that is never called raises an error.

`_base_state_function` is the charge of the equation without any reset, and `_base_sub`, `_base_zero` and `_base_int`
are the charge with each reset: snnTorch's names. They read the states of the layer (`self.mem`) and the reset signal
(`self.reset`), and return the new states: one tensor, or a tuple that ends in the membrane.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..cells.firing import Model
from ._parameters import NO_MODEL, checked_params, is_ours, taken
from ._unrolled_run import forward_over_time

Update = Tensor | tuple[Tensor, ...]
"""The new states: one tensor, or a tuple that ends in the membrane."""

Neuron = Any
"""A `SpikingNeuron`, which cannot be imported here because it depends on this file."""

OF_RESET: Mapping[str, str] = {"subtract": "_base_sub", "zero": "_base_zero", "none": "_base_int"}
"""The method of each reset mechanism."""

HOOKS = (
    *("fire", "fire_inhibition", "mem_reset", "_base_state_function", "_base_sub", "_base_zero", "_base_int"),
    *("_base_state_reset_zero", "_base_state_reset_sub_function"),
)
"""The methods through which a step runs if one of them is overridden."""

ASSIGNABLE = frozenset((*HOOKS, "state_function"))
"""The names that may also be assigned on one neuron."""

WATCHED = frozenset((*ASSIGNABLE, "forward"))

_RECURRENT = (
    *("_init_recurrent_net", "_init_recurrent_linear", "_init_recurrent_conv2d", "_init_recurrent_one_to_one"),
    *("_init_padding", "_disable_recurrent_grad", "_V_register_buffer"),
)

UNCALLED: Mapping[str, tuple[str, ...]] = {
    "SpikingNeuron": (
        *("_snn_cases", "_reset_cases", "_snn_register_buffer", "_threshold_buffer", "_graded_spikes_buffer"),
        *("_reset_mechanism_buffer", "_surrogate_bypass"),
    ),
    "LIF": ("_lif_register_buffer", "_beta_buffer"),
    "Alpha": ("_alpha_register_buffer", "_alpha_cases"),
    "Lapicque": ("_lapicque_cases",),
    "LeakyParallel": ("_beta_buffer", "_beta_to_weight_hh", "grad_hook", "weight_hh_enable"),
    "RLeaky": (*_RECURRENT, "_rleaky_init_cases", "init_rleaky"),
    "RSynaptic": (*_RECURRENT, "_rsynaptic_init_cases", "_alpha_register_buffer"),
    "SConv2dLSTM": ("_sconv2dlstm_cases",),
    "StateLeaky": ("_tau_buffer",),
    "Synaptic": ("_alpha_register_buffer",),
}
"""Methods that snnTorch calls, mostly in a constructor, and that are never called here."""


class _OfMode:
    """The attribute `state_function`: the method of the current reset mechanism, unless another is assigned."""

    def __get__(self, neuron: Neuron, kind: type) -> Any:
        return self if neuron is None else getattr(neuron, OF_RESET[neuron.reset_mechanism])


class Methods:
    """Dynamics, firing and reset as methods of a layer, and which of them are overridden."""

    threshold: Tensor
    graded_spikes_factor: Tensor
    spike_grad: Callable[..., Tensor]
    state_quant: Any
    inhibition: bool
    state_function = _OfMode()

    _calls: ClassVar[tuple[str, ...]] = HOOKS  # the methods that a step calls
    _overridden: ClassVar[tuple[str, ...]] = ()  # those of them that are overridden
    _stepwise: ClassVar[bool] = True  # whether a call of forward is one step
    _assigned: bool = False  # whether one of them was assigned to this neuron

    # -- firing -------------------------------------------------------------------------------------------------------

    def fire(self, mem: Tensor) -> Tensor:
        """Spikes of a membrane [B, *N]: spike_grad(mem - threshold) * graded_spikes_factor.

        If there is a state_quant, it is applied once more before the membrane is compared with the threshold.
        """
        if callable(self.state_quant):
            mem = self.state_quant(mem)
        spk: Tensor = self.spike_grad(mem - self.threshold) * taken(self.graded_spikes_factor)
        return spk

    def _spikes(self, mem: Tensor) -> Tensor:
        """The spikes by the methods for a new membrane [B, *N]."""
        return self.fire_inhibition(mem.size(0) if mem.dim() else 0, mem) if self.inhibition else self.fire(mem)

    def fire_inhibition(self, batch_size: int, mem: Tensor) -> Tensor:
        """Spikes of a membrane [B, N, ...] where only the largest mem - threshold along dimension 1 may fire.

        The graded factor is not applied. `batch_size` is not used; it is B.
        """
        del batch_size
        if mem.dim() < 2:
            raise ValueError(
                f"inhibition compares neurons along dimension 1 and got a membrane of shape {tuple(mem.shape)}; "
                "pass an input of shape [B, N, ...], or use inhibition=False"
            )
        above = mem - self.threshold
        spk: Tensor = self.spike_grad(above)
        if not mem.size(1):
            return spk
        winner = torch.zeros_like(spk).scatter_(1, above.argmax(dim=1, keepdim=True), 1.0)
        return spk * winner

    def mem_reset(self, mem: Tensor) -> Tensor:
        """The reset signal R of a membrane [B, *N]: 1 where it is above threshold, without gradient."""
        # detached first, to avoid the cost of differentiating the spikes
        fired: Tensor = self.spike_grad((mem - self.threshold).detach())
        return fired.detach()

    # -- dynamics -----------------------------------------------------------------------------------------------------

    def _base_state_function(self, input_: Tensor) -> Update:
        """The new states by the charge alone, for an input [B, *N] and the states of the layer."""
        states = charged(self, input_)
        return states[0] if len(states) == 1 else states

    def _base_sub(self, input_: Tensor) -> Update:
        """The new states with the reset by subtraction."""
        return _with_reset(self, "subtract", input_)

    def _base_zero(self, input_: Tensor) -> Update:
        """The new states with the reset to zero."""
        return _with_reset(self, "zero", input_)

    def _base_int(self, input_: Tensor) -> Update:
        """The new states without a reset."""
        return _with_reset(self, "none", input_)

    # -- which methods are overridden ---------------------------------------------------------------------------------

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._inspect()
        for name, advice in _uncalled(cls):
            raise TypeError(f"{cls.__name__} defines {name}, which nothing calls; {advice}")

    @classmethod
    def _inspect(cls) -> None:
        """Find the overridden methods. Called again if a method of the class or a base class is assigned later."""
        theirs = tuple(name for name in HOOKS if not is_ours(getattr(cls, name, is_ours)))
        type.__setattr__(cls, "_overridden", theirs)
        forward: Any = cls.forward  # type: ignore[attr-defined]
        if cls._stepwise and not is_ours(forward) and not hasattr(forward, "over_time"):
            type.__setattr__(cls, "forward", forward_over_time(forward))

    @classmethod
    def _admit(cls, name: str) -> None:
        """Reject a method that is assigned to the class or to one neuron and is never called."""
        if name in HOOKS and name not in cls._calls:
            raise TypeError(f"{name} was assigned to {cls.__name__}, whose step does not call it")

    def _is_overridden(self, name: str) -> bool:
        """Whether one of `HOOKS` is overridden, by the class or on this neuron."""
        return name in self._overridden or name in self.__dict__

    def _assign(self, name: str, method: Any) -> Any:
        """The value to store for an attribute in `WATCHED` that is assigned on this neuron."""
        if name == "forward":
            if not self._stepwise or is_ours(method) or hasattr(method, "over_time"):
                return method
            return MethodType(forward_over_time(lambda _, *args, **kwargs: method(*args, **kwargs)), self)
        self._admit(name)
        self.__dict__["_assigned"] = True
        return method

    def _why_by_methods(self) -> Iterator[str]:
        """The reasons why the neuron runs by its methods instead of its equation; none if it does not."""
        if not isinstance(self._model, Model):  # type: ignore[attr-defined]  # its equation includes firing and reset
            return
        if self.state_quant:
            yield "state_quant is a user function"
        if self.inhibition:
            yield "inhibition compares neurons with each other"
        for name in self._overridden:
            yield f"{type(self).__name__} overrides {name}"
        if self._assigned:
            yield from (
                f"{name} was assigned to this {type(self).__name__}" for name in self.__dict__ if name in ASSIGNABLE
            )


def _uncalled(cls: type[Methods]) -> Iterator[tuple[str, str]]:
    """The methods of a class that would never be called, and what to do instead."""
    neuron: Any = cls
    if is_ours(neuron.forward):
        for name in cls._overridden:
            if name not in cls._calls:
                yield name, "override forward instead"
    if neuron._model is not NO_MODEL and not is_ours(cls.state_function):
        yield "state_function", "name it _base_state_function, or assign it to self.state_function in the constructor"
    for kind in cls.__mro__:
        for name in UNCALLED.get(kind.__name__, ()) if is_ours(kind) else ():
            if callable(method := getattr(cls, name, None)) and not is_ours(method):
                yield name, "call what it does after super().__init__(...) in your constructor"


class ClearedByEquation:
    """A neuron whose reset to zero subtracts the charge of its equation, even if a subclass overrides the charge."""

    def _base_state_reset_zero(self: Neuron, input_: Tensor) -> tuple[Any, ...]:
        """The amount that a reset to zero subtracts from each new state: 0 for currents, all of the membrane."""
        *rest, mem = charged(self, input_)
        return (*[0] * len(rest), mem)

    def _base_zero(self: Neuron, input_: Tensor) -> Update:
        """The new states with the reset to zero."""
        return less(self, self._base_state_function(input_), self._base_state_reset_zero(input_))


def charged(neuron: Neuron, input_: Tensor) -> tuple[Tensor, ...]:
    """The new states by the charge of the equation, ignoring overrides."""
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
    """The new states, minus the amounts of the reset where the neuron has fired."""
    fired = _signal(neuron)
    return tuple([state - fired * off for state, off in zip(as_tuple(states), taken_off, strict=True)])


def as_tuple(update: Update) -> tuple[Tensor, ...]:
    """The new states as a tuple."""
    return tuple(update) if isinstance(update, (tuple, list)) else (update,)


def _signal(neuron: Neuron) -> Tensor:
    """The reset signal set by the step or by a custom forward; otherwise that of the current membrane."""
    fired: Tensor = neuron.mem_reset(neuron.mem) if neuron.reset is None else neuron.reset
    return fired


def _with_reset(neuron: Neuron, mode: str, input_: Tensor) -> Update:
    """The charge, which may be overridden, with the reset of the equation."""
    names = neuron.model.charged
    states = tuple([getattr(neuron, name) for name in names])

    def charge(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        for name, state in zip(names, states, strict=True):  # a reset rule may have cleared the membrane first
            neuron.__dict__[name] = state  # torch.compile of 2.9 cannot trace an update
        return as_tuple(neuron._base_state_function(x))

    new: tuple[Any, ...] = neuron.model.rule(mode)(charge, input_, states, _signal(neuron), neuron.threshold)
    return new[0] if len(new) == 1 else new
