"""Losses by cross-entropy: of spikes at every step, of spike counts, of membranes, of spike times."""

from torch import Tensor, nn

from .._classes import IGNORED, Labels, check_population, labels_of, pooled
from .._firing import spike_times
from .._steps import Lengths, read
from ._base import LossFunctions


class _CrossEntropy(LossFunctions):
    """What the cross-entropies share: the last step, from log-probabilities of the classes to the loss."""

    def __init__(self, reduction: str, weight: Tensor | None, normalize_weight: bool):
        super().__init__(reduction, weight)
        self.normalize_weight = normalize_weight

    def _of(self, log_p: Tensor, targets: Labels) -> Tensor:
        """The loss of log-probabilities [B, C], or of anything that is linear in them."""
        samples, classes = log_p.shape
        labels = labels_of(targets, (samples,), classes, log_p, self.__name__)
        plain_mean = self.weight is not None and self.reduction == "mean" and not self.normalize_weight
        reduction, weights = "none" if plain_mean else self.reduction, self._weights(log_p, classes)
        loss = nn.functional.nll_loss(log_p, labels, weights, ignore_index=IGNORED, reduction=reduction)
        return loss.mean() if plain_mean else loss


class _PopulationCrossEntropy(_CrossEntropy):
    """A cross-entropy that may have several output neurons for one class."""

    def __init__(
        self,
        population_code: bool = False,
        num_classes: int = False,
        reduction: str = "mean",
        weight: Tensor | None = None,
        *,
        normalize_weight: bool = False,
    ):
        super().__init__(reduction, weight, normalize_weight)
        check_population(self.__name__, population_code, num_classes)
        self.population_code, self.num_classes = population_code, num_classes

    def _pooled(self, x: Tensor) -> Tensor:
        return pooled(x, self.num_classes, self.__name__) if self.population_code else x


def _log_softmax(x: Tensor) -> Tensor:
    """Over the classes, which come last. PyTorch's kernel for the last dimension is slow where that is short."""
    return x.log_softmax(-1) if x.shape[-1] >= 16 else x.movedim(-1, 0).log_softmax(0).movedim(0, -1)


class ce_rate_loss(_PopulationCrossEntropy):
    """Cross-entropy of the spikes at every step: the right neuron shall fire always, the others never.

    With S_c[t] the spikes of class c at step t, y the label, p_y[t] = softmax over c of S[t], at y:

        loss = -mean over t of log p_y[t]

    Args:
        population_code: if True, each class has several neurons, side by side; S_c is the sum of theirs.
        num_classes: C, needed with population_code.
        reduction: over the samples: "mean", "sum" or "none".
        weight: [C], a factor for the samples of each class.
        normalize_weight: if True, "mean" divides by the sum of the samples' weights, as torch.nn.CrossEntropyLoss does;
            if False by the number of samples, as snnTorch does.

    Call:
        spk_out [T, B, C]; targets [B], labels (-100 leaves a sample out); and, for sequences of different lengths,
        either mask [T, B], True where a step counts, or lengths [B]. Returns [1] without a weight, [] with one, [B]
        for "none"; float64 of float64, else float32.

    Raises:
        ValueError: for options or shapes that do not fit.
        IndexError: for a label that is no class.

    Source: Eshraghian et al., "Training spiking neural networks using lessons from deep learning", 2023.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(4, 1, 2)
        >>> spk[:3, 0, 1] = 1
        >>> SF.ce_rate_loss()(spk, torch.tensor([1]))
        tensor([0.4082])
    """

    def forward(
        self, spk_out: Tensor, targets: Labels, *, mask: Tensor | None = None, lengths: Lengths | None = None
    ) -> Tensor:
        """The loss of spk_out [T, B, C] for the labels targets [B]."""
        spk, steps = read(spk_out, self.__name__, "spk_out", mask, lengths)
        log_p = steps.mean(_log_softmax(self._pooled(spk)))
        return self._as_one_element(self._of(log_p, targets))


class ce_count_loss(_PopulationCrossEntropy):
    """Cross-entropy of the spike counts: the right neuron shall fire most.

    With N_c = sum over t of S_c[t], y the label, p = softmax over c of N:

        loss = -log p_y

    Args:
        population_code: if True, each class has several neurons, side by side; S_c is the sum of theirs.
        num_classes: C, needed with population_code.
        reduction: over the samples: "mean", "sum" or "none".
        weight: [C], a factor for the samples of each class.
        normalize_weight: if True, "mean" divides by the sum of the samples' weights, as torch.nn.CrossEntropyLoss does;
            if False by the number of samples, as snnTorch does.

    Call:
        spk_out [T, B, C]; targets [B], labels (-100 leaves a sample out); and, for sequences of different lengths,
        either mask [T, B], True where a step counts, or lengths [B]. Returns [], or [B] for "none"; float64 of float64,
        else float32.

    Raises:
        ValueError: for options or shapes that do not fit.
        IndexError: for a label that is no class.

    Source: Eshraghian et al., "Training spiking neural networks using lessons from deep learning", 2023.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(4, 1, 2)
        >>> spk[:3, 0, 1] = 1
        >>> SF.ce_count_loss()(spk, torch.tensor([1]))
        tensor(0.0486)
    """

    def forward(
        self, spk_out: Tensor, targets: Labels, *, mask: Tensor | None = None, lengths: Lengths | None = None
    ) -> Tensor:
        """The loss of spk_out [T, B, C] for the labels targets [B]."""
        spk, steps = read(spk_out, self.__name__, "spk_out", mask, lengths)
        return self._of(_log_softmax(self._pooled(steps.sum(spk))), targets)


class ce_max_membrane_loss(_CrossEntropy):
    """Cross-entropy of the highest membranes: the right neuron shall come highest, fire or not.

    With M_c = max over t of mem_c[t], y the label, p = softmax over c of M:

        loss = -log p_y

    The gradient reaches each membrane at one step, the first at which it is highest.

    Args:
        reduction: over the samples: "mean", "sum" or "none".
        weight: [C], a factor for the samples of each class.
        normalize_weight: if True, "mean" divides by the sum of the samples' weights, as torch.nn.CrossEntropyLoss does;
            if False by the number of samples, as snnTorch does.

    Call:
        mem_out [T, B, C], the first argument; targets [B], labels (-100 leaves a sample out); and, for sequences of
        different lengths, either mask [T, B], True where a step counts, or lengths [B]. Returns [], or [B] for "none";
        float64 of float64, else float32.

    Raises:
        ValueError: for options or shapes that do not fit.
        IndexError: for a label that is no class.

    Source: Cramer et al., "The Heidelberg spiking data sets for the systematic evaluation of spiking neural networks",
    2020 (its max-over-time loss).

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> mem = torch.tensor([[[0.0, 0.5]], [[0.1, 0.9]], [[0.2, 0.3]]])
        >>> SF.ce_max_membrane_loss()(mem, torch.tensor([1]))
        tensor(0.4032)
    """

    def __init__(self, reduction: str = "mean", weight: Tensor | None = None, *, normalize_weight: bool = False):
        super().__init__(reduction, weight, normalize_weight)

    def forward(
        self, spk_out: Tensor, targets: Labels, *, mask: Tensor | None = None, lengths: Lengths | None = None
    ) -> Tensor:
        """The loss of membranes [T, B, C], here named spk_out as in every loss, for the labels targets [B]."""
        mem, steps = read(spk_out, self.__name__, "mem_out", mask, lengths)
        return self._of(_log_softmax(steps.max(mem)), targets)


class ce_temporal_loss(_CrossEntropy):
    """Cross-entropy of the first spikes: the right neuron shall fire first.

    With t_c the step of the first spike of neuron c, counted from 0 (the last step if it is silent), y the label, and
    z_c = -t_c ("negate") or 1 / (t_c + 1) ("reciprocal"), p = softmax over c of z:

        loss = -log p_y

    The gradient for t_c goes, with its sign turned, to the first spike of the neuron; to the last step if it is silent.

    Args:
        inverse: "negate" or "reciprocal".
        reduction: over the samples: "mean", "sum" or "none".
        weight: [C], a factor for the samples of each class.
        normalize_weight: if True, "mean" divides by the sum of the samples' weights, as torch.nn.CrossEntropyLoss does,
            and snnTorch in this loss; if False by the number of samples, as in its others.

    Call:
        spk_rec [T, B, C]; targets [B], labels (-100 leaves a sample out); and, for sequences of different lengths,
        either mask [T, B], True where a step counts, or lengths [B]. Returns [], or [B] for "none"; float64 of float64,
        else float32.

    Raises:
        ValueError: for options or shapes that do not fit.
        IndexError: for a label that is no class.

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
        super().__init__(reduction, weight, normalize_weight)
        if inverse not in ("negate", "reciprocal"):
            raise ValueError(f"{self.__name__} got inverse={inverse!r}; choose negate or reciprocal")
        self.inverse = inverse

    def forward(
        self, spk_rec: Tensor, targets: Labels, *, mask: Tensor | None = None, lengths: Lengths | None = None
    ) -> Tensor:
        """The loss of spk_rec [T, B, C] for the labels targets [B]."""
        spk, steps = read(spk_rec, self.__name__, "spk_rec", mask, lengths)
        (times,) = spike_times(spk, steps)
        scores = -times if self.inverse == "negate" else 1 / (times + 1)
        return self._of(_log_softmax(scores), targets)
