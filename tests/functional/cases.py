"""The table that drives the tests of the losses: each with its options, and sequences to call it with."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from spikeloom import functional

T, B, C = 9, 5, 6
LABELS = torch.tensor([0, 2, 1, 1, 0])
ON_MEMBRANES = ("ce_max_membrane_loss", "mse_membrane_loss")


@dataclass(frozen=True)
class Case:
    """A loss and the arguments that make it."""

    name: str
    options: Mapping[str, Any]

    def make(self, **more: Any) -> functional.LossFunctions:
        options = {**self.options, **more}
        weight = options.pop("weight", None)
        return getattr(functional, self.name)(weight=weight if weight is None else torch.tensor(weight), **options)

    def inputs(self, steps: int = T, dtype: torch.dtype = torch.float64) -> Tensor:
        """[T, B, C]: spikes, of which a neuron or two has none, or membranes."""
        generator = torch.Generator().manual_seed(11)
        if self.name in ON_MEMBRANES:
            return torch.randn(steps, B, C, generator=generator, dtype=torch.float64).to(dtype)
        return (torch.rand(steps, B, C, generator=generator) < 0.2).to(dtype)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in self.options.items())})"


def rows(*tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every combination of a row of each table."""
    return [{key: value for row in chosen for key, value in row.items()} for chosen in product(*tables)]


WEIGHT = [0.5, 2.0, 1.25, 1.0, 0.75, 3.0]
REDUCTIONS = [{"reduction": reduction} for reduction in ("mean", "sum", "none")]
WEIGHTS = [{}, *({"weight": WEIGHT, **n} for n in ({}, {"normalize_weight": True}, {"normalize_weight": False}))]
POOLED = [{"population_code": True, "num_classes": 3, **w} for w in ({}, {"weight": WEIGHT[:3]})]
RATES = [{}, {"correct_rate": 0.6, "incorrect_rate": 0.2}]
LEVELS = [{}, {"on_target": 0.5, "off_target": -0.5}]
TIMES = [
    {},
    {"on_target": 2, "off_target": -3},
    {"on_target": -1, "off_target": 0, "tolerance": 2},
    {"on_target": [0, 4], "off_target": [-2, -1], "multi_spike": True},
    {"on_target": [1, 3, 5], "off_target": [7, -2, 8], "multi_spike": True, "tolerance": 1.5},
]

CASES = [
    Case(name, options)
    for name, table in {
        "ce_rate_loss": rows(WEIGHTS, REDUCTIONS) + rows(POOLED, REDUCTIONS),
        "ce_count_loss": rows(WEIGHTS, REDUCTIONS) + rows(POOLED, REDUCTIONS),
        "ce_max_membrane_loss": rows(WEIGHTS, REDUCTIONS),
        "ce_temporal_loss": rows([{}, {"inverse": "reciprocal"}], WEIGHTS, REDUCTIONS),
        "mse_count_loss": rows(RATES, WEIGHTS, REDUCTIONS) + rows(RATES, POOLED, REDUCTIONS),
        "mse_membrane_loss": rows(LEVELS, WEIGHTS, REDUCTIONS),
        "mse_temporal_loss": rows(TIMES, WEIGHTS, REDUCTIONS),
    }.items()
    for options in table
]
NAMES = sorted({case.name for case in CASES})
DEFAULTS = [Case(name, {}) for name in NAMES]
