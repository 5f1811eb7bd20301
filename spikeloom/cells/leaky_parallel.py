"""A leaky integrator without reset whose membrane never falls below zero: a recurrent ReLU unit of its own."""

from .. import ops
from ..ops import Value
from .firing import Whole


def leaky_parallel(
    x: Value, mem: Value, *, weight: Value, threshold: Value, graded_spikes_factor: Value
) -> tuple[Value, ...]:
    """mem' = relu(weight * mem + x);  spk = factor * H(mem' - threshold)."""
    charged = weight * mem + x
    mem = ops.where(charged <= 0, 0.0, charged)  # no gradient at zero, and NaN comes through
    return ops.spike(mem - threshold) * graded_spikes_factor, mem


LEAKY_PARALLEL = Whole(leaky_parallel, any_order=True)
