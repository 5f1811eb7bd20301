"""The tests of graphs run on the plain loop: other tests hold the kernels to it, and each would compile its own."""

import pytest

import spikeloom as snn


@pytest.fixture(autouse=True)
def on_the_loop():
    with snn.backend("loop"):
        yield
