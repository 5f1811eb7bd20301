"""Leaky integrators without reset, as in state space models: a linear filter bank, spikes as its nonlinearity."""

import torch
from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes


def network(sizes: Sizes, hidden: int = 128) -> nn.Module:
    """Two hidden layers, time constants of 2 to 100 steps, learned."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (sizes.inputs, hidden):
        beta = 1 - 1 / torch.logspace(0.3, 2.0, hidden)
        layers += [nn.Linear(inputs, hidden), snn.StateLeaky(beta=beta, channels=hidden, learn_beta=True, output=False)]
    return nn.Sequential(*layers, nn.Linear(hidden, sizes.outputs), snn.LI(beta=0.9, init_hidden=True))


RECIPE = Recipe("StateLeaky (no reset)", network, forecasts=False)
