"""Learned delays of every synapse of the second layer; their window narrows (Hammouamri et al. 2023)."""

from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes


def network(sizes: Sizes, hidden: int = 64) -> nn.Module:
    """Delays of up to a quarter of the sequence, at most 20 steps."""
    most = max(2, min(20, sizes.steps // 4))
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(sizes.inputs, hidden),
        snn.Leaky(beta=0.7, init_hidden=True),
        snn.DelayedLinear(hidden, hidden, max_delay=most, learn_delay=True),
        snn.Leaky(beta=0.7, init_hidden=True),
        nn.Linear(hidden, sizes.outputs),
        snn.LI(beta=0.9, init_hidden=True),
    )


def narrow(net: nn.Module, over: float) -> None:
    """From half of the largest delay to half a step, in three quarters of the training."""
    for module in net.modules():
        if isinstance(module, snn.DelayedLinear):
            module.sigma = max(0.5, module.max_delay / 2 * (1 - over / 0.75))
            module.delay.data.clamp_(0, module.max_delay)


RECIPE = Recipe("LIF, learned delays", network, each_epoch=narrow)
