"""Leaky integrator that fires when its membrane changes by more than a threshold."""

from .. import ops
from ..ops import Value
from .firing import Whole
from .linear import Nearest


def delta_leaky(x: Value, mem: Value, mem_prev: Value, *, beta: Value, delta_threshold: Value) -> tuple[Value, ...]:
    """mem' = beta * mem + x;  spk = H(|mem' - mem| - delta_threshold); there is no reset."""
    new = beta * mem + x
    return ops.spike(ops.abs(new - mem) - delta_threshold), new, mem


DELTA_LEAKY = Whole(
    delta_leaky,
    nearest=Nearest(
        "Leaky, which fires at a value of the membrane and not at a change",
        lambda p: {"beta": p["beta"], "threshold": p["delta_threshold"]},
    ),
)
