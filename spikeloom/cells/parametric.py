"""Parametric leaky integrate-and-fire: a learned time constant."""

from ..ops import Value
from .firing import Model, States


def parametric(x: Value, mem: Value, *, beta: Value = 0.5) -> States:
    """Parametric leaky integrate-and-fire neuron with a learned time constant tau = 1 / (1 - beta).

    mem' = mem + (x - mem) / tau = beta * mem + (1 - beta) * x;  spk = H(mem' - threshold)

    By default ``beta = sigmoid(beta_logit)`` is learned, and a spike resets the membrane to zero within the same step.

    Args:
        beta: initial decay per step. Default: 0.5, which is tau = 2.

    Source: Fang et al., "Incorporating learnable membrane time constant to enhance learning of spiking neural
    networks", 2021, equations 4 to 8.

        >>> import torch, spikeloom as snn
        >>> lif = snn.ParametricLIF(beta=0.75)
        >>> snn.unroll(lif, torch.full((2, 1), 3.0))[0].flatten().tolist(), list(dict(lif.named_parameters()))
        ([0.0, 1.0], ['beta_logit'])
    """
    return (beta * mem + (1 - beta) * x,)


PARAMETRIC = Model(parametric, decays=("beta",))
