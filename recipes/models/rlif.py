"""Recurrent leaky integrate-and-fire neurons: their spikes return through a full matrix one step later."""

from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes


def network(sizes: Sizes, hidden: int = 128) -> nn.Module:
    """One recurrent layer."""
    lif = snn.RLeaky(beta=0.9, linear_features=hidden, init_hidden=True)
    assert isinstance(lif.recurrent, nn.Linear)
    nn.init.orthogonal_(lif.recurrent.weight, gain=0.5)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(sizes.inputs, hidden),
        lif,
        nn.Linear(hidden, sizes.outputs),
        snn.LI(beta=0.9, init_hidden=True),
    )


RECIPE = Recipe("recurrent LIF", network)
