"""Current-based leaky integrate-and-fire with a refractory period."""

from .. import ops
from ..ops import Value
from .firing import States, Whole
from .linear import Nearest


def refractory(
    x: Value,
    syn: Value,
    mem: Value,
    wait: Value,
    *,
    alpha: Value = 0.8,
    beta: Value = 0.9,
    period: Value = 2.0,
    threshold: Value = 1.0,
) -> States:
    """Current-based leaky integrate-and-fire neuron whose membrane is zero for `period` steps after a spike.

    syn' = alpha * syn + x;  v = beta * mem + syn' if wait = 0, else 0;  spk = H(v - threshold)

    mem' = 0 and wait' = period if it fired, else mem' = v and wait' = max(wait - 1, 0). The current is not reset. No
    gradient flows through the reset or `wait`.

    Args:
        alpha: decay of the current per step, in [0, 1] (see `decay`).
        beta: decay of the membrane per step, in [0, 1].
        period: refractory period, in steps.
        threshold: membrane above which the neuron fires.

    Source: Gerstner et al., "Neuronal Dynamics", 2014, section 1.3; Dayan and Abbott, "Theoretical Neuroscience", 2001,
    section 5.4.

        >>> import torch, spikeloom as snn
        >>> snn.unroll(snn.CuBaLIF(period=3), torch.full((9, 1), 2.0))[0].flatten()
        tensor([1., 0., 0., 0., 1., 0., 0., 0., 1.])
    """
    syn = alpha * syn + x
    mem = ops.where(wait > 0, 0.0, beta * mem + syn)
    spk = ops.spike(mem - threshold)
    fired = ops.detach(spk)
    wait = ops.where(fired > 0, period, ops.clamp(ops.detach(wait) - 1.0, 0.0, float("inf")))
    return spk, syn, mem - fired * mem, wait


REFRACTORY = Whole(
    refractory,
    decays=("alpha", "beta"),
    nearest=Nearest(
        "Synaptic with the same alpha, beta and threshold, without the refractory period",
        lambda p: {"alpha": p["alpha"], "beta": p["beta"], "threshold": p["threshold"]},
    ),
)
