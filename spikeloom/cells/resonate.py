"""Resonate-and-fire: a membrane that rings at a frequency of its own."""

from .. import ops
from ..ops import Value
from .firing import States, Whole


def resonate_and_fire(
    x: Value, current: Value, mem: Value, *, beta: Value = 0.95, omega: Value = 0.5, threshold: Value = 1.0
) -> States:
    """Resonate-and-fire neuron: a damped oscillation that inputs in its rhythm build up.

    z = current + i mem is turned by omega and shrunk by beta at every step, and the input enters its real part:

    current' = beta * (cos(omega) * current - sin(omega) * mem) + x
    mem'     = beta * (sin(omega) * current + cos(omega) * mem)

    spk = H(mem' - threshold), and z is set to i * threshold by a spike. No gradient flows through the reset.

    Args:
        beta: what is left of the amplitude after a step, held between 0 and 1 (see `decay`).
        omega: angular frequency, in radians per step.
        threshold: membrane above which the neuron fires.

    Source: Izhikevich, "Resonate-and-fire neurons", 2001, equation 1, by one exact step.

        >>> import torch, spikeloom as snn
        >>> lif, pulses = snn.ResonateFire(omega=1.05), torch.zeros(20, 1)
        >>> pulses[0::6] = 0.7  # in its rhythm: one turn takes 2 pi / 1.05 = 6 steps
        >>> snn.unroll(lif, pulses)[0].flatten().nonzero().flatten()
        tensor([ 7, 13, 19])
    """
    turn, lift = beta * ops.cos(omega), beta * ops.sin(omega)
    current, mem = turn * current - lift * mem + x, lift * current + turn * mem
    spk = ops.spike(mem - threshold)
    fired = ops.detach(spk)
    return spk, current - fired * current, mem - fired * (mem - threshold)


RESONATE_AND_FIRE = Whole(resonate_and_fire, decays=("beta",))
