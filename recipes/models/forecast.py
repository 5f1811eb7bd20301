"""A forecast by spikes: the next value is the last one plus a weighted sum of filtered spikes."""

import torch
from torch import Tensor, nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes
from .learned_decays import decays


class Forecaster(nn.Module):
    """Two layers of neurons; each spike of the second leaves a trace that decays with its own time constant."""

    def __init__(self, sizes: Sizes, hidden: int = 128):
        super().__init__()
        lif = [snn.Leaky(beta=decays(hidden), learn_beta=True, decay="sigmoid", init_hidden=True) for _ in range(2)]
        encode = nn.Linear(sizes.inputs, hidden)
        with torch.no_grad():
            encode.weight *= 3  # values are within 1, as thresholds are
        self.spikes = nn.Sequential(nn.Flatten(), encode, lif[0], nn.Linear(hidden, hidden), lif[1])
        traces = torch.exp(-1 / torch.logspace(-0.5, 1.0, hidden))
        self.trace = snn.LI(beta=traces, learn="beta", decay="sigmoid", init_hidden=True)
        self.change = nn.Linear(hidden, sizes.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """One step."""
        change: Tensor = self.change(self.trace(self.spikes(x)))
        return x + 0.1 * change


RECIPE = Recipe("LIF, learned decays, traces of spikes", Forecaster, classifies=False)
