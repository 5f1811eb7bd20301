"""Batch normalization with statistics and weights of every step (Kim and Panda 2021)."""

from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes


def network(sizes: Sizes, hidden: int = 128) -> nn.Module:
    """Two hidden layers."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (sizes.inputs, hidden):
        norm = snn.BatchNormTT1d(hidden, time_steps=sizes.steps)
        layers += [nn.Linear(inputs, hidden, bias=False), norm, snn.Leaky(beta=0.9, init_hidden=True)]
    return nn.Sequential(*layers, nn.Linear(hidden, sizes.outputs), snn.LI(beta=0.9, init_hidden=True))


RECIPE = Recipe("LIF, BNTT", network, forecasts=False)
