"""Neurons with spike-frequency adaptation, by a threshold or by a current."""

from .. import ops
from ..ops import Value
from .firing import States, Whole
from .linear import Nearest, Parameters


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

    With R = H(mem - threshold - kappa * adapt) from the previous step:

    adapt' = rho * adapt + R;  mem' = beta * mem + x - R * threshold;  spk = H(mem' - threshold - kappa * adapt')

    The adaptation passes a gradient to the spike that raised it, over as many steps as it lasts; the reset has none.

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
    fired = ops.spike(mem - threshold - kappa * adapt)
    adapt = rho * adapt + fired
    mem = beta * mem + x - ops.detach(fired) * threshold
    return ops.spike(mem - threshold - kappa * adapt), mem, adapt


def recurrent_adaptive_threshold(
    x: Value,
    mem: Value,
    adapt: Value,
    *,
    beta: Value = 0.9,
    rho: Value = 0.97,
    kappa: Value = 0.1,
    threshold: Value = 1.0,
) -> States:
    """Recurrent `ALIF` neuron: its spikes are fed back as input one step later, as in the networks called LSNN.

    With R = H(mem - threshold - kappa * adapt) from the previous step, with a gradient in adapt' only:

    adapt' = rho * adapt + R;  mem' = beta * mem + x + f(spk) - R * threshold;  spk' = H(mem' - threshold - kappa *
    adapt')

    f(spk) is V * spk (all_to_all=False), or `recurrent(spk)`, an nn.Linear over all neurons (linear_features) or an
    nn.Conv2d over an image of neurons (conv2d_channels and kernel_size), as in `RLeaky`. The gradient flows through
    the feedback.

    Args:
        beta: decay of the membrane per step, in [0, 1] (see `decay`).
        rho: decay of the adaptation per step, in [0, 1].
        kappa: increase of the threshold per spike. An LSNN has neurons of both kinds in one recurrent layer: set kappa
            to a tensor that is 0 for those that do not adapt.
        threshold: threshold without adaptation.

    Source: Bellec et al., "Long short-term memory and learning-to-learn in networks of spiking neurons", 2018,
    equations 1 to 3, with a reset by subtraction and without axonal delays.

        >>> import torch, spikeloom as snn
        >>> lif = snn.RALIF(beta=0.5, rho=1.0, kappa=0.25, linear_features=3)
        >>> spk, mem, adapt = snn.unroll(lif, torch.rand(20, 2, 3))
        >>> spk.shape
        torch.Size([20, 2, 3])
        >>> kappa = torch.tensor([0.1] * 40 + [0.0] * 60)  # 40 of 100 neurons adapt
        >>> lsnn = snn.RALIF(kappa=kappa, linear_features=100, init_hidden=True)
    """
    return adaptive_threshold(x, mem, adapt, beta=beta, rho=rho, kappa=kappa, threshold=threshold)


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

    With R = H(mem - threshold) from the previous step, with a gradient in adapt' only:

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
    fired = ops.spike(mem - threshold)
    adapt = rho * adapt + a * mem + b * fired
    mem = beta * (mem - ops.detach(fired) * threshold) + (1 - beta) * (x - adapt)
    return ops.spike(mem - threshold), mem, adapt


def _without_adaptation(p: Parameters) -> Parameters:
    return {"beta": p["beta"], "threshold": p["threshold"]}


ADAPTIVE_THRESHOLD = Whole(
    adaptive_threshold,
    decays=("beta", "rho"),
    nearest=Nearest("Leaky with the same beta and threshold, without the adaptation", _without_adaptation),
)
ADAPTIVE_CURRENT = Whole(
    adaptive_current,
    decays=("beta", "rho"),
    nearest=Nearest(
        "ParametricLIF with the same beta and threshold, without the adaptation",
        lambda p: {"beta": p["beta"], "gain": 1 - p["beta"], "threshold": p["threshold"]},
    ),
)
RECURRENT_ADAPTIVE_THRESHOLD = Whole(
    recurrent_adaptive_threshold,
    decays=("beta", "rho"),
    recurrent=True,
    nearest=Nearest("RLeaky with the same beta and threshold, without the adaptation", _without_adaptation),
)
