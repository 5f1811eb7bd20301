"""The alpha neuron: its membrane is the difference of two synaptic currents, which is an alpha function."""

from .. import ops
from ..ops import Value
from .firing import Charge, Model, States
from .linear import Nearest, Parameters


def alpha_neuron(
    x: Value, syn_exc: Value, syn_inh: Value, mem: Value, *, alpha: Value, beta: Value
) -> tuple[Value, ...]:
    """exc' = alpha * exc + x;  inh' = beta * inh - x;  mem' = tau * (exc' + inh').

    tau = ln(alpha) / (ln(beta) - ln(alpha)) + 1 scales the membrane, which follows from the currents alone.
    """
    exc, inh = alpha * syn_exc + x, beta * syn_inh - x
    tau = ops.log(alpha) / (ops.log(beta) - ops.log(alpha)) + 1
    return exc, inh, tau * (exc + inh)


def subtract(charge: Charge, x: Value, states: States, fired: Value, threshold: Value) -> States:
    """exc' - R * threshold;  (1 - R) * inh';  mem' + R * inh, with the inhibitory current of the previous step."""
    exc, inh, mem = charge(x, *states)
    return exc - fired * threshold, (1 - fired) * inh, mem + fired * states[1]


def zero(charge: Charge, x: Value, states: States, fired: Value, threshold: Value) -> States:
    """(1 - R) times both currents and the membrane."""
    exc, inh, mem = charge(x, *states)
    return (1 - fired) * exc, (1 - fired) * inh, (1 - fired) * mem


def _synaptic(p: Parameters) -> Parameters:
    alpha, beta = p["alpha"], p["beta"]
    tau = ops.log(alpha) / (ops.log(beta) - ops.log(alpha)) + 1
    return {"alpha": beta, "beta": alpha, "gain": tau * (alpha - beta), "threshold": p["threshold"]}


ALPHA = Model(
    alpha_neuron,
    resets={"subtract": subtract, "zero": zero},
    decays=("beta", "alpha"),
    nearest=Nearest("Synaptic, whose membrane has the same response, but one step earlier", _synaptic),
)
