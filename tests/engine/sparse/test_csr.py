"""Lists of what is not zero, and products with them, against dense tensors."""

import pytest
import torch
from torch import Tensor

from spikeloom.engine.sparse import csr
from spikeloom.engine.tuning import shapes


def mostly_zero(rows: int, width: int, kind: str, dtype: torch.dtype = torch.float32) -> Tensor:
    draw = torch.Generator().manual_seed(rows + width)
    active = torch.rand(rows, width, generator=draw) < 0.1
    values = {"ones": torch.ones(rows, width), "graded": torch.randint(1, 9, (rows, width), generator=draw) / 4}
    values["one other"] = values["ones"].clone()
    active[-1, -1], values["one other"][-1, -1] = True, float("nan")
    return torch.where(active, values[kind], torch.zeros(())).to(dtype)


def dyadic(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(shape[0])).to(dtype) / 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["ones", "graded", "one other"])
@pytest.mark.parametrize("width", [1, 63, 64, 65, 130])
def test_lists_hold_what_is_not_zero(width: int, kind: str, dtype: torch.dtype) -> None:
    x = mostly_zero(9, width, kind, dtype)
    lists = csr.listed(x)
    assert torch.equal(lists.dense().nan_to_num(7), x.nan_to_num(7))
    assert lists.step == (kind != "ones" or len(lists.index) == 1)  # ones are not written down


@pytest.mark.parametrize("outputs", [5, 64, 100, 128, 130, 200])
@pytest.mark.parametrize("kind", ["ones", "graded"])
@pytest.mark.parametrize("rows", [1, 2 * shapes.outer_rows, 2 * shapes.outer_rows + 7])
def test_products_are_the_dense_ones_for_blocks_that_are_not_full(rows: int, kind: str, outputs: int) -> None:
    x, weight, grad = mostly_zero(rows, 70, kind), dyadic(70, outputs), dyadic(rows, outputs)
    lists = csr.listed(x)
    product, total = csr.outer((lists, grad), (lists, 2 * grad))
    assert torch.equal(csr.product(lists, csr.pack_panels(weight), None), x @ weight)
    assert torch.equal(product, 3 * grad.t() @ x)
    assert torch.equal(total, 3 * grad.sum(0))


@pytest.mark.parametrize("nonfinite", [float("inf"), float("-inf"), float("nan")])
def test_a_packed_matrix_knows_whether_all_of_it_is_finite(nonfinite: float) -> None:
    matrix = torch.full((70, 200), torch.finfo(torch.float32).max)  # large, but finite
    assert csr.pack_panels(matrix).finite
    for place in [(0, 0), (69, 199), (33, 130)]:
        other = matrix.clone()
        other[place] = nonfinite
        assert not csr.pack_panels(other).finite
        assert not csr.pack_panels(other.t()).finite


def test_sums_over_many_rows_keep_their_digits() -> None:
    """One sum in float32 over so many equal values is wrong by a thousandth."""
    rows = 200_000
    lists, grad = csr.listed(torch.ones(rows, 3)), torch.full((rows, 5), 0.1)
    product, total = csr.outer((lists, grad))
    exact = rows * grad[0, 0].double()
    for found in (product, total):
        assert (found / exact - 1).abs().max() < 5e-5
