"""What tests of accelerated layers share."""

import pytest

LINEAR = {"linear_least_work": 0, "linear_least_rows": 0, "linear_listing": 0}
CONVOLUTION = {"conv_least_work": 0, "conv_least_channels": 0, "conv_least_inputs": 0}


@pytest.fixture
def every_size(tuned) -> None:
    """Small layers too go through the kernels."""
    tuned(**LINEAR, **CONVOLUTION, pooling_least_values=0)
