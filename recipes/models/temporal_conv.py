"""Causal convolutions over time: every layer reads its last five inputs, of the later layers further apart."""

import torch
from torch import Tensor, nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes

TAPS = 5
"""Inputs that a convolution reads."""


class Taps(snn.layers.OverTime):
    """The inputs of now, `every` steps ago, twice `every` steps ago ..., side by side: [B, C] -> [B, number C]."""

    past = torch.zeros(0)

    def __init__(self, every: int, number: int):
        super().__init__()
        self.every, self.reach = every, every * (number - 1)

    def over_time(self, x: Tensor) -> Tensor:
        """A sequence [T, B, C], continuing from the inputs of the last steps."""
        past = self.past if self.past.shape[1:] == x.shape[1:] else x.new_zeros(self.reach, *x.shape[1:])
        series = torch.cat((past, x))
        self.past = series[len(series) - self.reach :]
        return torch.cat([series[start : start + len(x)] for start in range(0, self.reach + 1, self.every)], -1)

    def reset_mem(self) -> None:
        """Forget the inputs."""
        self.past = torch.zeros(0)

    def detach_mem(self) -> None:
        """Detach the inputs."""
        self.past = self.past.detach()


def network(sizes: Sizes, channels: int = 64) -> nn.Module:
    """Three layers that together see the last 29 steps."""
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = sizes.inputs
    for every in (1, 2, 4):
        layers += [Taps(every, TAPS), nn.Linear(TAPS * inputs, channels, bias=False), nn.BatchNorm1d(channels)]
        layers += [snn.Leaky(beta=0.5, init_hidden=True)]
        inputs = channels
    return nn.Sequential(*layers, nn.Linear(channels, sizes.outputs), snn.LI(beta=0.9, init_hidden=True))


RECIPE = Recipe("LIF, convolutions over time", network)
