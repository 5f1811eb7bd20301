"""The firing frame: threshold, reset, delay and grading, written once for every neuron.

A model file states only how a neuron *charges*; the frame makes a cell of it. One step is

    R    = H(mem - threshold)                 from the membrane of the step before, without gradient
    mem' = reset rule of the charge with R    (delayed reset: it acts one step after the spike)
    spk  = H(mem' - threshold) * factor

and, with ``reset_delay=False``, the spike that R did not know of yet resets the membrane within the same step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Protocol

from .. import ops
from ..ops import Value
from .cell import Cell, signature_of

States = tuple[Value, ...]
Charge = Callable[..., States]
Rule = Callable[[Charge, Value, States, Value, Value], States]

FRAME_PARAMS = ("threshold", "graded_spikes_factor")


class Firing(Protocol):
    """How spikes come about: the threshold's own way, or the methods of a user's subclass."""

    def reset_signal(self, mem: Value) -> Value: ...
    def settle(self, states: States) -> States: ...
    def spikes(self, mem: Value) -> Value: ...


@dataclass(frozen=True)
class Threshold:
    """Fire above a threshold: H(mem - threshold) * factor."""

    threshold: Value
    factor: Value

    def reset_signal(self, mem: Value) -> Value:
        return ops.detach(ops.spike(mem - self.threshold))

    def settle(self, states: States) -> States:
        return states

    def spikes(self, mem: Value) -> Value:
        return ops.spike(mem - self.threshold) * self.factor


def subtract(charge: Charge, x: Value, states: States, fired: Value, threshold: Value) -> States:
    """The charged membrane less one threshold: mem' = charge(mem, x) - R * threshold."""
    *rest, mem = charge(x, *states)
    return (*rest, mem - fired * threshold)


def zero(charge: Charge, x: Value, states: States, fired: Value, threshold: Value) -> States:
    """The charged membrane cleared, the new input with it: mem' = (1 - R) * charge(mem, x)."""
    *rest, mem = charge(x, *states)
    return (*rest, (1 - fired) * mem)


def zero_before_charge(charge: Charge, x: Value, states: States, fired: Value, threshold: Value) -> States:
    """Only the old membrane cleared, the new input survives: mem' = charge((1 - R) * mem, x)."""
    *rest, mem = states
    return charge(x, *rest, (1 - fired) * mem)


def none(charge: Charge, x: Value, states: States, fired: Value, threshold: Value) -> States:
    """No reset: mem' = charge(mem, x)."""
    return charge(x, *states)


RESETS: Mapping[str, Rule] = {"subtract": subtract, "zero": zero, "none": none}

# The reset within the same step, for spikes that the delayed reset has not seen: late = spk - R.
IMMEDIATE: Mapping[str, Callable[[Value, Value, Value], Value]] = {
    "subtract": lambda mem, late, threshold: mem - late * threshold,
    "zero": lambda mem, late, threshold: mem - late * mem,
    "none": lambda mem, late, threshold: mem,
}


@dataclass(frozen=True)
class Model:
    """A neuron that charges and fires: its charge equation and where its resets differ from the common ones.

    Args:
        charge: ``(x, *states, *, params) -> new states``; the membrane is the last state.
        resets: rules that replace those of `RESETS` by name.
    """

    charge: Charge
    resets: Mapping[str, Rule] = field(default_factory=dict, hash=False)

    @cached_property
    def states(self) -> tuple[str, ...]:
        return signature_of(self.charge)[0]

    @cached_property
    def params(self) -> tuple[str, ...]:
        return (*signature_of(self.charge)[1], *FRAME_PARAMS)

    def step(
        self, firing: Firing, reset: str, delayed: bool, x: Value, states: States, p: Mapping[str, Value]
    ) -> States:
        """One time step: the spikes, then the new states."""
        threshold, factor = (p[name] for name in FRAME_PARAMS)
        charge = partial(self.charge, **{name: v for name, v in p.items() if name not in FRAME_PARAMS})
        fired = firing.reset_signal(states[-1])
        rule = self.resets.get(reset, RESETS[reset])
        *rest, mem = firing.settle(rule(charge, x, states, fired, threshold))
        spk = firing.spikes(mem)
        if not delayed:
            mem = IMMEDIATE[reset](mem, spk / factor - fired, threshold)
        return (spk, *rest, mem)

    def cell(self, reset: str = "subtract", delayed: bool = True) -> Cell:
        """The cell of this model with one kind of reset."""
        name = f"{self.charge.__name__}/{reset}/{'delayed' if delayed else 'immediate'}"
        return Cell(name, _Equation(self, reset, delayed), self.states, self.params)


@dataclass(frozen=True)
class _Equation:
    """A model's step under one choice of reset, in the form of a complete equation; equal choices are equal."""

    model: Model
    reset: str
    delayed: bool

    def __call__(self, x: Value, *states: Value, **params: Value) -> States:
        firing = Threshold(*(params[name] for name in FRAME_PARAMS))
        return self.model.step(firing, self.reset, self.delayed, x, states, params)
