"""Spiking outputs, trained by the cross-entropy of their counts."""

from torch import Tensor, nn

import spikeloom as snn
from spikeloom import functional as SF  # noqa: N812

from ..recipe import Recipe
from ..task import Sizes


def network(sizes: Sizes, hidden: int = 128) -> nn.Module:
    """Two hidden layers; the outputs fire."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(sizes.inputs, hidden),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(hidden, hidden),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(hidden, sizes.outputs),
        snn.Leaky(beta=0.9, init_hidden=True),
    )


def counts(spk: Tensor, mask: Tensor) -> Tensor:
    """Number of spikes at the steps that count."""
    return (spk * mask[..., None]).sum(0)


def loss(recipe: Recipe, spk: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """The cross-entropy of the counts."""
    value: Tensor = SF.ce_count_loss()(spk, y, mask=mask)
    return value


RECIPE = Recipe("LIF, count loss", network, scores=counts, loss=loss, forecasts=False)
