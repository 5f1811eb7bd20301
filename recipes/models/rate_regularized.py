"""Leaky integrate-and-fire neurons with a penalty on their spikes."""

import torch
from torch import Tensor, nn

import spikeloom as snn

from ..recipe import Recipe, cross_entropy, mean
from ..task import Sizes

PRICE = 2.0
"""Of a mean rate of one spike per step."""


class Frugal(nn.Module):
    """Two hidden layers; returns the membrane of the readout and the spikes of both layers."""

    def __init__(self, sizes: Sizes, hidden: int = 128):
        super().__init__()
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(sizes.inputs, hidden), snn.Leaky(beta=0.9, init_hidden=True))
        self.second = nn.Sequential(nn.Linear(hidden, hidden), snn.Leaky(beta=0.9, init_hidden=True))
        self.readout = nn.Sequential(nn.Linear(hidden, sizes.outputs), snn.LI(beta=0.9, init_hidden=True))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        one = self.first(x)
        two = self.second(one)
        return self.readout(two), torch.cat([one, two], 1)


def scores(out: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """The mean membrane."""
    return mean(out[0], mask)


def loss(recipe: Recipe, out: tuple[Tensor, Tensor], y: Tensor, mask: Tensor) -> Tensor:
    """The cross-entropy, plus the penalty."""
    return cross_entropy(recipe, out, y, mask) + PRICE * out[1].mean()


RECIPE = Recipe("LIF, rate regularization", Frugal, scores=scores, loss=loss, forecasts=False)
