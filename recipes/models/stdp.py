"""A first layer that learns by STDP, without labels and gradients, and a readout that is trained on its spikes."""

import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.functional.stdp_learner import STDPLearner

from ..recipe import Recipe, time_first
from ..task import Data, Sizes, Task

SWEEPS, RATE, SHARE = 2, 2e-3, 0.1
"""Times through the data; step of a weight; share of neurons that may fire at a step (the strongest ones)."""


class Competing(nn.Module):
    """Inputs as spikes of either sign, a layer of neurons with fixed total weight each, a readout."""

    def __init__(self, sizes: Sizes, hidden: int = 256):
        super().__init__()
        self.flatten = nn.Flatten()
        self.features = nn.Linear(2 * sizes.inputs, hidden, bias=False)
        self.lif = snn.Leaky(beta=0.9, init_hidden=True)
        self.readout = nn.Sequential(nn.Linear(hidden, sizes.outputs), snn.LI(beta=0.9, init_hidden=True))
        nn.init.uniform_(self.features.weight)
        self.features.weight.requires_grad_(False)
        self.normalize()

    def normalize(self) -> None:
        """Scale the weights of each neuron to the same sum."""
        with torch.no_grad():
            weight = self.features.weight.clamp_(min=0)
            weight *= 3.0 / weight.sum(1, keepdim=True).clamp(min=1e-6)

    def code(self, x: Tensor) -> Tensor:
        """The positive and the negative part."""
        flat = self.flatten(x)
        return torch.cat([flat.clamp(min=0), (-flat).clamp(min=0)], 1)

    def hidden(self, x: Tensor) -> Tensor:
        """Spikes of the features."""
        current = self.features(self.code(x))
        least = current.topk(max(1, int(SHARE * current.shape[1])), 1).values[:, -1:]
        spk: Tensor = self.lif(torch.where(current >= least, current, 0 * current))
        return spk

    def forward(self, x: Tensor) -> Tensor:
        """One step."""
        out: Tensor = self.readout(self.hidden(x))
        return out


@torch.no_grad()
def learn_features(net: nn.Module, data: Data, task: Task) -> None:
    """STDP on all training sequences, with a constant learning rate and a fixed sum of the weights of each neuron."""
    assert isinstance(net, Competing)
    learner = STDPLearner(net.features, net.lif, 20.0, 20.0, f_pre=lambda w: 0.5 * w, f_post=lambda w: 1 + 0 * w)
    for _ in range(SWEEPS):
        for index in torch.randperm(len(data)).split(64):
            x, _, _ = time_first(data, index, task)
            snn.utils.reset(net)
            learner.reset()
            snn.unroll(net, x, steps=task.static_steps)
            change = learner.step(on_grad=False)
            assert change is not None
            net.features.weight += RATE * change / change.abs().max().clamp(min=1e-9)
            net.normalize()
    learner.disable()


RECIPE = Recipe("STDP, trained readout", Competing, prepare=learn_features, forecasts=False)
