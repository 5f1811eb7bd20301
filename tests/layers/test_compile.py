"""torch.compile around unroll gives what eager unroll gives, with the layers' own gradients."""

import copy

import pytest
import torch
from torch import nn

import spikeloom as snn

from ..oracle import assert_close, assert_same
from .running import inputs, made, outcome, unrolled

pytestmark = [
    pytest.mark.compile,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]


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


@pytest.mark.parametrize("name", ["BatchNormTT1d", "GradedSpikes along dimension 0", "SynapticDelay"])
def test_a_network_compiled_by_itself_and_used_is_unrolled_rightly(name):
    net = nn.Sequential(nn.Tanh(), made(name))
    twin, x = copy.deepcopy(net), inputs(name).detach()
    compiled = torch.compile(net, backend="eager")
    with torch.no_grad():
        compiled(x[0])
        snn.utils.reset(compiled)
        assert_close(snn.unroll(compiled, x), snn.unroll(twin, x), name)
