"""The convolutions over time, trained on inputs that are shifted across the channels, thinned and shifted in time."""

import torch
from torch import Tensor

from ..recipe import Recipe
from .temporal_conv import network

CHANNELS, STEPS, KEPT = 0.08, 0.06, 0.8
"""Largest shift as a share of the channels and of the steps, and the share of the values of a channel that stay."""


def augment(x: Tensor) -> Tensor:
    """Shift each sequence [T, B, *S] by its own numbers of steps and, of data with many channels, of channels."""
    steps, batch, flat = len(x), x.shape[1], x.flatten(2)
    wide = flat.shape[2]
    late = torch.randint(-int(STEPS * steps), int(STEPS * steps) + 1, (batch,))
    flat = moved(flat, late, 0)
    if wide >= 32:
        up = torch.randint(-int(CHANNELS * wide), int(CHANNELS * wide) + 1, (batch,))
        flat = moved(flat, up, 2) * (torch.rand_like(flat) < KEPT)
    return flat.view_as(x)


def moved(x: Tensor, by: Tensor, dim: int) -> Tensor:
    """Each sequence of [T, B, C] moved along a dimension; zeros enter."""
    places = torch.arange(x.shape[dim])
    source = places.view(-1, 1, 1) - by.view(1, -1, 1) if dim == 0 else places.view(1, 1, -1) - by.view(1, -1, 1)
    inside = (source >= 0) & (source < x.shape[dim])
    return x.gather(dim, source.clamp(0, x.shape[dim] - 1).expand_as(x)) * inside


RECIPE = Recipe("LIF, convolutions over time, augmented data", network, augment=augment, forecasts=False)
