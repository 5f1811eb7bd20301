"""The cases of the neurons over whole sequences: a wrong layer is seen."""

from dataclasses import replace

import spikeloom as snn
from benchmarks.parallel import LAYERS, OURS, PARALLEL, called
from benchmarks.runner import admit


def test_another_decay_would_be_seen():
    (case,) = (case for case in PARALLEL if case.name == "state-leaky")
    wrong = called(lambda library, n: snn.StateLeaky(0.9, n, exact=True), "spikeloom")
    spoilt = {OURS: case.contestants[OURS], "wrong": wrong}
    found = admit(replace(case, contestants=spoilt), case.inputs(case.small))
    assert "membranes 0 differ" in found.disagreeing["wrong"]


def test_every_layer_has_a_case():
    assert [case.name for case in PARALLEL] == list(LAYERS)
