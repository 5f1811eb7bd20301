"""Neurons with an adaptive threshold, which remembers recent spikes (Bellec et al. 2018), feed-forward."""

import torch
from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes


def neurons(number: int) -> nn.Module:
    """Threshold that decays with time constants of 5 to 200 steps."""
    rho = torch.exp(-1 / torch.logspace(0.7, 2.3, number))
    return snn.ALIF(beta=0.9, rho=rho, kappa=0.2, learn=("beta", "rho"), decay="sigmoid", init_hidden=True)


def network(sizes: Sizes, hidden: int = 128) -> nn.Module:
    """Two hidden layers."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (sizes.inputs, hidden):
        layers += [nn.Linear(inputs, hidden), neurons(hidden)]
    return nn.Sequential(*layers, nn.Linear(hidden, sizes.outputs), snn.LI(beta=0.9, init_hidden=True))


RECIPE = Recipe("ALIF", network)
