"""Feed-forward leaky integrate-and-fire neurons, and a readout that integrates."""

from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes


def network(sizes: Sizes, hidden: int = 128) -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(sizes.inputs, hidden),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(hidden, hidden),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(hidden, sizes.outputs),
        snn.LI(beta=0.9, init_hidden=True),
    )


RECIPE = Recipe("LIF", network)
