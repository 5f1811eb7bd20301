"""Squared errors of spike counts, membranes and spike times."""

import torch
from torch import Tensor

from .._inputs import IGNORED, Labels, Steps, as_tensor, check_population, chosen, labels_of, pooled
from .._spike_times import SpikeTime, Target
from ._base import LossFunctions, OfRecording, OfSequence


def _squared(loss: LossFunctions, errors: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """Reduce squared errors [..., B, C]; labels [B] select the weights and the ignored samples."""
    count: int | Tensor = errors.numel()
    if labels is not None:
        labeled = (labels != IGNORED).unsqueeze(-1)
        errors = errors.masked_fill(~labeled, 0.0)
        weights = loss._weights(errors, classes)
        shares = labeled if weights is None else weights[labels.clamp(min=0)].unsqueeze(-1) * labeled
        if weights is not None:
            errors = errors * shares
        count = (shares if loss.normalize_weight else labeled).expand_as(errors).sum()
    if loss.reduction == "none":
        return errors
    return errors.sum() / count if loss.reduction == "mean" else errors.sum()


def _refuse_weight(loss: LossFunctions, option: str, given: bool) -> None:
    if given and loss.weight is not None:
        raise ValueError(
            f"{loss.__name__} got a weight and {option}=True, but class weights require class labels; "
            "use reduction='none' and weight the result"
        )


class mse_count_loss(OfSequence):
    """Squared error between the spike counts and those of target rates.

    With N_c = sum over t of S_c[t], and r_c = correct_rate for the class of the sample, incorrect_rate for the others:

        loss = mean over c of (N_c - floor(T r_c))^2 / T

    Args:
        correct_rate: spikes per step of the neuron of the class. Default: 1.
        incorrect_rate: spikes per step of the others. Default: 0.
        population_code: if True, each class has P adjacent neurons, N_c is the sum of their spikes, and the target is
            floor(T r_c P).
        num_classes: C, required with population_code.
        reduction, weight, normalize_weight: see `LossFunctions`; over samples and classes.

    For call and errors see `LossFunctions`. Returns [], or [B, C] for "none".

    Source: Shrestha and Orchard, "SLAYER: spike layer error reassignment in time", 2018 (the loss on spike counts).

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(10, 1, 2)
        >>> spk[:6, 0, 1] = 1
        >>> SF.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2)(spk, torch.tensor([1]))
        tensor(0.4000)
    """

    def __init__(
        self,
        correct_rate: float = 1,
        incorrect_rate: float = 0,
        population_code: bool = False,
        num_classes: int = False,
        reduction: str = "mean",
        weight: Tensor | None = None,
        *,
        normalize_weight: bool = False,
    ):
        super().__init__(reduction, weight, normalize_weight=normalize_weight)
        check_population(self.__name__, population_code, num_classes)
        if correct_rate < 0 or incorrect_rate < 0:
            raise ValueError(
                f"{self.__name__} got correct_rate={correct_rate!r} and incorrect_rate={incorrect_rate!r}; "
                "pass spikes per step, 0 or more"
            )
        self.correct_rate, self.incorrect_rate = correct_rate, incorrect_rate
        self.population_code, self.num_classes = population_code, num_classes

    def _loss(self, x: Tensor, steps: Steps, targets: Labels) -> Tensor:
        counts = steps.sum(x)
        neurons = counts.shape[1]
        if self.population_code:
            counts = pooled(counts, self.num_classes, self.__name__)
        samples, classes = counts.shape
        labels = labels_of(targets, (samples,), classes, counts, self.__name__)
        rates = self.correct_rate, self.incorrect_rate
        on, off = (_floor(steps.number, len(x), rate, neurons / classes) for rate in rates)
        errors = (counts - chosen(labels, classes, on, off, counts)) ** 2 / steps.number
        return _squared(self, errors, labels, classes)


def _floor(number: int | Tensor, most: int, rate: float, population: float) -> int | Tensor:
    """floor(number * rate * population) in Python's double precision, on every device."""
    if isinstance(number, int):
        return int(number * rate * population)
    return torch.tensor([int(n * rate * population) for n in range(most + 1)], device=number.device)[number]


class mse_membrane_loss(OfSequence):
    """Squared error of the membranes at every step.

    With m_c = on_target for the class of the sample, off_target for the others:

        loss = mean over c and t of (mem_c[t] - m_c)^2

    Args:
        time_var_targets: if True, targets change over time: labels [T, B], or target membranes [T, B, C].
        on_target: target membrane of the neuron of the class. Default: 1.
        off_target: target membrane of the others. Default: 0.
        reduction, weight, normalize_weight: see `LossFunctions`; over samples and classes, after the mean over time.

    For call (here with membranes) and errors see `LossFunctions`. A weight with time_var_targets is a ValueError.
    Returns [1] without a weight, [] with one, [B, C] for "none".

    Source: Eshraghian et al., "Training spiking neural networks using lessons from deep learning", 2023.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> mem = torch.full((3, 1, 2), 0.5)
        >>> SF.mse_membrane_loss(on_target=1.5, off_target=0)(mem, torch.tensor([1]))
        tensor([0.6250])
    """

    _reads = "mem_out"

    def __init__(
        self,
        time_var_targets: bool = False,
        on_target: float = 1,
        off_target: float = 0,
        reduction: str = "mean",
        weight: Tensor | None = None,
        *,
        normalize_weight: bool = False,
    ):
        super().__init__(reduction, weight, normalize_weight=normalize_weight)
        _refuse_weight(self, "time_var_targets", time_var_targets)
        self.time_var_targets, self.on_target, self.off_target = time_var_targets, on_target, off_target

    def _loss(self, x: Tensor, steps: Steps, targets: Labels) -> Tensor:
        total, samples, classes = x.shape
        targets = as_tensor(targets, x, self.__name__)
        if self.time_var_targets and targets.shape == x.shape:
            errors = steps.mean((x - targets.to(x)) ** 2)
            return self._as_one_element(_squared(self, errors, None, classes))
        if self.time_var_targets and targets.dim() == 2:
            targets = steps.only(targets.unsqueeze(2)).squeeze(2)
        shape = (total, samples) if self.time_var_targets else (samples,)
        labels = labels_of(targets, shape, classes, x, self.__name__)
        errors = (x - chosen(labels, classes, self.on_target, self.off_target, x)) ** 2
        if self.time_var_targets:
            labeled = labels != IGNORED
            errors = errors.masked_fill(~labeled.unsqueeze(-1), 0.0)
            counted = steps.only(labeled.unsqueeze(2), False).sum(0).clamp(min=1)  # labeled steps per sample, [B, 1]
            steps = Steps(counted, steps.end, steps.mask)
            labels = torch.where(labeled.any(0), 0, IGNORED)
        return self._as_one_element(_squared(self, steps.mean(errors), labels, classes))


class mse_temporal_loss(OfRecording):
    """Squared error between the first spike times and target times.

    With t_c the step of the first spike of neuron c, counted from 0 (T - 1 if it is silent), and u_c its target:

        loss = mean over c of ((t_c - u_c) / T)^2

    Args:
        target_is_time, on_target, off_target, multi_spike: see `SpikeTime`, also for the gradient of the times.
        tolerance: errors below it are zero. Default: 0.
        reduction, weight, normalize_weight: see `LossFunctions`; over spikes, samples and neurons.

    For call and errors see `LossFunctions`, for targets `SpikeTime`. A weight with target_is_time is a ValueError. With
    a mask, T is one more than the last step of the sample. Returns [], or for "none" [B, C] or [F, B, C].

    Source: Bohte, Kok and La Poutre, "Error-backpropagation in temporally encoded networks of spiking neurons", 2002.

        >>> import torch
        >>> from spikeloom import functional as SF
        >>> spk = torch.zeros(10, 1, 2)
        >>> spk[4, 0, 1] = 1
        >>> SF.mse_temporal_loss(on_target=2, off_target=-1)(spk, torch.tensor([1]))
        tensor(0.0200)
    """

    def __init__(
        self,
        target_is_time: bool = False,
        on_target: Target = 0,
        off_target: Target = -1,
        tolerance: float = 0,
        multi_spike: bool = False,
        reduction: str = "mean",
        weight: Tensor | None = None,
        *,
        normalize_weight: bool = False,
    ):
        super().__init__(reduction, weight, normalize_weight=normalize_weight)
        _refuse_weight(self, "target_is_time", target_is_time)
        self.spk_time_fn = SpikeTime(target_is_time, on_target, off_target, tolerance, multi_spike)

    def _loss(self, x: Tensor, steps: Steps, targets: Labels) -> Tensor:
        times, wanted, labels = self.spk_time_fn.compare(x, steps, targets)
        return _squared(self, (times - wanted) ** 2 / steps.end**2, labels, x.shape[2])
