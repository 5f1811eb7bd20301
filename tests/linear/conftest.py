"""What tests of accelerated layers share."""

import pytest

from spikeloom.linear import convolution, pooling, spike_linear


@pytest.fixture
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers too go through the kernels."""
    for name in ("LEAST_WORK", "LEAST_ROWS", "LISTING"):
        monkeypatch.setattr(spike_linear, name, 0)
    for name in ("LEAST_WORK", "LEAST_CHANNELS", "LEAST_INPUTS"):
        monkeypatch.setattr(convolution, name, 0)
    monkeypatch.setattr(pooling, "LEAST_VALUES", 0)
