"""Leaky integrator with a ReLU and without reset, with a recurrent weight per neuron or a full matrix."""

from .. import ops
from ..ops import Value
from .firing import Whole


def leaky_parallel(
    x: Value, mem: Value, *, weight: Value, threshold: Value, graded_spikes_factor: Value
) -> tuple[Value, ...]:
    """mem' = relu(weight * mem + x);  spk = factor * H(mem' - threshold)."""
    return joint_parallel(weight * mem + x, mem, threshold=threshold, graded_spikes_factor=graded_spikes_factor)


def joint_parallel(x: Value, mem: Value, *, threshold: Value, graded_spikes_factor: Value) -> tuple[Value, ...]:
    """With a full recurrent matrix, whose product is part of x: mem' = relu(x);  spk as above."""
    mem = ops.where(x <= 0, 0.0, x)  # no gradient at zero; propagates NaN
    return ops.spike(mem - threshold) * graded_spikes_factor, mem


LEAKY_PARALLEL = Whole(leaky_parallel, any_order=True)
JOINT_PARALLEL = Whole(joint_parallel)
