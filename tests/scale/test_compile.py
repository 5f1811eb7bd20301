"""How often torch.compile compiles: a handful of graphs, whatever T, B and the number of steps; results as in eager."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import spikeloom as snn

from ..network.networks import leaky, quarters, twins
from ..neurons.zoo import made
from ..oracle import assert_close

pytestmark = [
    pytest.mark.compile,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]

SIZES = [(5, 4), (7, 4), (9, 8), (3, 3), (12, 16), (4, 2)]  # T, B

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "feedforward": lambda: nn.Sequential(nn.Linear(6, 5), leaky(), nn.Linear(5, 4), leaky(output=True)),
    "recurrent": lambda: nn.Sequential(
        nn.Linear(6, 4), made("RSynaptic through Linear", learn=True, init_hidden=True, output=True)
    ),
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    torch.utils.deterministic.fill_uninitialized_memory = False  # which inductor does not know
    yield
    torch._dynamo.reset()


class Counting:
    """A compiler that counts the graphs it is given."""

    def __init__(self, name: str = "aot_eager"):
        self.compile, self.graphs = torch._dynamo.lookup_backend(name), 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return self.compile(graph, inputs)


def loss_of(outs: Any) -> Tensor:
    return sum((out**2).sum() for out in tree_leaves(outs))


def assert_agree(net: nn.Module, twin: nn.Module, got: Any, wanted: Any) -> None:
    """Outputs, and where they have a graph the gradients of every parameter."""
    for i, (ours, theirs) in enumerate(zip(tree_leaves(got), tree_leaves(wanted), strict=True)):
        assert_close(ours, theirs, f"output {i}", exact=i == 0)
    if tree_leaves(got)[0].requires_grad:
        for each, outs in ((net, got), (twin, wanted)):
            each.zero_grad()
            loss_of(outs).backward()
        for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
            assert_close(p.grad, q.grad, name)


@pytest.mark.parametrize(
    ("learning", "static"), [(True, False), (False, True)], ids=["training, a sequence", "inference, a static input"]
)
def test_unrolled_it_compiles_three_times_whatever_the_steps_and_the_batch(learning, static):
    """At first, with other steps, and with another batch."""
    net, twin = twins(NETWORKS["feedforward"])
    compiler = Counting()
    compiled = torch.compile(lambda x, steps: snn.unroll(net, x, steps=steps), fullgraph=True, backend=compiler)
    for steps, batch in SIZES:
        snn.utils.reset(net)
        snn.utils.reset(twin)
        x, given = quarters(*(() if static else (steps,)), batch, 6, seed=steps), steps if static else None
        with torch.set_grad_enabled(learning):
            assert_agree(net, twin, compiled(x, given), snn.unroll(twin, x, steps=given))
    assert compiler.graphs == 3


def stepped(net: Callable[[Tensor], Any], xs: Tensor) -> list[Any]:
    return [net(x) for x in xs]


@pytest.mark.parametrize(
    ("network", "between"),
    [("feedforward", snn.utils.reset), ("recurrent", snn.utils.detach)],
    ids=["feedforward, reset", "recurrent, detached"],
)
def test_step_by_step_it_compiles_three_times_in_training(network, between):
    """Without a state, with one that has a graph, and with one that has none."""
    net, twin = twins(NETWORKS[network])
    compiler = Counting()
    compiled = torch.compile(net, fullgraph=True, backend=compiler)
    for number in range(3):
        xs = quarters(8, 4, 6, seed=number)
        assert_agree(net, twin, stepped(compiled, xs), stepped(twin, xs))
        between(net)
        between(twin)
    assert compiler.graphs == 3


def test_step_by_step_it_compiles_four_times_for_any_number_of_batch_sizes():
    net, twin = twins(NETWORKS["feedforward"])
    compiler = Counting()
    compiled = torch.compile(net, fullgraph=True, backend=compiler)
    with torch.no_grad():
        for steps, batch in SIZES:
            snn.utils.reset(net)
            snn.utils.reset(twin)
            xs = quarters(steps, batch, 6, seed=steps)
            assert_agree(net, twin, stepped(compiled, xs), stepped(twin, xs))
    assert compiler.graphs == 4


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
def test_step_by_step_inductor_gives_what_eager_gives():
    """The compiler that torch takes by itself."""
    net, twin = twins(lambda: nn.Sequential(nn.Linear(6, 4), leaky(output=True)))
    xs = quarters(3, 2, 6)
    assert_agree(net, twin, stepped(torch.compile(net, fullgraph=True), xs), stepped(twin, xs))


def test_states_by_hand_compile_twice():
    neuron, twin = (snn.Synaptic(alpha=0.5, beta=0.5, learn_beta=True) for _ in range(2))
    compiler = Counting()
    results = []
    for run, each in ((torch.compile(neuron, fullgraph=True, backend=compiler), neuron), (twin, twin)):
        outs, states = [], list(each.reset_mem())
        for x in quarters(9, 4, 6):
            spk, *states = run(x, *states)
            outs += [spk, *states]
        results.append(outs)
    assert_agree(neuron, twin, *results)
    assert compiler.graphs == 2
