"""The losses once more, in plain Python: one sample, one neuron, one step after the other."""

import math
from collections.abc import Callable, Mapping
from typing import Any

Sample = list[list[float]]
"""One sample, [T][C]."""


def log_softmax(scores: list[float]) -> list[float]:
    highest = max(scores)
    total = math.log(sum(math.exp(score - highest) for score in scores)) + highest
    return [score - total for score in scores]


def pooled(row: list[float], classes: int) -> list[float]:
    size = len(row) // classes
    return [sum(row[c * size : (c + 1) * size]) for c in range(classes)]


def column(x: Sample, c: int) -> list[float]:
    return [row[c] for row in x]


def times_of(x: Sample, c: int, number: int) -> list[int]:
    """When neuron c has its first spikes; the last step for each that it lacks."""
    fired = [t for t, spk in enumerate(column(x, c)) if spk != 0]
    return [*fired, *[len(x) - 1] * number][:number]


# -- cross-entropies: of one sample, minus the log-probability of its class --------------------------------------------


def ce_rate(x: Sample, label: int, num_classes: int = 0) -> float:
    rows = [pooled(row, num_classes or len(row)) for row in x]
    return -sum(log_softmax(row)[label] for row in rows) / len(rows)


def ce_count(x: Sample, label: int, num_classes: int = 0) -> float:
    counts = [sum(column(x, c)) for c in range(len(x[0]))]
    return -log_softmax(pooled(counts, num_classes or len(counts)))[label]


def ce_max_membrane(x: Sample, label: int) -> float:
    return -log_softmax([max(column(x, c)) for c in range(len(x[0]))])[label]


def ce_temporal(x: Sample, label: int, inverse: str = "negate") -> float:
    times = [times_of(x, c, 1)[0] for c in range(len(x[0]))]
    return -log_softmax([-t if inverse == "negate" else 1 / (t + 1) for t in times])[label]


# -- squared errors: of one sample, a list per spike (one, but for several spikes), of an error per class --------------


def mse_count(
    x: Sample, label: int, correct_rate: float = 1, incorrect_rate: float = 0, num_classes: int = 0
) -> list[list[float]]:
    counts = [sum(column(x, c)) for c in range(len(x[0]))]
    classes = num_classes or len(counts)
    rates = [correct_rate if c == label else incorrect_rate for c in range(classes)]
    wanted = [int(len(x) * rate * (len(counts) / classes)) for rate in rates]
    return [[(n - w) ** 2 / len(x) for n, w in zip(pooled(counts, classes), wanted, strict=True)]]


def mse_membrane(x: Sample, label: int, on_target: float = 1, off_target: float = 0) -> list[list[float]]:
    wanted = [on_target if c == label else off_target for c in range(len(x[0]))]
    return [[sum((mem - w) ** 2 for mem in column(x, c)) / len(x) for c, w in enumerate(wanted)]]


def mse_temporal(
    x: Sample, label: int, on_target: Any = 0, off_target: Any = -1, tolerance: float = 0, multi_spike: bool = False
) -> list[list[float]]:
    on, off = (target if multi_spike else [target] for target in (on_target, off_target))
    steps = len(x)

    def error(c: int, k: int) -> float:
        wanted = (on if c == label else off)[k]
        away = times_of(x, c, len(on))[k] - (wanted + steps if wanted < 0 else wanted)
        return 0.0 if abs(away) < tolerance else (away / steps) ** 2

    return [[error(c, k) for c in range(len(x[0]))] for k in range(len(on))]


CROSS_ENTROPIES: Mapping[str, Callable[..., float]] = {
    "ce_rate_loss": ce_rate,
    "ce_count_loss": ce_count,
    "ce_max_membrane_loss": ce_max_membrane,
    "ce_temporal_loss": ce_temporal,
}
SQUARED_ERRORS: Mapping[str, Callable[..., list[list[float]]]] = {
    "mse_count_loss": mse_count,
    "mse_membrane_loss": mse_membrane,
    "mse_temporal_loss": mse_temporal,
}


# -- from samples to the loss ------------------------------------------------------------------------------------------


def loss(
    name: str,
    samples: list[Sample],
    labels: list[int],
    reduction: str = "mean",
    weight: list[float] | None = None,
    normalize_weight: bool | None = None,
    **options: Any,
) -> Any:
    """A loss of samples that may differ in length: a number, or nested lists for "none"."""
    options.pop("population_code", None)
    factors = [1.0 if weight is None else weight[label] for label in labels]
    normalize = name == "ce_temporal_loss" if normalize_weight is None else normalize_weight
    share = sum(factors) if normalize and weight is not None else len(labels)
    if name in CROSS_ENTROPIES:
        found = [f * CROSS_ENTROPIES[name](x, y, **options) for f, x, y in zip(factors, samples, labels, strict=True)]
        return found if reduction == "none" else sum(found) / (share if reduction == "mean" else 1)
    errors = [SQUARED_ERRORS[name](x, y, **options) for x, y in zip(samples, labels, strict=True)]
    trains = range(len(errors[0]))
    found = [[[f * e for e in error[k]] for f, error in zip(factors, errors, strict=True)] for k in trains]
    if reduction == "none":
        return found if options.get("multi_spike") else found[0]
    total = sum(e for train in found for row in train for e in row)
    return total / (share * len(found) * len(found[0][0])) if reduction == "mean" else total
