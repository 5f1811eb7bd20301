"""One entry of an associative memory: it decays by a gate that changes over time, and is written to."""

from .. import ops
from ..ops import Value
from .firing import Whole


def associative(
    x: Value, mem: Value, *, gate: Value, threshold: Value, graded_spikes_factor: Value
) -> tuple[Value, ...]:
    """mem' = gate * mem + x;  spk = factor * H(mem' - threshold)."""
    mem = gate * mem + x
    return ops.spike(mem - threshold) * graded_spikes_factor, mem


ASSOCIATIVE = Whole(associative, any_order=True)
