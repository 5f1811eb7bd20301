"""Spiking outputs, trained on the time of their first spikes: the class that fires first wins."""

import torch
from torch import Tensor

from spikeloom import functional as SF  # noqa: N812

from ..recipe import Recipe
from .rate_loss import network


def earliest(spk: Tensor, mask: Tensor) -> Tensor:
    """Minus the step of the first spike at a step that counts; silent classes are last."""
    fired = (spk > 0) & mask[..., None]
    first = fired.to(torch.float32).argmax(0).to(spk.dtype)
    return -torch.where(fired.any(0), first, first.new_tensor(float(len(spk))))


def loss(recipe: Recipe, spk: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """The cross-entropy of minus the times, plus a small term of the counts: without it silent classes learn slowly."""
    counts: Tensor = SF.ce_count_loss()(spk, y, mask=mask)
    times: Tensor = SF.ce_temporal_loss()(spk, y, mask=mask)
    return times + 0.1 * counts


RECIPE = Recipe("LIF, temporal loss", network, scores=earliest, loss=loss, forecasts=False)
