"""Scores of predictions: a mean over batches, weighted by their sizes, as NeuroBench computes it."""

from collections.abc import Sequence

import torch
from torch import Tensor

SCORES = ("classification_accuracy", "mse", "smape", "r2")


def default_scores(targets: Tensor) -> tuple[str, ...]:
    """The scores that suit the targets: classes are integers, values to regress are floating."""
    return ("mse", "smape", "r2") if targets.is_floating_point() else ("classification_accuracy",)


class Mean:
    """A mean over batches, weighted by the number of samples."""

    def __init__(self) -> None:
        self._batches: list[tuple[float, int]] = []

    def add(self, value: float, samples: int) -> None:
        """Add a batch."""
        self._batches.append((value, samples))

    def value(self) -> float:
        """The mean; NaN without a batch."""
        total = sum(samples for _, samples in self._batches)
        return sum((value * samples / total for value, samples in self._batches), 0.0) if total else float("nan")


class R2:
    """The coefficient of determination, 1 - sum((y - p)^2) / sum((y - mean(y))^2), a mean over columns of [N, C]."""

    def __init__(self) -> None:
        self._targets: list[Tensor] = []
        self._errors: list[float] = []

    def add(self, predicted: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        columns = range(targets.shape[1])
        errors = [torch.sum((targets[:, i] - predicted[:, i]) ** 2).item() for i in columns]
        self._errors = [a + b for a, b in zip(self._errors or [0.0] * len(errors), errors, strict=True)]
        self._targets.append(targets)

    def value(self) -> float:
        """The score of all batches."""
        targets = torch.cat(self._targets)
        spread = [column.var(correction=0) * len(column) for column in (targets[:, i] for i in range(targets.shape[1]))]
        parts = [1 - error / most for error, most in zip(self._errors, spread, strict=True)]
        return float(sum(parts[1:], parts[0]) / len(parts))


class Scores:
    """The scores of all batches.

    Args:
        names: which; None chooses by the dtype of the targets.
    """

    def __init__(self, names: str | Sequence[str] | None):
        names = (names,) if isinstance(names, str) else names
        for name in names or ():
            if name not in SCORES:
                raise ValueError(f"there is no score {name!r}; choose among {', '.join(map(repr, SCORES))}")
        self._names = names
        self._means: dict[str, Mean] = {}
        self._r2: R2 | None = None

    def add(self, predicted: Tensor, targets: Tensor, samples: int) -> None:
        """Add the predictions of a batch."""
        if predicted.shape != targets.shape:
            raise ValueError(
                f"the predictions have shape {tuple(predicted.shape)} and the targets {tuple(targets.shape)}; pass "
                "predict='count', 'sum', 'last', 'all' or a function of the outputs with that shape"
            )
        for name in default_scores(targets) if self._names is None else self._names:
            if name == "r2":
                self._add_r2(predicted, targets)
                continue
            self._means.setdefault(name, Mean()).add(_score(name, predicted, targets), samples)

    def _add_r2(self, predicted: Tensor, targets: Tensor) -> None:
        if targets.dim() == 2:
            self._r2 = self._r2 or R2()
            self._r2.add(_floating(predicted), _floating(targets))
        elif self._names is not None:
            raise ValueError(f"r2 compares predictions of shape [N, C]; these have shape {tuple(predicted.shape)}")

    def values(self) -> dict[str, float]:
        """The scores, by name."""
        values = {name: mean.value() for name, mean in self._means.items()}
        return values if self._r2 is None else {**values, "r2": self._r2.value()}


def _score(name: str, predicted: Tensor, targets: Tensor) -> float:
    if name == "classification_accuracy":
        return torch.mean(torch.eq(predicted, targets).float()).item()
    predicted, targets = _floating(predicted), _floating(targets)
    if name == "mse":
        return torch.mean((predicted - targets) ** 2).item()
    error = torch.abs(predicted - targets) / (torch.abs(predicted) + torch.abs(targets))
    return torch.nan_to_num(200 * torch.mean(error), nan=200.0).item()


def _floating(values: Tensor) -> Tensor:
    """Integers as floating point numbers, which have differences below 0 and a mean."""
    return values if values.is_floating_point() else values.to(torch.get_default_dtype())
