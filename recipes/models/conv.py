"""A spiking convolutional network with batch normalization, for images and event frames."""

from torch import nn

import spikeloom as snn

from ..recipe import Recipe
from ..task import Sizes


def network(sizes: Sizes) -> nn.Module:
    """Two convolutions and a linear layer."""
    channels, height, width = sizes.shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, padding=2, bias=False),
        nn.BatchNorm2d(16),
        snn.Leaky(beta=0.7, init_hidden=True),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        snn.Leaky(beta=0.7, init_hidden=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32 * (height // 4) * (width // 4), sizes.outputs),
        snn.LI(beta=0.9, init_hidden=True),
    )


RECIPE = Recipe("spiking CNN", network, images=True, forecasts=False, epochs=15)
