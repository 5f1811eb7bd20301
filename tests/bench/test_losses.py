"""The cases of losses: both libraries agree on what is timed, and on trains of any other kind they could not."""

import pytest
import torch

from spikeloom.bench import CASES, runner
from spikeloom.bench.losses import LOSSES, OURS, PEER, SPIKES, regular
from spikeloom.bench.runner import run_case


@pytest.fixture(autouse=True)
def one_run_a_turn(monkeypatch):
    monkeypatch.setattr(runner, "TURN", 0.0)


@pytest.mark.parametrize("shape", [(20, 4, 3), (7, 2, 5), (3, 1, 1)], ids=str)
@pytest.mark.parametrize("case", LOSSES, ids=lambda case: case.name)
def test_both_agree_and_are_timed(case, shape):
    pytest.importorskip("snntorch")
    result = run_case(case, shape, repeats=2)
    assert not result.disagreeing
    assert not result.missing
    assert {OURS, PEER} <= set(result.seconds)
    assert CASES[case.name] is case


@pytest.mark.parametrize("shape", [(100, 8, 10), (10, 4, 5)], ids=str)
def test_trains_are_one_or_have_no_step_in_common(shape):
    spk = regular(shape).spk.detach().flatten(1)
    assert (spk.sum(0) == SPIKES).all()
    together = spk.T @ spk
    assert set(together.unique().tolist()) == {0, SPIKES}
    assert torch.equal(regular(shape).spk, regular(shape).spk)
