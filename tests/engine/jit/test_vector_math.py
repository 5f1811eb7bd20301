"""exp and tanh of the kernels, against torch's."""

import pytest
import torch
from numba import njit
from torch import Tensor

from spikeloom.engine.jit import vector_math

from ...cases import DTYPES

NAMES = ("exp", "tanh")
ULPS = 2


def points(dtype: torch.dtype) -> Tensor:
    """Around zero, down to the smallest numbers, and far beyond where exp is infinite or zero."""
    far = 120.0 if dtype == torch.float32 else 800.0
    tiny = torch.logspace(-30, 0, 500, dtype=dtype)
    return torch.cat([torch.linspace(-b, b, 20_001, dtype=dtype) for b in (far, 20.0, 1.0)] + [tiny, -tiny])


def applied(name: str, u: Tensor) -> Tensor:
    function = getattr(vector_math, f"{name}_{str(u.dtype).removeprefix('torch.')}")

    @njit(error_model="numpy")
    def over(values, results):
        for m in range(len(values)):
            results[m] = function(values[m])

    results = torch.empty_like(u)
    over(u.numpy(), results.numpy())
    return results


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_they_differ_by_units_in_the_last_place(name, dtype):
    u = points(dtype)
    got, wanted = applied(name, u), getattr(torch, name)(u)
    assert torch.equal(got.isinf(), wanted.isinf())
    finite = ~wanted.isinf()
    info = torch.finfo(dtype)
    unit = (wanted[finite].abs() * info.eps).clamp(min=info.smallest_normal * info.eps)
    assert ((got - wanted)[finite].abs() / unit).max() <= ULPS


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_they_are_exact_where_the_result_is_a_whole_number(name, dtype):
    inf, nan = float("inf"), float("nan")
    u = torch.tensor([0.0, -0.0, inf, -inf, nan, 1e30, -1e30], dtype=dtype)
    got, wanted = applied(name, u), getattr(torch, name)(u)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)
