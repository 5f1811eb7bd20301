"""Adaptive neurons with a current that membrane and spikes drive (Bittar and Garner 2022), feed-forward."""

import torch
from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes


def neurons(number: int) -> nn.Module:
    """Time constants that differ between neurons and are learned, as is the coupling."""
    beta, rho = (torch.exp(-1 / torch.linspace(low, high, number)) for low, high in ((5.0, 25.0), (30.0, 120.0)))
    a, b = torch.rand(number) * 2 - 1, torch.rand(number) * 2
    return snn.AdLIF(beta, rho, a, b, learn=("beta", "rho", "a", "b"), decay="sigmoid", init_hidden=True)


def network(sizes: Sizes, hidden: int = 128) -> nn.Module:
    """Two hidden layers, normalized inputs: a neuron weights its input by 1 - beta."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (sizes.inputs, hidden):
        layers += [nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), Gain(6.0), neurons(hidden)]
    return nn.Sequential(*layers, nn.Linear(hidden, sizes.outputs), snn.LI(beta=0.9, init_hidden=True))


class Gain(nn.Module):
    """A constant factor."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product."""
        return self.factor * x


RECIPE = Recipe("AdLIF, batch norm", network)
