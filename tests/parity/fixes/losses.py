"""The losses."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .fix import Fix, error_of

LABELS = torch.tensor([0, 1])
SPIKES = torch.eye(4).view(4, 1, 4).expand(4, 2, 4).contiguous()
"""Neuron n fires at step n, in both samples."""


def functional(snn: ModuleType) -> Any:
    """`snn.functional`, which `import snntorch` alone does not load."""
    return importlib.import_module(f"{snn.__name__}.functional")


def rounded(value: Any) -> Any:
    """As a number or nested lists."""
    return torch.as_tensor(value).detach().double().mul(1000).round().div(1000).tolist()


def value_of(name: str, targets: Tensor = LABELS, spk: Tensor = SPIKES, **options: Any) -> Callable[[ModuleType], Any]:
    """A script that gives the value of a loss, or the name of the error."""

    def script(snn: ModuleType) -> Any:
        try:
            return rounded(getattr(functional(snn), name)(**options)(spk, targets))
        except Exception as error:
            return type(error).__name__

    return script


def weighted_shapes(reduction: str) -> Callable[[ModuleType], dict[str, list[int]]]:
    """The shapes of losses of two weighted samples."""

    def script(snn: ModuleType) -> dict[str, list[int]]:
        names = ("ce_rate_loss", "ce_count_loss", "ce_max_membrane_loss")
        losses = {name: getattr(functional(snn), name)(reduction=reduction, weight=THREEFOLD) for name in names}
        return {name: list(loss(SPIKES, LABELS).shape) for name, loss in losses.items()}

    return script


def unknown_reduction(snn: ModuleType) -> str:
    make = functional(snn).ce_count_loss
    return error_of(lambda: make(reduction="average", weight=torch.ones(4))(SPIKES, LABELS))


def classes_not_given(snn: ModuleType) -> str:
    return error_of(lambda: functional(snn).mse_count_loss(population_code=True)(SPIKES, LABELS))


def labels_of_fewer_bits(snn: ModuleType) -> str:
    return error_of(lambda: functional(snn).ce_rate_loss()(SPIKES, LABELS.int()))


def spikes_of_whole_numbers(snn: ModuleType) -> str:
    return error_of(lambda: functional(snn).ce_count_loss()(SPIKES.long(), LABELS))


def targets_afterwards(snn: ModuleType) -> list[list[float]]:
    """Targets that count from the end, after a call."""
    targets = torch.tensor([[0.0, -1.0, -2.0, 1.0]] * 2)
    functional(snn).mse_temporal_loss(target_is_time=True)(SPIKES, targets)
    return targets.tolist()


def two_neurons(snn: ModuleType) -> list[list[float]]:
    """The first three spikes of one that fires at 1, 2 and 4, beside one that fires at 2, 3 and 5."""
    spk = torch.zeros(6, 1, 2)
    spk[[1, 2, 4], 0, 0] = spk[[2, 3, 5], 0, 1] = 1
    train = functional(snn).SpikeTime(multi_spike=True, on_target=[0, 1, 2], off_target=[0, 1, 2])
    return train(spk, LABELS[:1])[0][:, 0].T.tolist()


def gradient_for_missing_spikes(snn: ModuleType) -> list[float]:
    """Of a neuron that fires at step 1 of 4; of its three times, two are the last step."""
    spk = torch.tensor([0.0, 1.0, 0.0, 0.0]).view(4, 1, 1).requires_grad_()
    train = functional(snn).SpikeTime(multi_spike=True, on_target=[0, 1, 2], off_target=[0, 1, 2])
    times, _ = train(spk, LABELS[:1])
    times.flatten().dot(torch.tensor([1.0, 10.0, 100.0])).backward()
    return spk.grad.flatten().add(0.0).tolist()


def graded(snn: ModuleType) -> Any:
    """The time of a spike of size 2 at step 3 of 4, and its gradient."""
    spk = torch.tensor([0.0, 0.0, 0.0, 2.0]).view(4, 1, 1).requires_grad_()
    time, _ = functional(snn).SpikeTime()(spk, LABELS[:1])
    return time.item(), error_of(lambda: time.sum().backward())


def graded_accuracy(snn: ModuleType) -> float:
    """Neuron 1 fires first, with a spike of size 2."""
    spk = torch.tensor([[0.0, 0.0], [0.0, 2.0], [1.0, 0.0]]).view(3, 1, 2)
    return float(functional(snn).accuracy_temporal(spk, torch.tensor([1])))


def dtypes(dtype: torch.dtype) -> Callable[[ModuleType], list[torch.dtype]]:
    """Of four losses of spikes of a dtype."""
    names = ("ce_rate_loss", "ce_count_loss", "mse_count_loss", "mse_membrane_loss")
    return lambda snn: [getattr(functional(snn), name)()(SPIKES.to(dtype), LABELS).dtype for name in names]


POOLED = {"population_code": True, "num_classes": 2}
STEPS = torch.tensor([[0, 1], [1, 0], [1, 1], [0, 0]])
"""A label per step and sample."""
THREEFOLD = torch.tensor([1.0, 3.0, 1.0, 1.0])
SINGLE, DOUBLE, HALF = torch.float32, torch.float64, torch.float16
TARGETS = "a negative `off_target` below `on_target`, the default of `mse_temporal_loss`"
WEIGHTS = "`weight` in a `mse_*` loss"
WHOLE = "labels as int32, or spikes as integers, in a `ce_*` loss"
GRADED = "spike times of graded spikes"

FIXES: dict[str, Fix] = {
    "pooled rates": Fix(
        "`ce_rate_loss(population_code=True)`", value_of("ce_rate_loss", **POOLED), "TypeError", [0.813]
    ),
    "pooled rates, weighted": Fix(
        "`ce_rate_loss(population_code=True)`",
        value_of("ce_rate_loss", weight=torch.tensor([1.0, 3.0]), reduction="none", **POOLED),
        [1.494, 1.494],
        [0.813, 2.44],
    ),
    "weighted sum": Fix(
        '`reduction="sum"` with `weight` in a `ce_*` loss',
        weighted_shapes("sum"),
        {"ce_rate_loss": [2], "ce_count_loss": [2], "ce_max_membrane_loss": [2]},
        {"ce_rate_loss": [], "ce_count_loss": [], "ce_max_membrane_loss": []},
        weighted_shapes("none"),
    ),
    "weighted counts": Fix(WEIGHTS, value_of("mse_count_loss", weight=THREEFOLD), "RuntimeError", 1.5),
    "weighted membranes": Fix(WEIGHTS, value_of("mse_membrane_loss", weight=THREEFOLD), "RuntimeError", 0.75),
    "weighted times": Fix(
        WEIGHTS, value_of("mse_temporal_loss", off_target=2, weight=THREEFOLD), "RuntimeError", 0.156
    ),
    "default times": Fix(
        TARGETS,
        lambda snn: functional(snn).SpikeTime()(SPIKES, LABELS)[1].tolist(),
        [[0.0, 0.0, 0.0, 0.0]] * 2,
        [[0.0, 3.0, 3.0, 3.0], [3.0, 0.0, 3.0, 3.0]],
        lambda snn: functional(snn).SpikeTime(on_target=0, off_target=0)(SPIKES, LABELS)[1].tolist(),
    ),
    "times from the end": Fix(
        TARGETS,
        lambda snn: functional(snn).SpikeTime(on_target=1, off_target=-1)(SPIKES, LABELS)[1][0].tolist(),
        [1.0, 0.0, 0.0, 0.0],
        [1.0, 3.0, 3.0, 3.0],
        lambda snn: functional(snn).SpikeTime(on_target=1, off_target=0)(SPIKES, LABELS)[1][0].tolist(),
    ),
    "membranes below zero": Fix(
        TARGETS,
        value_of("mse_membrane_loss", spk=SPIKES * 0, on_target=1, off_target=-2, reduction="none"),
        [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]],
        [[1.0, 4.0, 4.0, 4.0], [4.0, 1.0, 4.0, 4.0]],
        value_of("mse_membrane_loss", spk=SPIKES * 0, on_target=1, off_target=0, reduction="none"),
    ),
    "given times afterwards": Fix(
        "negative times in `targets` with `target_is_time=True`",
        targets_afterwards,
        [[0.0, 3.0, 2.0, 1.0]] * 2,
        [[0.0, -1.0, -2.0, 1.0]] * 2,
    ),
    "labels over time": Fix(
        "`mse_membrane_loss(time_var_targets=True)`",
        value_of("mse_membrane_loss", targets=STEPS, time_var_targets=True),
        "RuntimeError",
        [0.375],
    ),
    "membranes over time": Fix(
        "`mse_membrane_loss(time_var_targets=True)`",
        value_of("mse_membrane_loss", targets=SPIKES + 2, time_var_targets=True),
        "RuntimeError",
        [4.0],
    ),
    "neurons side by side": Fix(
        "`multi_spike=True`: a step at which any neuron has its n-th spike",
        two_neurons,
        [[1.0, 4.0, 5.0], [2.0, 3.0, 5.0]],
        [[1.0, 2.0, 4.0], [2.0, 3.0, 5.0]],
    ),
    "missing spikes": Fix(
        "`multi_spike=True`: gradients for several times at one step",
        gradient_for_missing_spikes,
        [0.0, -1.0, 0.0, -100.0],
        [0.0, -1.0, 0.0, -110.0],
    ),
    "graded times": Fix(GRADED, graded, (7.0, "IndexError"), (3.0, "nothing")),
    "graded accuracy": Fix(GRADED, graded_accuracy, 0.0, 1.0),
    "double precision": Fix(
        "dtype of a loss: float64", dtypes(DOUBLE), [SINGLE, DOUBLE, DOUBLE, SINGLE], [DOUBLE, DOUBLE, DOUBLE, DOUBLE]
    ),
    "half precision": Fix(
        "dtype of a loss: float16, bfloat16", dtypes(HALF), [SINGLE, HALF, SINGLE, SINGLE], [SINGLE] * 4
    ),
    "labels of 32 bits": Fix(WHOLE, labels_of_fewer_bits, "RuntimeError", "nothing"),
    "whole spikes": Fix(
        WHOLE,
        spikes_of_whole_numbers,
        "NotImplementedError",
        "nothing",
    ),
    "unknown reduction": Fix(
        "an unknown `reduction`, together with a `weight`", unknown_reduction, "nothing", "ValueError"
    ),
    "classes not given": Fix(
        "`population_code=True` without `num_classes`", classes_not_given, "ZeroDivisionError", "ValueError"
    ),
}
