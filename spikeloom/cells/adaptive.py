"""Neurons with spike-frequency adaptation, by a threshold or by a current."""

from .. import ops
from ..ops import Value
from .firing import States, Whole
from .linear import Nearest


def adaptive_threshold(
    x: Value,
    mem: Value,
    adapt: Value,
    *,
    beta: Value = 0.9,
    rho: Value = 0.97,
    kappa: Value = 0.1,
    threshold: Value = 1.0,
) -> States:
    """Leaky integrate-and-fire neuron with an adaptive threshold, which each spike raises and which decays back.

    With R = H(mem - threshold - kappa * adapt) from the previous step, without gradient:

    adapt' = rho * adapt + R;  mem' = beta * mem + x - R * threshold;  spk = H(mem' - threshold - kappa * adapt')

    Args:
        beta: decay of the membrane per step, in [0, 1] (see `decay`).
        rho: decay of the adaptation per step, in [0, 1].
        kappa: increase of the threshold per spike.
        threshold: threshold without adaptation.

    Source: Bellec et al., "Long short-term memory and learning-to-learn in networks of spiking neurons", 2018; Bellec
    et al., "A solution to the learning dilemma for recurrent networks of spiking neurons", 2020, equations 6 to 10.

        >>> import torch, spikeloom as snn
        >>> lif = snn.ALIF(beta=0.5, rho=1.0, kappa=0.25)
        >>> spk, mem, adapt = snn.unroll(lif, torch.full((14, 1), 1.2))
        >>> spk.flatten()  # the intervals grow
        tensor([1., 0., 1., 0., 1., 0., 0., 1., 0., 0., 1., 0., 0., 0.])
    """
    fired = ops.detach(ops.spike(mem - threshold - kappa * adapt))
    adapt = rho * adapt + fired
    mem = beta * mem + x - fired * threshold
    return ops.spike(mem - threshold - kappa * adapt), mem, adapt


def adaptive_current(
    x: Value,
    mem: Value,
    adapt: Value,
    *,
    beta: Value = 0.9,
    rho: Value = 0.95,
    a: Value = 0.5,
    b: Value = 0.5,
    threshold: Value = 1.0,
) -> States:
    """Adaptive leaky integrate-and-fire neuron: a current driven by membrane and spikes counteracts the input.

    With R = H(mem - threshold) from the previous step, without gradient:

    adapt' = rho * adapt + a * mem + b * R;  mem' = beta * (mem - R * threshold) + (1 - beta) * (x - adapt')

    and spk = H(mem' - threshold). With a > 0 the membrane can oscillate.

    Args:
        beta: decay of the membrane per step, in [0, 1] (see `decay`).
        rho: decay of the adaptation per step, in [0, 1].
        a: coupling of the adaptation to the membrane.
        b: increase of the adaptation per spike.
        threshold: membrane above which the neuron fires.

    Source: Bittar and Garner, "A surrogate gradient spiking baseline for speech command recognition", 2022, section 2;
    after Brette and Gerstner, "Adaptive exponential integrate-and-fire model", 2005, without the exponential.

        >>> import torch, spikeloom as snn
        >>> lif = snn.AdLIF(beta=0.5, a=0.0, b=1.0)
        >>> snn.unroll(lif, torch.full((8, 1), 3.0))[0].flatten()
        tensor([1., 1., 0., 0., 1., 0., 0., 0.])
    """
    fired = ops.detach(ops.spike(mem - threshold))
    adapt = rho * adapt + a * mem + b * fired
    mem = beta * (mem - fired * threshold) + (1 - beta) * (x - adapt)
    return ops.spike(mem - threshold), mem, adapt


ADAPTIVE_THRESHOLD = Whole(
    adaptive_threshold,
    decays=("beta", "rho"),
    nearest=Nearest(
        "Leaky with the same beta and threshold, without the adaptation",
        lambda p: {"beta": p["beta"], "threshold": p["threshold"]},
    ),
)
ADAPTIVE_CURRENT = Whole(
    adaptive_current,
    decays=("beta", "rho"),
    nearest=Nearest(
        "ParametricLIF with the same beta and threshold, without the adaptation",
        lambda p: {"beta": p["beta"], "gain": 1 - p["beta"], "threshold": p["threshold"]},
    ),
)
