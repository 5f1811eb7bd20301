"""Leaky integrate-and-fire: one membrane that decays by beta per step."""

from ..ops import Value
from .firing import Model, zero_before_charge


def leaky(x: Value, mem: Value, *, beta: Value) -> tuple[Value, ...]:
    """mem' = beta * mem + x."""
    return (beta * mem + x,)


LEAKY = Model(leaky, resets={"zero": zero_before_charge}, decays=("beta",))
RLEAKY = Model(leaky, decays=("beta",), recurrent=True)
RLEAKY_THROUGH_LAYER = Model(leaky, decays=("beta",))
"""The recurrent neuron with feedback through a layer: the feedback is part of x, so a reset to zero clears it too."""
