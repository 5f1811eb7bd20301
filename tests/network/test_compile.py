"""torch.compile around unroll gives what eager unroll gives; around a part of the network it is never wrong."""

import copy
import shutil

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import spikeloom as snn

from ..neurons.zoo import ZOO, made, sequence, slow_unless_compiled_differently
from .networks import NETWORKS, Residual, quarters, twins

BACKEND = "inductor" if shutil.which("g++") or shutil.which("clang++") else "aot_eager"
pytestmark = [
    pytest.mark.compile,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch.utils.deterministic.fill_uninitialized_memory = False  # which inductor does not know
    yield
    torch._dynamo.reset()


def both(net, x):
    """A sequence, and then a static input, in one graph: a C++ compiler takes ten seconds for each."""
    return (*snn.unroll(net, x), *snn.unroll(net, x[0], steps=3))


def run(net, x, unroll):
    """Spikes, membranes, and every gradient."""
    x = x.clone().requires_grad_()
    outs = unroll(x)
    sum((k + out).square().sum() for k, out in enumerate(outs)).backward()
    return outs[::2], outs[1::2], [x.grad, *(p.grad for p in net.parameters())]


@pytest.mark.parametrize(("network", "backend"), [("a sequence of layers", BACKEND), ("residual", "aot_eager")])
def test_compiled_whole_it_gives_the_same_results_and_gradients(network, backend):
    net, twin = twins(NETWORKS[network])
    x = quarters(5, 4, 6)
    # the mode that records CUDA graphs where there is a GPU; plain inductor on the CPU
    options = {"mode": "reduce-overhead"} if backend == "inductor" else {"backend": backend}
    compiled = torch.compile(lambda x: both(net, x), fullgraph=True, **options)
    got, wanted = run(net, x, compiled), run(twin, x, lambda x: both(twin, x))
    assert all(torch.equal(*pair) for pair in zip(got[0], wanted[0], strict=True))
    for ours, theirs in zip([*got[1], *got[2]], [*wanted[1], *wanted[2]], strict=True):
        torch.testing.assert_close(ours, theirs)
    for mem in got[1]:
        mem.detach_()


def test_the_state_goes_on_between_compiled_calls_of_other_lengths():
    net, twin = twins(NETWORKS["a sequence of layers"])
    compiled = torch.compile(lambda x: snn.unroll(net, x), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for length in (5, 2, 9):
            x = quarters(length, 4, 6, seed=length)
            assert torch.equal(compiled(x)[1], snn.unroll(twin, x)[1])


def test_the_loop_can_be_forced_within_what_is_compiled():
    net, twin = twins(NETWORKS["a sequence of layers"])

    def looped(x):
        with snn.backend("loop"):
            return snn.unroll(net, x)

    x = quarters(3, 4, 6)
    assert torch.equal(torch.compile(looped, fullgraph=True, backend="eager")(x)[1], snn.unroll(twin, x)[1])


@pytest.mark.parametrize(
    ("steps", "used"), [(None, False), (5, True)], ids=["sequence, new", "static, used step by step before"]
)
def test_a_network_compiled_by_itself_is_unrolled_rightly(steps, used):
    net, twin = twins(Residual)
    x = quarters(4, 6) if steps else quarters(5, 4, 6)
    compiled = torch.compile(net, backend="eager")
    with torch.no_grad():
        if used:
            compiled(quarters(4, 6))
            snn.utils.reset(compiled)
        for _ in range(2):
            assert torch.equal(snn.unroll(compiled, x, steps=steps)[1], snn.unroll(twin, x, steps=steps)[1])
        assert torch.equal(compiled(quarters(4, 6))[1], twin(quarters(4, 6))[1])


def test_a_compiled_part_is_unrolled_rightly():
    net, twin = twins(lambda: nn.Sequential(nn.Linear(6, 6), Residual()))
    net[1] = torch.compile(copy.deepcopy(net[1]), backend="eager")
    with torch.no_grad():
        assert torch.equal(snn.unroll(net, quarters(5, 4, 6))[1], snn.unroll(twin, quarters(5, 4, 6))[1])


@pytest.mark.parametrize(
    "name", slow_unless_compiled_differently(name for name in ZOO if name != "NoisyLeaky")
)  # compilers draw otherwise
def test_every_neuron_compiles_whole(name):
    neuron, twin = (made(name, learn=True, init_hidden=True, output=True) for _ in range(2))
    compiled = torch.compile(lambda x: snn.unroll(neuron, x), fullgraph=True, backend="aot_eager")
    results = []
    for unroll in (compiled, lambda x: snn.unroll(twin, x)):
        xs = sequence(name, 4).requires_grad_()
        outs = tree_leaves(unroll(xs))
        sum(out.sum() for out in outs).backward()
        results.append((*outs, xs.grad))
    assert torch.equal(results[0][0], results[1][0])
    for ours, theirs in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(ours, theirs)
