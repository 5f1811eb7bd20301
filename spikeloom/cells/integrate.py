"""Neurons without a decay, or without spikes: the integrate-and-fire neuron and the leaky integrator."""

from ..ops import Value
from .firing import Model, States, Whole


def integrate_and_fire(x: Value, mem: Value) -> States:
    """Integrate-and-fire neuron: a membrane without leak, mem' = mem + x, less its reset.

    spk = H(mem' - threshold); the resets are those of `spikeloom.Leaky` with beta = 1.

    Source: Abbott, "Lapicque's introduction of the integrate-and-fire model neuron (1907)", 1999.

        >>> import torch, spikeloom as snn
        >>> snn.unroll(snn.IF(), torch.full((5, 1), 0.6))[0].flatten()
        tensor([0., 1., 0., 1., 0.])
    """
    return (mem + x,)


def leaky_integrator(x: Value, mem: Value, *, beta: Value = 0.9) -> States:
    """Leaky integrator, a readout that does not spike: mem' = beta * mem + x, and mem' is its output.

    Args:
        beta: decay per step, held between 0 and 1 (see `decay`).

    Source: Gerstner et al., "Neuronal Dynamics", 2014, equation 1.5, by one exact step.

        >>> import torch, spikeloom as snn
        >>> readout = snn.LI(beta=0.5, init_hidden=True)
        >>> snn.unroll(readout, torch.ones(3, 1)).flatten()
        tensor([1.0000, 1.5000, 1.7500])
    """
    mem = beta * mem + x
    return mem, mem


INTEGRATE_AND_FIRE = Model(integrate_and_fire)
LEAKY_INTEGRATOR = Whole(leaky_integrator, decays=("beta",))
