"""Kernels are called by the names of their arguments."""

import pytest
import torch

from spikeloom.engine.sparse import csr


def test_a_missing_or_further_argument_is_refused() -> None:
    x, counts, marks, other = torch.ones(1, 3), *(torch.zeros(1, dtype=torch.int64) for _ in range(3))
    given = {"rows": 1, "size": 3, "width": 3, "x": x, "counts": counts, "marks": marks, "other": other}
    mark = csr._mark(torch.float32)
    mark(**given)
    assert (int(counts), int(marks), int(other)) == (3, 0b111, 0)
    for name in given:
        with pytest.raises(TypeError, match=name):
            mark(**{key: value for key, value in given.items() if key != name})
    with pytest.raises(TypeError, match="step"):
        mark(**given, step=1)


def test_a_tensor_is_not_given_by_its_address() -> None:
    with pytest.raises(AttributeError, match="data_ptr"):
        csr._mark(torch.float32)(rows=1, size=3, width=3, x=0, counts=0, marks=0, other=0)
