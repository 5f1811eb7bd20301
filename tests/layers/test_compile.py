"""torch.compile around unroll gives what eager unroll gives, with the layers' own gradients."""

import pytest
import torch

import spikeloom as snn

from ..oracle import assert_same
from .running import outcome, unrolled

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["BatchNormTT1d", "GradedSpikes", "SynapticDelay learned", "DelayedLinear learned"])
def test_compiled_whole_it_gives_the_same_results_and_gradients(name):
    def compiled(layer, x):
        return torch.compile(lambda x: snn.unroll(layer, x), fullgraph=True, backend="aot_eager")(x)

    assert_same(outcome(name, compiled), outcome(name, unrolled))
