"""The spike functions."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from .fix import Fix


def slope(make: Callable[[Any], Any], at: float) -> Callable[[ModuleType], Any]:
    """The gradient of a spike function at a point, or the name of the error."""

    def slope_of(snn: ModuleType) -> Any:
        u = torch.tensor([at], requires_grad=True)
        try:
            make(snn.surrogate)(u).sum().backward()
        except Exception as error:
            return type(error).__name__
        return "nan" if math.isnan(u.grad.item()) else round(u.grad.item(), 4)

    return slope_of


def dtype_of_spikes(snn: ModuleType) -> torch.dtype:
    return snn.surrogate.atan()(torch.ones(1, dtype=torch.float64)).dtype


def kind_of_a_spike_function(snn: ModuleType) -> bool:
    """Whether two of the same constants are equal."""
    return snn.surrogate.atan() == snn.surrogate.atan()


FIXES: dict[str, Fix] = {
    "dtype of the spikes": Fix("dtype of the spikes", dtype_of_spikes, torch.float32, torch.float64),
    "sigmoid far below": Fix(
        "`sigmoid`, slope * u below -88", slope(lambda surrogate: surrogate.sigmoid(25), -4.0), "nan", 0.0
    ),
    "LSO": Fix(
        "`LSO()` and `LeakySpikeOperator.apply`", slope(lambda surrogate: surrogate.LSO(0.3), -1.0), "TypeError", 0.3
    ),
    "LeakySpikeOperator": Fix(
        "`LSO()` and `LeakySpikeOperator.apply`",
        slope(lambda surrogate: lambda u: surrogate.LeakySpikeOperator.apply(u, 0.3), -1.0),
        "RuntimeError",
        0.3,
    ),
    "spike functions compare": Fix("what a factory returns", kind_of_a_spike_function, False, True),
}
