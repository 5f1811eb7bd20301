"""Current-based leaky integrate-and-fire: the current decays by alpha, the membrane by beta."""

from ..ops import Value
from .firing import Model


def synaptic(x: Value, syn: Value, mem: Value, *, alpha: Value, beta: Value) -> tuple[Value, ...]:
    """syn' = alpha * syn + x;  mem' = beta * mem + syn'."""
    syn = alpha * syn + x
    return syn, beta * mem + syn


SYNAPTIC = Model(synaptic, decays=("beta", "alpha"))
RSYNAPTIC = Model(synaptic, decays=("beta", "alpha"), recurrent=True)
