"""A forecast by spikes: the next value is the last one plus a weighted sum of the spikes of neurons with delayed input.

Each value is shown for several steps, so that the spikes of a neuron are a graded response, and a little noise in
training teaches the network to return to the series from its own errors.
"""

import torch
from torch import Tensor, nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes, Task
from .temporal_conv import Taps

SUBSTEPS, TAPS, NOISE = 8, 10, 0.003
"""Steps per value, values that a neuron sees, standard deviation of the noise of the input in training."""


class Forecaster(nn.Module):
    """One layer; every neuron weights the last values, and they fire at different levels."""

    def __init__(self, sizes: Sizes, hidden: int = 256):
        super().__init__()
        encode = nn.Linear(TAPS * sizes.inputs, hidden)
        nn.init.normal_(encode.weight, 0, 2 / TAPS**0.5)
        nn.init.uniform_(encode.bias, -1, 1)
        lif = snn.Leaky(beta=0.9, learn_beta=True, decay="sigmoid", init_hidden=True)
        self.spikes = nn.Sequential(nn.Flatten(), Taps(SUBSTEPS, TAPS), encode, lif)
        self.change = nn.Linear(hidden, sizes.outputs)
        with torch.no_grad():
            self.change.weight *= 0.3

    def forward(self, x: Tensor) -> Tensor:
        """One step."""
        change: Tensor = self.change(self.spikes(x))
        return x + 0.1 * change


def continued(net: nn.Module, x: Tensor) -> Tensor:
    """Show each value [T, B, K] for all steps, from the current states; the mean over them."""
    out: Tensor = snn.unroll(net, x.repeat_interleave(SUBSTEPS, 0), check=False)
    values: Tensor = out.unflatten(0, (len(x), SUBSTEPS)).mean(1)
    return values


def run(net: nn.Module, x: Tensor, task: Task) -> Tensor:
    """The same from the initial states, with noise in training."""
    snn.utils.reset(net)
    return continued(net, x + NOISE * torch.randn_like(x) if net.training else x)


RECIPE = Recipe(
    "LIF, delayed inputs, eight steps per value",
    Forecaster,
    run=run,
    advance=continued,
    classifies=False,
    substeps=SUBSTEPS,
    epochs=20,
)
