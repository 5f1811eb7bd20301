"""Accuracy: the share of samples whose neuron fires most, or first."""

import numpy as np
from torch import Tensor

from ._classes import check_population, labels_of, pooled
from ._firing import spike_times
from ._steps import Lengths, read


def accuracy_rate(
    spk_out: Tensor,
    targets: Tensor,
    population_code: bool = False,
    num_classes: int = False,
    *,
    mask: Tensor | None = None,
    lengths: Lengths | None = None,
) -> np.float64:
    """The share of samples for which the neuron of the right class fires most; of equal ones the first counts.

    Args:
        spk_out: spikes, [T, B, C].
        targets: class labels, [B].
        population_code: if True, each class has several neurons, side by side, whose spikes are added.
        num_classes: C, needed with population_code.
        mask: [T, B], True where a step counts, for sequences of different lengths.
        lengths: [B], how many steps of each sample count, instead of a mask.

    Returns:
        A number between 0 and 1.

    Raises:
        ValueError: for options or shapes that do not fit.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(4, 2, 3)
        >>> spk[:3, :, 1] = 1
        >>> print(SF.accuracy_rate(spk, torch.tensor([1, 2])))
        0.5
    """
    check_population("accuracy_rate", population_code, num_classes)
    spk, steps = read(spk_out, "accuracy_rate", "spk_out", mask, lengths)
    counts = steps.sum(spk)
    if population_code:
        counts = pooled(counts, num_classes, "accuracy_rate")
    return _share(counts.argmax(1), targets, "accuracy_rate")


def accuracy_temporal(
    spk_out: Tensor, targets: Tensor, *, mask: Tensor | None = None, lengths: Lengths | None = None
) -> np.float64:
    """The share of samples for which the neuron of the right class fires first; of equal ones the first counts.

    A silent neuron is taken to fire at the last step.

    Args:
        spk_out: spikes, [T, B, C].
        targets: class labels, [B].
        mask: [T, B], True where a step counts, for sequences of different lengths.
        lengths: [B], how many steps of each sample count, instead of a mask.

    Returns:
        A number between 0 and 1.

    Raises:
        ValueError: for shapes that do not fit.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(4, 2, 3)
        >>> spk[1, :, 1] = 1
        >>> print(SF.accuracy_temporal(spk, torch.tensor([1, 2])))
        0.5
    """
    spk, steps = read(spk_out, "accuracy_temporal", "spk_out", mask, lengths)
    (times,) = spike_times(spk, steps)
    return _share(times.argmin(1), targets, "accuracy_temporal")


def _share(predicted: Tensor, targets: Tensor, owner: str) -> np.float64:
    right = predicted == labels_of(targets, tuple(predicted.shape), owner)
    return np.float64(right.cpu().numpy().mean())
