"""Lapicque's neuron: a capacitor C and a resistor R in parallel, by Euler steps of `time_step`."""

from ..ops import Value
from .firing import Model


def lapicque(x: Value, mem: Value, *, R: Value, C: Value, time_step: Value) -> tuple[Value, ...]:
    """mem' = time_step / C * x + (1 - time_step / (R * C)) * mem."""
    return (x * (time_step / C) + (1 - time_step / (R * C)) * mem,)


LAPICQUE = Model(lapicque)
