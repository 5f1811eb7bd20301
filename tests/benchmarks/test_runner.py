"""The runner: disagreement is not timed, turns alternate, ratios are of medians, shapes are checked."""

import gc
import sys
import time
from dataclasses import replace

import pytest
import torch

from benchmarks import runner
from benchmarks.result import CannotRun
from benchmarks.runner import Case, NotInstalled, Peer, disagreements, in_turn, installed, run_case, timed, turn_size

SPIKES = torch.tensor([0.0, 1.0, 1.0])


@pytest.fixture(autouse=True)
def one_run_a_turn(monkeypatch):
    monkeypatch.setattr(runner, "TURN", 0.0)


def ready(spikes=SPIKES, seconds=1.0, **others):
    """A contestant that returns these spikes at once and says that it took so long."""
    outcome = {"spikes": spikes, "seconds": torch.tensor(seconds, dtype=torch.float64), **others}
    return lambda inputs: lambda: outcome


def absent(inputs):
    raise NotInstalled("not installed; pip install theirs")


def case(**contestants):
    """A case whose reference is `reference`, with a peer and a floor if they are among the contestants."""
    return Case(
        name="made up",
        title="Nothing at all",
        axes=("T",),
        shapes=((3,),),
        small=(3,),
        inputs=lambda shape: shape,
        contestants={"reference": ready(), **contestants},
        reference="reference",
        ours="reference",
        floor="floor",
        unchecked=("floor",),
    )


def test_what_agrees_is_timed():
    result = run_case(case(ours=ready()), (3,), repeats=4)
    assert result.seconds == {"reference": [1.0] * 4, "ours": [1.0] * 4}
    assert not result.disagreeing
    assert not result.missing


def test_kernels_are_counted_and_not_compared():
    first, later = ready(kernels=torch.tensor(2)), ready(kernels=torch.tensor(0))
    result = run_case(case(reference=first, ours=later, floor=ready()), (3,), repeats=1)
    assert result.kernels == {"reference": 2, "ours": 0}
    assert not result.disagreeing


def test_one_different_spike_is_not_timed():
    result = run_case(case(ours=ready(spikes=torch.tensor([0.0, 1.0, 0.0]))), (3,), repeats=1)
    assert list(result.seconds) == ["reference"]
    assert result.disagreeing == {"ours": "not timed, because it disagrees with 'reference': 1 of 3 spikes differ"}


def test_the_floor_does_other_work():
    result = run_case(case(floor=ready(spikes=SPIKES[:1])), (3,), repeats=1)
    assert list(result.seconds) == ["reference", "floor"]


def test_what_is_not_installed_is_reported():
    result = run_case(case(theirs=absent), (3,), repeats=1)
    assert result.missing == {"theirs": "not installed; pip install theirs"}
    assert list(result.seconds) == ["reference"]


@pytest.mark.parametrize(
    ("got", "message"),
    [
        ({"spikes": SPIKES, "g": torch.ones(2)}, []),
        ({"spikes": SPIKES, "g": torch.ones(2) + 1e-6}, []),
        ({"spikes": SPIKES, "g": torch.tensor([1.0, 1.5])}, ["1 of 2 g differ, by up to 0.5"]),
        ({"spikes": SPIKES, "g": torch.tensor([1.0, torch.nan])}, ["1 of 2 g differ, by up to nan"]),
        ({"spikes": SPIKES}, ["g have the shape None, the reference's have [2]"]),
        ({"spikes": SPIKES + 1e-6, "g": torch.ones(2)}, ["3 of 3 spikes differ"]),
        ({"spikes": SPIKES[:2], "g": torch.ones(2)}, ["spikes have the shape [2], the reference's have [3]"]),
    ],
)
def test_differences_are_sentences(got, message):
    assert disagreements(got, {"spikes": SPIKES, "g": torch.ones(2), "seconds": torch.zeros(1)}) == message


def test_small_numbers_are_compared_with_the_largest_of_their_tensor():
    right = {"g": torch.tensor([100.0, 1e-9, 0.0])}
    assert disagreements({"g": torch.tensor([100.0, 5e-4, -5e-4])}, right) == []
    assert disagreements({"g": torch.tensor([100.0, 5e-3, 0.0])}, right) == ["1 of 3 g differ, by up to 0.005"]
    tiny = {"g": right["g"] * 1e-9}
    assert disagreements({"g": torch.zeros(3)}, tiny) == ["1 of 3 g differ, by up to 1e-07"]


def test_a_case_may_ask_for_less():
    assert disagreements({"loss": torch.tensor([2.001])}, {"loss": torch.tensor([2.0])}, close=1e-3) == []


def test_a_peer_is_compared_with_its_twin_and_may_flip_one_spike_in_many():
    theirs, wanted = torch.zeros(20_000), torch.ones(20_000)
    flipped = [ready(spikes=torch.cat([torch.zeros(n), wanted[n:]])) for n in (2, 3)]
    twin = ready(spikes=wanted)
    peers = {str(n): Peer(prepare, twin, "fires always") for n, prepare in enumerate([*flipped, absent])}
    made = replace(case(reference=ready(spikes=theirs)), peers=peers)
    result = run_case(made, (3,), repeats=1, peers=peers)
    assert list(result.seconds) == ["reference", "0"]
    assert result.notes == {"0": "fires always"}
    assert result.disagreeing["1"].endswith("the plain loop of its equation: 3 of 20000 spikes differ")
    assert list(result.missing) == ["2"]
    assert list(run_case(made, (3,), repeats=1).seconds) == ["reference"], "only if they are asked for"


@pytest.mark.parametrize(
    ("module", "message"),
    [("spikingjelly.clock", "spikingjelly==2.0.0"), ("norse", "norse==1.1.0"), ("another.thing", "another")],
)
def test_how_to_get_a_library(monkeypatch, module, message):
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    with pytest.raises(NotInstalled, match=rf"not installed \(.*\); pip install {message}$"):
        installed(module)


def test_contestants_take_turns_with_the_collector_off():
    order = []

    def run(name):
        return lambda: order.append((name, gc.isenabled())) or {}

    seconds = in_turn({"a": run("a"), "b": run("b")}, range(2), {"b": 2})
    assert order == [("a", False), *[("b", False)] * 4] * 2  # b twice untimed, then twice
    assert gc.isenabled()
    assert [len(samples) for samples in seconds.values()] == [2, 2]


def test_a_sample_is_the_mean_of_its_turn_without_the_runs_that_warm_up():
    ticks = iter([50.0, 40.0, 30.0, 1.0, 2.0, 6.0])
    seconds = in_turn({"a": lambda: {"seconds": torch.tensor(next(ticks))}}, range(1), {"a": 3})
    assert seconds == {"a": [3.0]}


def test_short_runs_are_repeated_in_a_turn(monkeypatch):
    monkeypatch.setattr(runner, "TURN", 0.003)
    assert (turn_size(1.0), turn_size(0.001), turn_size(0.0)) == (1, 3, 3000)


@pytest.mark.parametrize("shape", [(), (3, 4), (0,)], ids=str)
def test_a_wrong_shape_is_a_sentence(shape):
    with pytest.raises(CannotRun, match=r"case made up got the shape .*; pass T, each at least 1"):
        run_case(case(), shape)


@pytest.mark.parametrize(("cost", "rounds"), [(0.25, 8), (5.0, 3), (0.001, 200)])
def test_the_budget_decides_how_many_rounds(monkeypatch, cost, rounds):
    """Between the least of the case and the most of all."""
    monkeypatch.setattr(runner, "elapsed", lambda action: cost)
    assert len(run_case(case(), (3,), budget=2.0).seconds["reference"]) == rounds


def test_a_run_without_a_clock_of_its_own_is_timed():
    assert timed(lambda: time.sleep(0.01) or {}) >= 0.01
