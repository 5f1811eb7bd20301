"""Leaky integrator without reset, which fires while its membrane exceeds the threshold."""

from collections.abc import Callable, Mapping

from .. import ops
from ..ops import Value
from .decay import DECAYS
from .firing import Whole

DECAY_OF: Mapping[str, Callable[[Value], Value]] = {
    "tau": lambda tau: ops.exp(-1.0 / tau),
    "beta": DECAYS["clamp"].bounded,
}
"""Functions that compute the decay per step, by the name of their parameter."""


def state_leaky(
    x: Value, mem: Value, *, tau: Value, threshold: Value, graded_spikes_factor: Value
) -> tuple[Value, ...]:
    """mem' = exp(-1 / tau) * mem + x;  spk = factor * factor * H(mem' - threshold)."""
    mem = DECAY_OF["tau"](tau) * mem + x
    return ops.spike(mem - threshold) * graded_spikes_factor * graded_spikes_factor, mem


def state_leaky_exact(
    x: Value, mem: Value, *, beta: Value, threshold: Value, graded_spikes_factor: Value
) -> tuple[Value, ...]:
    """mem' = clamp(beta, 0, 1) * mem + x;  spk = factor * H(mem' - threshold)."""
    mem = DECAY_OF["beta"](beta) * mem + x
    return ops.spike(mem - threshold) * graded_spikes_factor, mem


STATE_LEAKY = Whole(state_leaky, any_order=True)
STATE_LEAKY_EXACT = Whole(state_leaky_exact, any_order=True)
