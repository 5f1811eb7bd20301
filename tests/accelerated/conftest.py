"""What tests of accelerated layers share."""

from typing import Any

import pytest
from torch import nn

from spikeloom.accelerated import reported

LINEAR = {"linear_least_work": 0, "linear_least_rows": 0, "linear_listing": 0}
CONVOLUTION = {"conv_least_work": 0, "conv_least_channels": 0, "conv_least_inputs": 0}


@pytest.fixture
def every_size(tuned) -> None:
    """Small layers too go through the kernels."""
    tuned(**LINEAR, **CONVOLUTION, pooling_least_values=0)


def routes(net: nn.Module, x: Any) -> list[str]:
    """The routes of a layer, or of the layers of a Sequential, in a call; empty for those that report none."""
    with reported() as plans:
        net(x)
    return [
        plans[layer].route if layer in plans else "" for layer in (net if isinstance(net, nn.Sequential) else [net])
    ]
