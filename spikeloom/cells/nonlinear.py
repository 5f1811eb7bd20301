"""Nonlinear integrate-and-fire neurons: quadratic, exponential, Izhikevich."""

from .. import ops
from ..ops import Value
from .firing import States, Whole
from .linear import Nearest, Parameters


def quadratic(
    x: Value,
    mem: Value,
    *,
    tau: Value = 2.0,
    gain: Value = 1.0,
    v_rest: Value = 0.0,
    v_critical: Value = 0.8,
    threshold: Value = 1.0,
    v_reset: Value = 0.0,
) -> States:
    """Quadratic integrate-and-fire neuron: above a critical membrane it rises to the spike without input.

    v = mem + (gain * (mem - v_rest) * (mem - v_critical) + x) / tau

    spk = H(v - threshold);  mem' = v_reset if it fired, else v. One Euler step. No gradient through the reset.

    Args:
        tau: time constant, in steps.
        gain: strength of the quadratic drive.
        v_rest: stable membrane without input.
        v_critical: membrane above which it rises without input.
        threshold: membrane above which the neuron fires.
        v_reset: membrane after a spike.

    Source: Gerstner et al., "Neuronal Dynamics", 2014, equation 5.16; Latham et al., "Intrinsic dynamics in neuronal
    networks", 2000.

        >>> import torch, spikeloom as snn
        >>> snn.unroll(snn.QIF(), torch.full((5, 1), 1.0))[0].flatten()
        tensor([0., 0., 1., 0., 0.])
    """
    mem = mem + (gain * (mem - v_rest) * (mem - v_critical) + x) / tau
    spk = ops.spike(mem - threshold)
    return spk, mem - ops.detach(spk) * (mem - v_reset)


def exponential(
    x: Value,
    mem: Value,
    *,
    tau: Value = 2.0,
    v_rest: Value = 0.0,
    sharpness: Value = 0.2,
    rheobase: Value = 0.8,
    threshold: Value = 1.0,
    v_reset: Value = 0.0,
) -> States:
    """Exponential integrate-and-fire neuron: near the rheobase an exponential term dominates.

    v = mem + (v_rest - mem + sharpness * exp((mem - rheobase) / sharpness) + x) / tau

    spk = H(v - threshold);  mem' = v_reset if it fired, else v. One Euler step. No gradient through the reset.

    Args:
        tau: time constant, in steps.
        v_rest: resting membrane.
        sharpness: width of the exponential onset of the spike, in units of the membrane.
        rheobase: membrane at which the onset begins.
        threshold: membrane above which the neuron fires.
        v_reset: membrane after a spike.

    Source: Fourcaud-Trocmé et al., "How spike generation mechanisms determine the neuronal response to fluctuating
    inputs", 2003, equation 14.

        >>> import torch, spikeloom as snn
        >>> snn.unroll(snn.EIF(), torch.full((5, 1), 1.0))[0].flatten()
        tensor([0., 0., 0., 1., 0.])
    """
    mem = mem + (v_rest - mem + sharpness * ops.exp((mem - rheobase) / sharpness) + x) / tau
    spk = ops.spike(mem - threshold)
    return spk, mem - ops.detach(spk) * (mem - v_reset)


def izhikevich(
    x: Value,
    mem: Value = -65.0,
    recovery: Value = -13.0,
    *,
    a: Value = 0.02,
    b: Value = 0.2,
    c: Value = -65.0,
    d: Value = 8.0,
    threshold: Value = 30.0,
    dt: Value = 1.0,
) -> States:
    """Izhikevich neuron, in millivolts and milliseconds: reproduces most firing patterns of cortical neurons.

    v' = 0.04 v^2 + 5 v + 140 - u + x;  u' = a (b v - u);  at v > threshold: a spike, v = c, u = u + d

    Integrated by Euler steps of `dt`, two half steps for the membrane, as in the paper's code. Initial states: -65 and
    -13. Use a surrogate as wide as membranes in millivolts, for instance ``surrogate.atan(alpha=0.2)``.

    Args:
        a: rate of the recovery, per millisecond.
        b: coupling of the recovery to the membrane.
        c: membrane after a spike, in millivolts.
        d: increase of the recovery per spike.
        threshold: membrane above which the neuron fires, in millivolts.
        dt: length of a step, in milliseconds.

    Source: Izhikevich, "Simple model of spiking neurons", 2003.

        >>> import torch, spikeloom as snn
        >>> spk, mem, recovery = snn.unroll(snn.Izhikevich(), torch.full((200, 1), 10.0))
        >>> spk.flatten().nonzero().flatten()  # in milliseconds: regular spiking with adaptation
        tensor([  3,  30,  78, 140, 194])
    """
    for _ in range(2):
        mem = mem + 0.5 * dt * (0.04 * mem**2 + 5.0 * mem + 140.0 - recovery + x)
    recovery = recovery + dt * a * (b * mem - recovery)
    spk = ops.spike(mem - threshold)
    return spk, mem - ops.detach(spk) * (mem - c), recovery + spk * d


def _around_rest(p: Parameters) -> Parameters:
    beta = ops.clamp(1 - p["gain"] * (p["v_critical"] - p["v_rest"]) / p["tau"], 0.0, 0.999)
    leak = (1 - beta) * p["v_rest"]
    return {"beta": beta, "gain": 1 / p["tau"], "offset": leak, "threshold": p["v_critical"], "v_reset": p["v_reset"]}


def _below_rheobase(p: Parameters) -> Parameters:
    rate = ops.clamp(1 / p["tau"], 0.001, 1.0)
    leak = rate * p["v_rest"]
    return {"beta": 1 - rate, "gain": rate, "offset": leak, "threshold": p["rheobase"], "v_reset": p["v_reset"]}


def _between_fixed_points(p: Parameters) -> Parameters:
    slope = 5.0 - p["b"]
    width = ops.sqrt(ops.clamp(slope * slope - 4 * 0.04 * 140.0, 0.25, float("inf")))
    rest, critical = (-slope - width) / 0.08, (-slope + width) / 0.08
    beta = ops.clamp(1 - width * p["dt"], 0.0, 0.999)
    leak = (1 - beta) * rest
    return {"beta": beta, "gain": p["dt"], "offset": leak, "threshold": critical, "v_reset": p["c"]}


QUADRATIC = Whole(
    quadratic, nearest=Nearest("leaky integrate-and-fire with the critical membrane as its threshold", _around_rest)
)
EXPONENTIAL = Whole(
    exponential, nearest=Nearest("leaky integrate-and-fire with the rheobase as its threshold", _below_rheobase)
)
IZHIKEVICH = Whole(
    izhikevich,
    nearest=Nearest("leaky integrate-and-fire between its resting and its critical membrane", _between_fixed_points),
)
