"""BatchNormTT and GradedSpikes."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from .fix import Fix, error_of


def scaled(*shape: int, **options: Any) -> Callable[[ModuleType], Any]:
    """What three weights, 1, 2 and 3, make of ones of a shape; or the name of the error."""

    def outcome(snn: ModuleType) -> Any:
        graded = snn.GradedSpikes(3, 1.0, **options)
        graded.weights.data = torch.tensor([[1.0], [2.0], [3.0]])
        error = error_of(lambda: graded(torch.ones(shape)))
        return graded(torch.ones(shape)).tolist() if error == "nothing" else error

    return outcome


def dtype_of_halves(snn: ModuleType) -> torch.dtype:
    return snn.GradedSpikes(3, 1.0)(torch.ones(3, 2, dtype=torch.float16)).dtype


def called_whole(snn: ModuleType) -> str:
    return error_of(lambda: snn.BatchNormTT1d(2, 3)(torch.rand(4, 2)))


BATCH = "`GradedSpikes` on a batch, `[B, N]`"
MORE = "`GradedSpikes` on three dimensions"
ROWS = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]

FIXES: dict[str, Fix] = {
    "graded spikes of a batch": Fix(BATCH, scaled(4, 3), "RuntimeError", "ValueError"),
    "graded spikes of one row": Fix(BATCH, scaled(1, 3), [[1.0] * 3, [2.0] * 3, [3.0] * 3], "ValueError"),
    "graded spikes without a batch": Fix(
        "`GradedSpikes` on one dimension, `[N]`", scaled(3), [[1.0] * 3, [2.0] * 3, [3.0] * 3], [1.0, 2.0, 3.0]
    ),
    "graded spikes of images": Fix(MORE, scaled(1, 3, 2), [ROWS], "ValueError", scaled(1, 3, 2, dim=-2)),
    "graded spikes of square images": Fix(
        MORE, scaled(3, 3, 2), [ROWS] * 3, [[[n] * 2] * 3 for n in (1.0, 2.0, 3.0)], scaled(3, 3, 2, dim=-2)
    ),
    "graded spikes in half precision": Fix("`GradedSpikes` on float16", dtype_of_halves, torch.float32, torch.float16),
    "a norm per step, called whole": Fix(
        "calling `BatchNormTT1d` or `BatchNormTT2d` directly", called_whole, "NotImplementedError", "nothing"
    ),
}
