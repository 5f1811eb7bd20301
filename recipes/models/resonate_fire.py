"""Resonate-and-fire neurons: each is tuned to a frequency, which it learns (Izhikevich 2001)."""

import torch
from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes


def neurons(number: int) -> nn.Module:
    """Frequencies from a period of 4 to one of 100 steps."""
    omega = 2 * torch.pi / torch.logspace(0.6, 2.0, number)
    return snn.ResonateFire(beta=0.95, omega=omega, learn=("beta", "omega"), decay="sigmoid", init_hidden=True)


def network(sizes: Sizes, hidden: int = 128) -> nn.Module:
    """Two hidden layers."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (sizes.inputs, hidden):
        layers += [nn.Linear(inputs, hidden), neurons(hidden)]
    return nn.Sequential(*layers, nn.Linear(hidden, sizes.outputs), snn.LI(beta=0.9, init_hidden=True))


RECIPE = Recipe("resonate-and-fire", network)
