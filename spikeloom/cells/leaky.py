"""Leaky integrate-and-fire: one membrane that decays by beta per step."""

from .. import ops
from ..ops import Value
from .firing import Model, zero_before_charge


def leaky(x: Value, mem: Value, *, beta: Value) -> tuple[Value, ...]:
    """mem' = clamp(beta, 0, 1) * mem + x."""
    return (ops.clamp(beta, 0, 1) * mem + x,)


LEAKY = Model(leaky, resets={"zero": zero_before_charge})
