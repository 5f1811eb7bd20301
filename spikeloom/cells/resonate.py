"""Resonate-and-fire: a damped oscillator."""

from .. import ops
from ..ops import Value
from .firing import States, Whole
from .linear import Nearest, Parameters


def resonate_and_fire(
    x: Value, current: Value, mem: Value, *, beta: Value = 0.95, omega: Value = 0.5, threshold: Value = 1.0
) -> States:
    """Resonate-and-fire neuron: a damped oscillator that inputs at its frequency excite most.

    At every step z = current + i mem is rotated by omega and scaled by beta, and the input is added to its real part:

    current' = beta * (cos(omega) * current - sin(omega) * mem) + x
    mem'     = beta * (sin(omega) * current + cos(omega) * mem)

    spk = H(mem' - threshold). A spike sets z to i * threshold. No gradient flows through the reset.

    Args:
        beta: decay of the amplitude per step, in [0, 1] (see `decay`).
        omega: angular frequency, in radians per step.
        threshold: membrane above which the neuron fires.

    Source: Izhikevich, "Resonate-and-fire neurons", 2001, equation 1, integrated exactly over one step.

        >>> import torch, spikeloom as snn
        >>> lif, pulses = snn.ResonateFire(omega=1.05), torch.zeros(20, 1)
        >>> pulses[0::6] = 0.7  # at its frequency: one period is 2 pi / 1.05 = 6 steps
        >>> snn.unroll(lif, pulses)[0].flatten().nonzero().flatten()
        tensor([ 7, 13, 19])
    """
    turn, lift = beta * ops.cos(omega), beta * ops.sin(omega)
    current, mem = turn * current - lift * mem + x, lift * current + turn * mem
    spk = ops.spike(mem - threshold)
    fired = ops.detach(spk)
    return spk, current - fired * current, mem - fired * (mem - threshold)


def _synaptic(p: Parameters) -> Parameters:
    turn = ops.clamp(p["beta"] * ops.cos(p["omega"]), 0.0, 0.999)
    gain = p["beta"] * ops.sin(p["omega"])
    return {"alpha": turn, "beta": turn, "gain": gain, "threshold": p["threshold"]}


RESONATE_AND_FIRE = Whole(
    resonate_and_fire,
    decays=("beta",),
    nearest=Nearest("Synaptic with the same decay, without the oscillation", _synaptic),
)
