"""Losses by cross-entropy: of spikes at every step, of spike counts, of membranes, of spike times."""

from torch import Tensor, nn

from .._inputs import IGNORED, Labels, Steps, check_population, labels_of, pooled
from .._spike_times import spike_times
from ._base import LossFunctions, OfRecording, OfSequence


def _cross_entropy(loss: LossFunctions, scores: Tensor, targets: Labels, logarithms: bool = False) -> Tensor:
    """Cross-entropy of scores [B, C] or, with `logarithms`, of averaged log-probabilities."""
    samples, classes = scores.shape
    labels = labels_of(targets, (samples,), classes, scores, loss.__name__)
    log_p = scores if logarithms else _log_softmax(scores)
    plain_mean = loss.weight is not None and loss.reduction == "mean" and not loss.normalize_weight
    reduction, weights = "none" if plain_mean else loss.reduction, loss._weights(log_p, classes)
    found = nn.functional.nll_loss(log_p, labels, weights, ignore_index=IGNORED, reduction=reduction)
    return found.mean() if plain_mean else found


def _log_softmax(x: Tensor) -> Tensor:
    """Log-softmax over the classes, the last dimension. PyTorch's kernel for a short last dimension is slow."""
    return x.log_softmax(-1) if x.shape[-1] >= 16 else x.movedim(-1, 0).log_softmax(0).movedim(0, -1)


class _OfPopulation(OfSequence):
    """A cross-entropy with an optional population code."""

    def __init__(
        self,
        population_code: bool = False,
        num_classes: int = False,
        reduction: str = "mean",
        weight: Tensor | None = None,
        *,
        normalize_weight: bool = False,
    ):
        super().__init__(reduction, weight, normalize_weight=normalize_weight)
        check_population(self.__name__, population_code, num_classes)
        self.population_code, self.num_classes = population_code, num_classes

    def _pooled(self, x: Tensor) -> Tensor:
        return pooled(x, self.num_classes, self.__name__) if self.population_code else x


class ce_rate_loss(_OfPopulation):
    """Cross-entropy of the spikes at every step: trains the correct neuron to fire always, the others never.

    With S_c[t] the spikes of class c at step t, y the label, p_y[t] = softmax over c of S[t], at y:

        loss = -mean over t of log p_y[t]

    Args:
        population_code: if True, each class has several adjacent neurons, and S_c is the sum of their spikes.
        num_classes: C, required with population_code.
        reduction, weight, normalize_weight: see `LossFunctions`, also for the call and errors.

    Returns:
        [1] without a weight, [] with one, [B] for "none".

    Source: Eshraghian et al., "Training spiking neural networks using lessons from deep learning", 2023.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(4, 1, 2)
        >>> spk[:3, 0, 1] = 1
        >>> SF.ce_rate_loss()(spk, torch.tensor([1]))
        tensor([0.4082])
    """

    def _loss(self, x: Tensor, steps: Steps, targets: Labels) -> Tensor:
        log_p = steps.mean(_log_softmax(self._pooled(x)))
        return self._as_one_element(_cross_entropy(self, log_p, targets, logarithms=True))


class ce_count_loss(_OfPopulation):
    """Cross-entropy of the spike counts: trains the correct neuron to fire most.

    With N_c = sum over t of S_c[t], y the label, p = softmax over c of N:

        loss = -log p_y

    For arguments, call and source see `ce_rate_loss`. Returns [], or [B] for "none".

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(4, 1, 2)
        >>> spk[:3, 0, 1] = 1
        >>> SF.ce_count_loss()(spk, torch.tensor([1]))
        tensor(0.0486)
    """

    def _loss(self, x: Tensor, steps: Steps, targets: Labels) -> Tensor:
        return _cross_entropy(self, self._pooled(steps.sum(x)), targets)


class ce_max_membrane_loss(OfSequence):
    """Cross-entropy of the maximal membranes, with or without spikes.

    With M_c = max over t of mem_c[t], y the label, p = softmax over c of M:

        loss = -log p_y

    Each membrane receives a gradient at one step, the first of its maximum.

    Args:
        reduction, weight, normalize_weight: see `LossFunctions`, also for the call (here with membranes), result and
            errors.

    Source: Cramer et al., "The Heidelberg spiking data sets for the systematic evaluation of spiking neural networks",
    2020 (the max-over-time loss).

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> mem = torch.tensor([[[0.0, 0.5]], [[0.1, 0.9]], [[0.2, 0.3]]])
        >>> SF.ce_max_membrane_loss()(mem, torch.tensor([1]))
        tensor(0.4032)
    """

    _reads = "mem_out"

    def __init__(self, reduction: str = "mean", weight: Tensor | None = None, *, normalize_weight: bool = False):
        super().__init__(reduction, weight, normalize_weight=normalize_weight)

    def _loss(self, x: Tensor, steps: Steps, targets: Labels) -> Tensor:
        return _cross_entropy(self, steps.max(x), targets)


class ce_temporal_loss(OfRecording):
    """Cross-entropy of the first spike times: trains the correct neuron to fire first.

    With t_c the step of the first spike of neuron c, counted from 0 (the last step if it is silent), y the label, and
    z_c = -t_c ("negate") or 1 / (t_c + 1) ("reciprocal"), p = softmax over c of z:

        loss = -log p_y

    The gradient of t_c is passed with opposite sign to the first spike, or to the last step if the neuron is silent.

    Args:
        inverse: "negate" or "reciprocal". Default: "negate".
        reduction, weight, normalize_weight: see `LossFunctions`, also for the call, result and errors. Here
            normalize_weight is True by default, as in snnTorch.

    Source: Mostafa, "Supervised learning based on temporal coding in spiking neural networks", 2018.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(4, 1, 2)
        >>> spk[1, 0, 1] = 1
        >>> SF.ce_temporal_loss()(spk, torch.tensor([1]))
        tensor(0.1269)
    """

    def __init__(
        self,
        inverse: str = "negate",
        reduction: str = "mean",
        weight: Tensor | None = None,
        *,
        normalize_weight: bool = True,
    ):
        super().__init__(reduction, weight, normalize_weight=normalize_weight)
        if inverse not in ("negate", "reciprocal"):
            raise ValueError(f"{self.__name__} got inverse={inverse!r}; choose negate or reciprocal")
        self.inverse = inverse

    def _loss(self, x: Tensor, steps: Steps, targets: Labels) -> Tensor:
        (times,) = spike_times(x, steps)
        return _cross_entropy(self, -times if self.inverse == "negate" else 1 / (times + 1), targets)
