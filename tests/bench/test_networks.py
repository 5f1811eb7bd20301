"""The networks of the benchmark: all contestants agree, on layers that fire."""

import re
from dataclasses import replace

import pytest

from spikeloom.bench import CASES, runner
from spikeloom.bench.networks import NETWORKS, PRODUCTS
from spikeloom.bench.recurrent import ACCELERATED, STEPPED
from spikeloom.bench.runner import run_case

SMALL = {"linear": (10, 4, 33), "inference": (10, 4, 33), "single": (10, 1, 64), "convolution": (8, 2)}


@pytest.fixture(autouse=True)
def one_run_a_turn(monkeypatch):
    monkeypatch.setattr(runner, "TURN", 0.0)


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_networks_agree_and_every_layer_fires(case):
    assert CASES[case.name] is case
    result = run_case(case, SMALL[case.name], repeats=1)
    assert not result.disagreeing
    assert list(result.seconds) == list(case.contestants)
    fired = [float(percent) for percent in re.findall(r"([\d.]+)%", result.remarks)]
    assert len(fired) > 1
    assert all(1 < percent < 40 for percent in fired), result.remarks


def test_a_network_that_saw_another_input_is_not_timed():
    case = CASES["linear"]

    def spoilt(task):
        return case.contestants[ACCELERATED](replace(task, x=task.x.roll(1, 0)))

    found = run_case(replace(case, contestants={**case.contestants, ACCELERATED: spoilt}), SMALL["linear"], repeats=1)
    assert ACCELERATED not in found.seconds
    assert f"disagrees with {STEPPED!r}" in found.disagreeing[ACCELERATED]
    assert PRODUCTS in found.seconds
