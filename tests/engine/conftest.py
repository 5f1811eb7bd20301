"""Fixtures for the tests of Triton's kernels, which are interpreted where there is no GPU."""

import numpy as np
import pytest

from spikeloom.engine.cpu import launch, single_step


@pytest.fixture
def quiet():
    """The interpreter's NumPy warns of infinities and NaN, also in lanes that nobody reads."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def no_numba(monkeypatch):
    """Results that Numba's kernels gave would prove nothing."""

    def refuse(*args):
        raise AssertionError("Numba's kernels were called")

    for name in ("forward", "backward", "one_step"):
        monkeypatch.setattr(launch, name, refuse)
    monkeypatch.setattr(single_step, "step", refuse)
