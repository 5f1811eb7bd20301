"""The cases of the neurons with gates: both libraries and all ways agree at small sizes, and a wrong one is seen."""

from dataclasses import replace

import pytest

from spikeloom.bench.leaky import UNROLLED
from spikeloom.bench.lstm import LSTMS, at_once, prepared
from spikeloom.bench.runner import admit

SMALL = {"slstm": (7, 2, 5), "sconv2dlstm": (4, 2, 2, 5, 4)}


@pytest.mark.parametrize("case", LSTMS, ids=lambda case: case.name)
def test_all_ways_agree(case):
    pytest.importorskip("snntorch")
    runs, missing, disagreeing = admit(case, case.inputs(SMALL[case.name]))
    assert list(runs) == list(case.contestants)
    assert not missing
    assert not disagreeing


def test_another_threshold_would_be_seen():
    case = LSTMS[0]

    def higher(library, shape):
        return library.SLSTM(shape[2], shape[2], threshold=0.15, init_hidden=True, output=True)

    wrong = {**case.contestants, UNROLLED: prepared(higher, "spikeloom", at_once)}
    _, _, disagreeing = admit(replace(case, contestants=wrong), case.inputs(SMALL[case.name]))
    assert list(disagreeing) == [UNROLLED]
