"""Ten output neurons per class, whose spikes are added."""

from dataclasses import replace

from torch import Tensor, nn

from spikeloom import functional as SF  # noqa: N812

from ..recipe import Recipe
from ..task import Sizes
from . import rate_loss

POPULATION = 10


def network(sizes: Sizes) -> nn.Module:
    """The network of `rate_loss` with more outputs."""
    return rate_loss.network(replace(sizes, outputs=POPULATION * sizes.outputs))


def counts(spk: Tensor, mask: Tensor) -> Tensor:
    """Spikes of each population; adjacent neurons belong to one class."""
    populations: Tensor = rate_loss.counts(spk, mask).unflatten(1, (-1, POPULATION))
    return populations.sum(2)


def loss(recipe: Recipe, spk: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """The cross-entropy of the population counts."""
    criterion = SF.ce_count_loss(population_code=True, num_classes=spk.shape[2] // POPULATION)
    value: Tensor = criterion(spk, y, mask=mask)
    return value


RECIPE = Recipe("LIF, population output", network, scores=counts, loss=loss, forecasts=False)
