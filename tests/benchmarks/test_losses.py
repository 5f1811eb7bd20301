"""The cases of losses: trains on which both libraries can agree."""

import pytest
import torch

from benchmarks.losses import SPIKES, regular


@pytest.mark.parametrize("shape", [(100, 8, 10), (10, 4, 5)], ids=str)
def test_trains_are_one_or_have_no_step_in_common(shape):
    spk = regular(shape).spk.detach().flatten(1)
    assert (spk.sum(0) == SPIKES).all()
    together = spk.T @ spk
    assert set(together.unique().tolist()) == {0, SPIKES}
    assert torch.equal(regular(shape).spk, regular(shape).spk)
