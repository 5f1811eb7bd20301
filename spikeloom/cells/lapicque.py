"""Lapicque's neuron: a capacitor C that leaks through a resistor R, one Euler step of `time_step` at a time."""

from ..ops import Value
from .firing import Model


def lapicque(x: Value, mem: Value, *, R: Value, C: Value, time_step: Value) -> tuple[Value, ...]:
    """mem' = time_step / C * x + (1 - time_step / (R * C)) * mem."""
    return (x * (time_step / C) + (1 - time_step / (R * C)) * mem,)


LAPICQUE = Model(lapicque)
