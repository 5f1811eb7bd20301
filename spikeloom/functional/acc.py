"""Accuracy: the fraction of samples whose correct neuron fires most, or first."""

import numpy as np
from torch import Tensor

from ._inputs import IGNORED, Labels, Lengths, check_population, labels_of, pooled, read
from ._spike_times import spike_times

__all__ = ["accuracy_rate", "accuracy_temporal"]


def accuracy_rate(
    spk_out: Tensor,
    targets: Labels,
    population_code: bool = False,
    num_classes: int = False,
    *,
    mask: Tensor | None = None,
    lengths: Lengths | None = None,
) -> np.float64:
    """The fraction of samples for which the neuron of the correct class fires most. The first of equal ones counts.

    Args:
        spk_out: spikes, [T, B, C].
        targets: class labels, [B]: a tensor, an array or a list. Samples with the label -100 are ignored.
        population_code: if True, each class has several adjacent neurons, whose spikes are added.
        num_classes: C, required with population_code.
        mask: [T, B], True where a step counts, for sequences of different lengths.
        lengths: [B], number of steps of each sample, instead of a mask.

    Returns:
        A number in [0, 1]; NaN if all samples are ignored.

    Raises:
        TypeError: for spikes or labels that are not numeric.
        ValueError: for options or shapes that do not match.
        IndexError: for a label outside of the classes.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(4, 2, 3)
        >>> spk[:3, :, 1] = 1
        >>> print(SF.accuracy_rate(spk, torch.tensor([1, 2])))
        0.5
    """
    check_population("accuracy_rate", population_code, num_classes)
    spk, steps = read(spk_out, "accuracy_rate", "spk_out", mask, lengths, targets=targets)
    counts = steps.sum(spk)
    if population_code:
        counts = pooled(counts, num_classes, "accuracy_rate")
    return _share(counts.argmax(1), counts.shape[1], targets, "accuracy_rate")


def accuracy_temporal(
    spk_out: Tensor, targets: Labels, *, mask: Tensor | None = None, lengths: Lengths | None = None
) -> np.float64:
    """The fraction of samples for which the neuron of the correct class fires first. The first of equal ones counts.

    The spike time of a silent neuron is the last step. For arguments, result and errors see `accuracy_rate`.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(4, 2, 3)
        >>> spk[1, :, 1] = 1
        >>> print(SF.accuracy_temporal(spk, torch.tensor([1, 2])))
        0.5
    """
    spk, steps = read(spk_out, "accuracy_temporal", "spk_out", mask, lengths, targets=targets)
    (times,) = spike_times(spk, steps)
    return _share(times.argmin(1), times.shape[1], targets, "accuracy_temporal")


def _share(predicted: Tensor, classes: int, targets: Labels, owner: str) -> np.float64:
    predicted = predicted.cpu()
    labels = labels_of(targets, tuple(predicted.shape), classes, predicted, owner).cpu()
    right = (predicted == labels)[labels != IGNORED].numpy()
    return np.float64(right.mean() if right.size else np.nan)
