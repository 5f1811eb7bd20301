"""Accuracy: the share of samples whose neuron fires most, or first."""

import numpy as np
from torch import Tensor

from ._inputs import IGNORED, Labels, Lengths, check_population, labels_of, pooled, read
from ._spike_times import spike_times


def accuracy_rate(
    spk_out: Tensor,
    targets: Labels,
    population_code: bool = False,
    num_classes: int = False,
    *,
    mask: Tensor | None = None,
    lengths: Lengths | None = None,
) -> np.float64:
    """The share of samples for which the neuron of the right class fires most; of equal ones the first counts.

    Args:
        spk_out: spikes, [T, B, C].
        targets: class labels, [B]: a tensor, an array or a list; -100 leaves a sample out.
        population_code: if True, each class has several neurons, side by side, whose spikes are added.
        num_classes: C, needed with population_code.
        mask: [T, B], True where a step counts, for sequences of different lengths.
        lengths: [B], how many steps of each sample count, instead of a mask.

    Returns:
        A number between 0 and 1; NaN if no sample is left.

    Raises:
        TypeError: for spikes or labels that are no numbers.
        ValueError: for options or shapes that do not fit.
        IndexError: for a label that is no class.

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
    return _share(counts.argmax(1), counts.shape[1], targets, "accuracy_rate")


def accuracy_temporal(
    spk_out: Tensor, targets: Labels, *, mask: Tensor | None = None, lengths: Lengths | None = None
) -> np.float64:
    """The share of samples for which the neuron of the right class fires first; of equal ones the first counts.

    A silent neuron is taken to fire at the last step.

    Arguments, result and errors are those of `accuracy_rate`.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(4, 2, 3)
        >>> spk[1, :, 1] = 1
        >>> print(SF.accuracy_temporal(spk, torch.tensor([1, 2])))
        0.5
    """
    spk, steps = read(spk_out, "accuracy_temporal", "spk_out", mask, lengths)
    (times,) = spike_times(spk, steps)
    return _share(times.argmin(1), times.shape[1], targets, "accuracy_temporal")


def _share(predicted: Tensor, classes: int, targets: Labels, owner: str) -> np.float64:
    predicted = predicted.cpu()
    labels = labels_of(targets, tuple(predicted.shape), classes, predicted, owner).cpu()
    right = (predicted == labels)[labels != IGNORED].numpy()
    return np.float64(right.mean() if right.size else np.nan)
