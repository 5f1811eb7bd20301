"""Recognize readouts: layers whose membranes are the output, and which therefore need no spikes."""

import math
from typing import Any

from torch import Tensor

from ..neurons import LI

NAN = math.nan

UNREACHABLE = 1e4
"""The threshold from which an output layer is taken for one that shall never fire."""


def is_readout(neuron: Any, spk: Tensor, unused: bool = False, last: bool = True) -> bool:
    """Whether a layer is a readout.

    That is a layer whose outputs are not spikes, such as `LI`; whose spikes neither a later layer nor the loss reads
    (`unused`); or the last layer with output=True, if it has no reset or an unreachable threshold.

    Args:
        neuron: the layer.
        spk: its spikes in a run, [T, B, *N].
        unused: whether the loss depends on the layer, but not on its spikes.
        last: whether it is the last layer of neurons, if known.
    """
    return unused or isinstance(neuron, LI) or (last and meant_as_readout(neuron)) or not _two_valued(spk)


def meant_as_readout(neuron: Any) -> bool:
    """Whether the arguments of a layer show that its membranes are the output."""
    if not (getattr(neuron, "output", False) and getattr(neuron, "framed", False)):
        return False
    unreachable = float(neuron.threshold.detach().min()) >= UNREACHABLE if neuron.threshold.numel() else False
    return neuron.reset_mechanism == "none" or unreachable


def firing_rates(spk: Tensor) -> Tensor:
    """The firing rate of each neuron, [N]."""
    return (spk != 0).double().mean((0, 1)).flatten()


def _two_valued(spk: Tensor) -> bool:
    """Whether every neuron returns only 0 and at most one other magnitude."""
    height = spk.abs().amax((0, 1))
    return bool(((spk == 0) | (spk.abs() == height)).all()) if spk.numel() else True
