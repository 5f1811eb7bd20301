"""The integrate-and-fire neuron, which has no decay, and the leaky integrator, which has no spikes."""

from ..ops import Value
from .firing import Model, States, Whole


def integrate_and_fire(x: Value, mem: Value) -> States:
    """Integrate-and-fire neuron: a membrane without decay, mem' = mem + x, and a reset.

    spk = H(mem' - threshold). A delayed "zero" also clears the input of the step. Other resets: see `spikeloom.Leaky`.

    Source: Abbott, "Lapicque's introduction of the integrate-and-fire model neuron (1907)", 1999.

        >>> import torch, spikeloom as snn
        >>> snn.unroll(snn.IF(), torch.full((5, 1), 0.6))[0].flatten()
        tensor([0., 1., 0., 1., 0.])
    """
    return (mem + x,)


def leaky_integrator(x: Value, mem: Value, *, beta: Value = 0.9) -> States:
    """Leaky integrator, a readout without spikes: mem' = beta * mem + x is also its output.

    Args:
        beta: decay per step, in [0, 1] (see `decay`).

    Source: Gerstner et al., "Neuronal Dynamics", 2014, equation 1.5, integrated exactly over one step.

        >>> import torch, spikeloom as snn
        >>> readout = snn.LI(beta=0.5, init_hidden=True)
        >>> snn.unroll(readout, torch.ones(3, 1)).flatten()
        tensor([1.0000, 1.5000, 1.7500])
    """
    mem = beta * mem + x
    return mem, mem


INTEGRATE_AND_FIRE = Model(integrate_and_fire)
LEAKY_INTEGRATOR = Whole(leaky_integrator, decays=("beta",))
