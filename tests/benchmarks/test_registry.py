"""The registry: every case runs at its small shape, its contestants agree there, and a wrong one would be seen."""

import re
from dataclasses import replace

import pytest
import torch

from benchmarks import CASES, SUITE, runner, tutorial
from benchmarks.half import HALF
from benchmarks.peers import LIBRARIES, OURS
from benchmarks.runner import admit

ACTIVE = [
    case.name for case in CASES.values() if case.name in ("linear", "inference", "convolution", "memory", "recurrent")
]
ASIDE = ("start", "sconv2dlstm")  # processes of their own; a case like slstm


@pytest.fixture(autouse=True)
def few_neurons(monkeypatch):
    monkeypatch.setattr(tutorial, "HIDDEN", 30)


def test_every_case_is_found_by_its_name():
    assert [case.name for case in CASES.values()] == list(CASES)
    assert [name for name, case in CASES.items() if case.standard] == ["leaky"]


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_case_is_complete(case):
    names = [*case.contestants, *case.peers]
    assert {case.reference, case.ours, case.floor or case.ours, *case.unchecked} <= set(names)
    assert case.reference not in case.unchecked
    assert len(set(names)) == len(names)
    assert bool(case.label.format(**dict.fromkeys(case.axes, 0))) == (case in SUITE)
    for shape in (case.small, *case.shapes, *(shape for points in case.sweeps.values() for shape in points)):
        assert len(shape) == len(case.axes)
    for axis, points in case.sweeps.items():
        place = case.axes.index(axis)
        assert len({shape[:place] + shape[place + 1 :] for shape in points}) == 1, "a sweep goes along one axis"
        assert any(shape[place] & (shape[place] - 1) for shape in points), "powers of two alone may behave specially"


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_all_that_is_timed_agrees(case):
    if case.name in ASIDE:
        return
    pytest.importorskip("snntorch")
    found = admit(case, case.inputs(case.small))
    assert not found.disagreeing
    assert not found.missing
    assert list(found.runs) == list(case.contestants)


@pytest.mark.parametrize("name", ACTIVE)
def test_every_layer_fires(name):
    case = CASES[name]
    message, *_ = case.remarks(case.inputs(case.small)).splitlines()
    fired = [float(percent) for percent in re.findall(r"([\d.]+)%", message)]
    assert len(fired) > 1
    assert all(0.5 < percent < 40 for percent in fired)


@pytest.mark.parametrize("case", [case for case in (*SUITE, HALF) if case.peers], ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore")  # what other libraries warn of
def test_libraries_do_the_work_of_their_twins(case):
    found = admit(
        replace(case, contestants={case.reference: case.contestants[case.reference]}),
        case.inputs(case.small),
        case.peers,
    )
    assert not found.disagreeing
    assert {*found.runs, *found.missing} == {case.reference, *case.peers}


@pytest.mark.parametrize("case", [CASES["leaky"], CASES["linear"], CASES["latency"]], ids=lambda case: case.name)
def test_a_library_with_another_decay_is_not_timed(case):
    peer = case.peers["SpikingJelly"]
    wrong = replace(peer, prepare=lambda x: spoilt(peer.twin(x)))
    found = admit(replace(case, peers={"wrong": wrong}), case.inputs(case.small), ["wrong"])
    assert "disagrees with the plain loop of its equation" in found.disagreeing["wrong"]


def spoilt(run):
    return lambda: {name: value.roll(1, 0) if value.dim() else value for name, value in run().items()}


@pytest.mark.parametrize("case", SUITE, ids=lambda case: case.name)
def test_a_wrong_contestant_is_not_timed(case):
    right = case.contestants[case.ours]
    contestants = {case.reference: case.contestants[case.reference], "wrong": lambda x: spoilt(right(x))}
    found = admit(replace(case, contestants=contestants), case.inputs(case.small))
    assert list(found.disagreeing) == ["wrong"]
    assert f"disagrees with {case.reference!r}" in found.disagreeing["wrong"]


@pytest.mark.parametrize("backend", ["numba", "loop"])
def test_their_equation_is_what_it_says(backend):
    """A membrane that reaches the threshold fires, and loses the threshold within the step."""
    x = torch.tensor([0.5, 0.75, 0.5, 2.75, 0.0, 0.0]).reshape(6, 1, 1)
    neurons = OURS.twin(0.5) if backend == "loop" else OURS.neurons(0.5)
    assert neurons(x).flatten().tolist() == [0, 1, 0, 1, 1, 0]
    assert neurons.membranes(x).flatten().tolist() == [0.5, 0.0, 0.5, 2.0, 0.0, 0.0]


def test_each_library_has_its_versions_named():
    assert list(LIBRARIES) == ["SpikingJelly", "Norse", "Sinabs"]
    assert {name.lower() for name in LIBRARIES} <= set(runner.PEERS)
