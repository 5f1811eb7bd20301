"""The cases of the neurons with gates: a wrong one is seen."""

from dataclasses import replace

from benchmarks.leaky import UNROLLED
from benchmarks.lstm import LSTMS, at_once, prepared
from benchmarks.runner import admit


def test_another_threshold_would_be_seen():
    case = LSTMS[0]

    def higher(library, shape):
        return library.SLSTM(shape[2], shape[2], threshold=0.15, init_hidden=True, output=True)

    wrong = {**case.contestants, UNROLLED: prepared(higher, "spikeloom", at_once)}
    found = admit(replace(case, contestants=wrong), case.inputs(case.small))
    assert list(found.disagreeing) == [UNROLLED]
