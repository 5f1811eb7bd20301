"""Losses, accuracies and penalties against snnTorch 1.0.0, over the product of their options: values and gradients."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spikeloom import functional as ours

from ..each import for_each
from ..oracle import assert_close

theirs = pytest.importorskip("snntorch.functional")

T, B, C = 12, 5, 6
LABELS = torch.tensor([0, 1, 2, 1, 0])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spikes() -> Tensor:
    """Some neurons are silent, one sample wholly so; one fires at the last step alone; some fire first together."""
    spk = (torch.rand(T, B, C, generator=generator(3)) < 0.15).float()
    spk[:, 1] = 0
    spk[:, 2, 0] = torch.eye(T)[-1]
    return spk


def membranes() -> Tensor:
    """Rounded, so that some maxima are equal."""
    return torch.randn(T, B, C, generator=generator(4)).round(decimals=1)


def apart() -> Tensor:
    """Every neuron fires four times, always alone: the multi_spike of snnTorch works on nothing else."""
    neurons = torch.arange(B * C).repeat(4)
    spk = torch.zeros(len(neurons), B * C)
    spk[torch.randperm(len(neurons), generator=generator(5)), neurons] = 1
    return spk.view(-1, B, C)


@dataclass(frozen=True)
class Case:
    """A loss, the arguments that make it, and what it is called with."""

    name: str
    options: Mapping[str, Any]
    inputs: Callable[[], Tensor] = spikes
    targets: Tensor = LABELS

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in self.options.items())})".replace("\n", "")


def weight(classes: int) -> Tensor:
    return torch.linspace(0.3, 2.0, classes)


REDUCTIONS = [{"reduction": reduction} for reduction in ("mean", "sum", "none")]
WEIGHTED = [{"weight": weight(C)}, {"weight": weight(C), "reduction": "none"}]
POPULATIONS = [{"population_code": True, "num_classes": classes} for classes in (3, 6)]
WEIGHTED_POPULATIONS = [p | w | {"weight": weight(p["num_classes"])} for p, w in product(POPULATIONS, WEIGHTED)]
INVERSES = [{}, {"inverse": "negate"}, {"inverse": "reciprocal"}]
RATES = [
    {},
    {"correct_rate": 0.7, "incorrect_rate": 0.3},
    {"correct_rate": 0.55},
    {"correct_rate": 0.2, "incorrect_rate": 0.9},
]
LEVELS = [
    {},
    {"on_target": 1.3, "off_target": 0.3},
    {"on_target": -0.5, "off_target": 0.5},
    {"off_target": 1},
]
TIMES = [
    {"on_target": 2, "off_target": 7},
    {"on_target": 9, "off_target": 2},
    {"on_target": 5, "off_target": 5},
    {"on_target": -4, "off_target": 4},
    {"on_target": 1, "off_target": 8, "tolerance": 3},
    {"on_target": 3, "off_target": 8, "tolerance": 1.5},
]
TRAINS = [
    {"multi_spike": True, "on_target": [0, 9, 30], "off_target": [5, 50, 99]},
    {"multi_spike": True, "on_target": torch.tensor([7, 8]), "off_target": torch.tensor([1, 2]), "tolerance": 4},
    {"multi_spike": True, "on_target": [4], "off_target": [6]},
]
GIVEN = torch.randint(0, T, (B, C), generator=generator(6)).float()
GIVEN_TRAINS = torch.randint(0, 100, (3, B, C), generator=generator(6)).float()


def all_of(*tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every combination of a row of each table."""
    return [{key: value for row in rows for key, value in row.items()} for rows in product(*tables)]


CASES = [
    *(Case("ce_rate_loss", o) for o in REDUCTIONS + WEIGHTED),
    *(Case("ce_count_loss", o) for o in all_of([{}, *POPULATIONS], REDUCTIONS) + WEIGHTED + WEIGHTED_POPULATIONS),
    *(Case("ce_max_membrane_loss", o, membranes) for o in REDUCTIONS + WEIGHTED),
    *(Case("ce_temporal_loss", o) for o in all_of(INVERSES, REDUCTIONS, [{}, {"weight": weight(C)}])),
    *(Case("mse_count_loss", o) for o in all_of(RATES, [{}, *POPULATIONS], REDUCTIONS)),
    *(Case("mse_membrane_loss", o, membranes) for o in all_of(LEVELS, REDUCTIONS)),
    *(Case("mse_temporal_loss", o) for o in all_of(TIMES, REDUCTIONS)),
    *(Case("mse_temporal_loss", o, apart) for o in all_of(TRAINS, REDUCTIONS)),
    *(Case("mse_temporal_loss", {"target_is_time": True, **o}, targets=GIVEN) for o in REDUCTIONS),
    *(
        Case("mse_temporal_loss", {"target_is_time": True, "multi_spike": True, **o}, apart, GIVEN_TRAINS)
        for o in REDUCTIONS
    ),
]


def outcome(library: Any, case: Case) -> tuple[Tensor, Tensor]:
    """The loss, and the gradient of a weighted sum of all that it returns."""
    x = case.inputs().requires_grad_()
    loss = getattr(library, case.name)(**case.options)(x, case.targets.clone())
    cotangent = torch.linspace(0.5, 2.0, loss.numel()).view(loss.shape)
    (grad,) = torch.autograd.grad((loss * cotangent).sum(), x)
    return loss.detach(), grad


@for_each("case", CASES)
def test_values_and_gradients(case):
    for name, got, wanted in zip(("loss", "gradient"), outcome(ours, case), outcome(theirs, case), strict=True):
        assert_close(got, wanted, name)
        assert wanted.any(), f"{name} is zero throughout"


@pytest.mark.parametrize("name", ["ce_rate_loss", "ce_count_loss", "ce_max_membrane_loss"])
@pytest.mark.parametrize("o", [*REDUCTIONS, *WEIGHTED], ids=str)
def test_samples_with_the_label_of_torch_for_nothing_are_left_out(name, o):
    case = Case(name, o, targets=torch.tensor([0, -100, 2, 1, -100]))
    for got, wanted in zip(outcome(ours, case), outcome(theirs, case), strict=True):
        assert_close(got, wanted, name)


@pytest.mark.parametrize("o", [*TIMES, {"target_is_time": True}], ids=str)
def test_spike_times(o):
    targets = GIVEN if "target_is_time" in o else LABELS
    got, wanted = (library.SpikeTime(**o)(spikes(), targets) for library in (ours, theirs))
    for which in (0, 1):
        assert_close(got[which], wanted[which], ("times", "targets")[which], exact=True)


@pytest.mark.parametrize("o", TRAINS, ids=str)
def test_times_of_several_spikes(o):
    got, wanted = (library.SpikeTime(**o)(apart(), LABELS) for library in (ours, theirs))
    for which in (0, 1):
        assert_close(got[which], wanted[which], ("times", "targets")[which], exact=True)


@for_each("rate", [0.1, 0.29, 0.55, 0.57, 0.7, 1 / 3])
@for_each("population", [1, 3, 7])
def test_counts_that_are_wanted_are_rounded_alike(rate, population):
    """29 * 0.57 * 100 and 0.57 * 29 * 100 are not the same number of spikes."""
    for steps in range(1, 60):
        x, label = torch.zeros(steps, 1, 2 * population), torch.tensor([0])
        made = [library.mse_count_loss(rate, 0, True, 2, reduction="none")(x, label) for library in (ours, theirs)]
        assert_close(*made, f"{steps} steps")


@pytest.mark.parametrize("make", [spikes, lambda: spikes().bool().double(), lambda: spikes()[:, :, :3]])
@pytest.mark.parametrize("o", [(), (True, 3), (False, 3)], ids=str)
def test_accuracy(make, o):
    """Among the samples are ties, and one that is silent."""
    for labels in (LABELS, LABELS.flip(0), torch.zeros_like(LABELS)):
        for name, arguments in (("accuracy_rate", o), ("accuracy_temporal", ())):
            got, wanted = (getattr(library, name)(make(), labels, *arguments) for library in (ours, theirs))
            assert got == wanted
            assert type(got) is type(wanted) is np.float64


@pytest.mark.parametrize("shape", [(T, B, C), (T, B, 2, 3, 4), (T, B), (7,)], ids=str)
def test_l1_rate_sparsity(shape):
    for strength in ((), (0.3,)):
        x = torch.rand(shape, generator=generator(1)).requires_grad_()
        made = [library.l1_rate_sparsity(*strength)(x) for library in (ours, theirs)]
        assert_close(*made, "penalty")
        assert_close(*(torch.autograd.grad(penalty, x)[0] for penalty in made), "gradient")


# -- what a script touches beside the numbers --------------------------------------------------------------------------

NAMES = sorted({case.name for case in CASES} | {"SpikeTime", "LossFunctions", "l1_rate_sparsity"})
FUNCTIONS = ("accuracy_rate", "accuracy_temporal")


def arguments_of(call: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Names and defaults of the arguments that may be given by position."""
    parameters = inspect.signature(call).parameters.values()
    return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize("name", [*NAMES, *FUNCTIONS])
def test_the_arguments_have_the_same_names_order_and_defaults(name):
    assert arguments_of(getattr(ours, name)) == arguments_of(getattr(theirs, name))


@pytest.mark.parametrize("name", sorted({case.name for case in CASES}))
def test_the_arguments_of_a_call_have_the_same_names(name):
    mine, other = getattr(ours, name).forward, getattr(theirs, name).__call__
    assert arguments_of(mine) == arguments_of(other)


@pytest.mark.parametrize("name", sorted({case.name for case in CASES} | {"l1_rate_sparsity"}))
def test_an_object_bears_the_name_of_its_loss(name):
    assert getattr(ours, name)().__name__ == getattr(theirs, name)().__name__ == name


@pytest.mark.parametrize("module", ["loss", "acc", "reg"])
def test_the_submodules_hold_what_they_hold_there(module):
    for name in [*NAMES, *FUNCTIONS]:
        if getattr(theirs, name).__module__ == f"snntorch.functional.{module}":
            assert getattr(getattr(ours, module), name) is getattr(ours, name)
