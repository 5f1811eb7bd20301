"""Learned delays in the recurrence: a spike returns after the delay of its connection (as in DelRec, 2025)."""

from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes
from .delays import narrow


def network(sizes: Sizes, hidden: int = 64) -> nn.Module:
    """One recurrent layer; delays of up to a quarter of the sequence, at most 10 steps."""
    most = max(2, min(10, sizes.steps // 4))
    lif = snn.RLeaky(beta=0.7, linear_features=hidden, init_hidden=True)
    lif.recurrent = snn.DelayedLinear(hidden, hidden, max_delay=most, learn_delay=True)
    nn.init.orthogonal_(lif.recurrent.weight, gain=0.5)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(sizes.inputs, hidden),
        lif,
        nn.Linear(hidden, sizes.outputs),
        snn.LI(beta=0.9, init_hidden=True),
    )


RECIPE = Recipe("recurrent LIF, learned delays", network, each_epoch=narrow, epochs=15)
