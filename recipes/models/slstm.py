"""A spiking LSTM: the output of an LSTM cell is a membrane, which fires."""

from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes


def network(sizes: Sizes, hidden: int = 64) -> nn.Module:
    """One layer; the output of an LSTM is below 1, so its threshold is low."""
    return nn.Sequential(
        nn.Flatten(),
        snn.SLSTM(sizes.inputs, hidden, threshold=0.1, learn_threshold=True, init_hidden=True),
        nn.Linear(hidden, sizes.outputs),
        snn.LI(beta=0.9, init_hidden=True),
    )


RECIPE = Recipe("SLSTM", network)
