"""The cases of the neurons over whole sequences: both libraries agree at small sizes, and a wrong layer is seen."""

import pytest

import spikeloom as snn
from spikeloom.bench.parallel import LAYERS, OURS, PARALLEL, called
from spikeloom.bench.runner import admit


@pytest.mark.parametrize("case", PARALLEL, ids=lambda case: case.name)
def test_both_libraries_agree(case):
    pytest.importorskip("snntorch")
    runs, missing, disagreeing = admit(case, case.inputs((100, 2, 8)))
    assert list(runs) == list(case.contestants)
    assert not missing
    assert not disagreeing


def test_another_decay_would_be_seen():
    (case,) = (case for case in PARALLEL if case.name == "state-leaky")
    x = case.inputs((100, 2, 8))
    wrong = called(lambda library, n: snn.StateLeaky(0.9, n, exact=True), "spikeloom")
    spoilt = {OURS: case.contestants[OURS], "wrong": wrong}
    _, _, disagreeing = admit(type(case)(**{**vars(case), "contestants": spoilt}), x)
    assert "membranes 0 differ" in disagreeing["wrong"]


def test_every_layer_has_a_case():
    assert [case.name for case in PARALLEL] == list(LAYERS)
