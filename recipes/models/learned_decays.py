"""Every neuron learns its own time constant (Perez-Nieves et al. 2021; Fang et al. 2021)."""

import torch
from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes


def decays(number: int) -> torch.Tensor:
    """Time constants from 2 to 50 steps, evenly spaced on a logarithmic scale."""
    return torch.exp(-1 / torch.logspace(0.3, 1.7, number))


def network(sizes: Sizes, hidden: int = 128) -> nn.Module:
    """Two hidden layers."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (sizes.inputs, hidden):
        lif = snn.Leaky(beta=decays(hidden), learn_beta=True, decay="sigmoid", init_hidden=True)
        layers += [nn.Linear(inputs, hidden), lif]
    readout = snn.LI(beta=decays(sizes.outputs), learn="beta", decay="sigmoid", init_hidden=True)
    return nn.Sequential(*layers, nn.Linear(hidden, sizes.outputs), readout)


RECIPE = Recipe("LIF, learned decays", network)
