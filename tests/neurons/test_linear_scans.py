"""The neurons that take whole sequences: StateLeaky, LinearLeaky, LeakyParallel and AssociativeLeaky."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import spikeloom as snn

from ..oracle import assert_close, assert_same
from .sequences import LAYERS, B, N, T, drawn, every_layer, outcome

# -- the equations -----------------------------------------------------------------------------------------------------


def test_exact_is_leaky_without_reset_bit_for_bit():
    beta, x = torch.linspace(-0.1, 1.1, N), drawn(T, B, N)
    options = {"threshold": 0.9, "learn_beta": True, "learn_threshold": True, "graded_spikes_factor": 1.5}
    ours = snn.StateLeaky(beta.clone(), N, exact=True, **options)
    leaky = snn.Leaky(beta.clone(), reset_mechanism="none", **options)
    got, wanted = outcome(ours, lambda net, x: net(x), x), outcome(leaky, snn.unroll, x)
    assert torch.equal(got.states["output 0"], wanted.states["output 0"])
    assert torch.equal(got.states["output 1"], wanted.states["output 1"])
    for name in ("x", "beta", "threshold"):
        assert_close(got.gradients[name], wanted.gradients[name], name)
    assert ours.beta is dict(ours.named_parameters())["beta"]


def test_what_is_kept_of_snntorch_decays_by_exp_and_grades_twice():
    lif = snn.StateLeaky(0.5, 1, threshold=0.5, graded_spikes_factor=3.0)
    spk, mem = lif(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1))
    assert mem.flatten().tolist() == pytest.approx([1.0, 0.60653, 0.36788], abs=1e-5)
    assert spk.flatten().tolist() == [9.0, 9.0, 0.0]
    exact = snn.StateLeaky(0.5, 1, threshold=0.5, graded_spikes_factor=3.0, exact=True)
    spk, mem = exact(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1))
    assert mem.flatten().tolist() == [1.0, 0.5, 0.25]
    assert spk.flatten().tolist() == [3.0, 0.0, 0.0]


@pytest.mark.parametrize("exact", [False, True])
def test_one_of_beta_and_tau_learns_and_the_other_has_no_gradient(exact):
    lif = snn.StateLeaky(0.5, N, learn_beta=True, exact=exact)
    wanted = {"beta": exact, "tau": not exact}
    assert {name: p.requires_grad for name, p in lif.named_parameters()} == wanted
    sum(out.sum() for out in lif(drawn(T, B, N))).backward()
    assert {name: p.grad is not None for name, p in lif.named_parameters()} == wanted


def test_beta_of_one_forgets_nothing():
    for exact in (False, True):
        _, mem = snn.StateLeaky(1, 1, exact=exact)(torch.full((100, 1, 1), 0.25))
        assert mem[-1].item() == 25.0


def test_the_membrane_of_leaky_parallel_stays_above_zero_and_is_that_of_the_equation():
    net = snn.LeakyParallel(1, 2, beta=torch.tensor([0.5, 1.0]), threshold=0.9)
    with torch.no_grad():
        net.rnn.weight_ih_l0.fill_(1.0)
        net.rnn.bias_ih_l0.fill_(0.25)
        net.rnn.bias_hh_l0.fill_(0.25)
    spk = net(torch.tensor([0.25, -3.0, 0.25, 0.5]).unsqueeze(-1))
    # membranes of the first: 0.75, 0, 0.75, 1.375; of the second: 0.75, 0, 0.75, 1.75
    assert spk.tolist() == [[0, 0], [0, 0], [0, 0], [1, 1]]


@pytest.mark.parametrize("full", [False, True])
def test_a_beta_per_neuron_fills_its_row(full):
    net = snn.LeakyParallel(2, 3, beta=torch.tensor([0.1, 0.2, 1.3]), weight_hh_enable=full)
    rows = torch.tensor([0.1, 0.2, 1.0]).unsqueeze(-1).expand(3, 3)
    assert torch.equal(net.rnn.weight_hh_l0, rows if full else rows * torch.eye(3))
    assert torch.equal(net.beta, torch.tensor([0.1, 0.2, 1.0]))


def test_of_a_learned_diagonal_nothing_beside_it_gets_a_gradient():
    net = snn.LeakyParallel(N, 5, beta=0.8, learn_beta=True, threshold=0.1)
    net(drawn(T, B, N)).sum().backward()
    grad = net.rnn.weight_hh_l0.grad
    assert grad.diagonal().any()
    assert torch.equal(grad, grad.diagonal().diag())


@pytest.mark.parametrize("gate", [-8.0, 0.0, 8.0], ids=["forgets at once", "halves", "hardly forgets"])
def test_ten_thousand_steps_of_the_memory_neither_overflow_nor_vanish(gate):
    memory = snn.AssociativeLeaky(N, 3, 2, 6)
    with torch.no_grad():
        memory.to_alpha.bias.fill_(gate)
    x = torch.randn(10_000, 1, N).requires_grad_()
    out = memory(x)
    out[-1].sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    assert x.grad[-1].any()
    if gate <= 0:  # what is older than 300 steps is below the last digit
        assert torch.equal(memory(x[-300:])[-1], out[-1])


# -- ways of running ---------------------------------------------------------------------------------------------------


@every_layer
def test_the_kernel_gives_what_the_loop_gives(name):
    torch.manual_seed(1)
    net, x = LAYERS[name](), drawn(T, B, N)
    with snn.backend("loop"):
        wanted = outcome(net, lambda net, x: net(x), x)
    got = outcome(net, lambda net, x: net(x), x)
    assert_same(got, wanted, exact_states=True)
    assert wanted.states["output 0"].any()


@every_layer
def test_unrolled_it_gives_what_a_plain_call_gives(name):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(N, N), LAYERS[name]())
    if "membranes" not in name and name.startswith(("State", "Linear")):
        net.append(First())
    got, wanted = (outcome(net, run, drawn(T, B, N)) for run in (snn.unroll, lambda net, x: net(x)))
    assert_same(got, wanted, exact_states=True)


class First(nn.Module):
    """The spikes of a pair, [*, N]."""

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return pair[0]


@every_layer
def test_a_static_input_gives_what_its_repetition_gives(name):
    torch.manual_seed(1)
    net, x = LAYERS[name](), drawn(B, N)
    got = outcome(net, lambda net, x: snn.unroll(net, x, steps=T), x)
    wanted = outcome(net, lambda net, x: snn.unroll(net, x.expand(T, B, N)), x)
    assert_same(got, wanted)


@pytest.mark.parametrize("name", ["StateLeaky, membranes", "LeakyParallel", "AssociativeLeaky, spikes"])
def test_a_static_branch_that_joins_later_is_repeated(name):
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lif, self.fc = LAYERS[name](), nn.Linear(N, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(x) + self.fc(x)

    net, x = Joined(), drawn(B, N)
    assert_close(snn.unroll(net, x, steps=T), net(x.expand(T, B, N)), "joined")


def test_explain_names_the_backend_of_each():
    net = nn.Sequential(
        snn.StateLeaky(0.9, N, output=False, kernel_truncation_steps=2),
        snn.LeakyParallel(N, N, weight_hh_enable=True),
        snn.LinearLeaky(0.9, N, N, output=False),
        snn.AssociativeLeaky(N, 2, 2, 4),
    )
    rows = {row.kind: row for row in snn.explain(net, drawn(B, N), steps=T).rows}
    assert [row.backend for row in rows.values()] == ["loop", "numba", "numba", "numba"]
    assert rows["StateLeaky"].static
    assert not rows["AssociativeLeaky"].static


def test_a_forced_backend_that_cannot_run_it_says_why():
    net = snn.LeakyParallel(N, 5, weight_hh_enable=True).to("meta")
    with snn.backend("numba"), pytest.raises(RuntimeError, match=r"LeakyParallel: .* on the CPU, got one on meta"):
        net(drawn(T, B, N).to("meta"))


@every_layer
def test_nothing_is_kept_for_the_next_call(name):
    net, x = LAYERS[name](), drawn(T, B, N)
    first = tree_map(torch.clone, net(x))
    for again in (net(x), snn.unroll(net, x)):
        assert all(map(torch.equal, tree_leaves(first), tree_leaves(again)))


@every_layer
def test_no_steps_give_empty_results(name):
    for run in (snn.unroll, lambda net, x: net(x)):
        full, empty = (tree_leaves(run(LAYERS[name](), drawn(steps, B, N))) for steps in (2, 0))
        assert [out.shape for out in empty] == [(0, *out.shape[1:]) for out in full]


@pytest.mark.compile
@pytest.mark.parametrize("name", ["StateLeaky, truncated", "LeakyParallel", "LeakyParallel, full", "AssociativeLeaky"])
def test_torch_compiles_it_in_one_graph(name):
    net, x = LAYERS[name](), drawn(T, B, N)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert_same(outcome(net, lambda _, x: compiled(x), x), outcome(net, lambda net, x: net(x), x), exact_states=True)


# -- gradients ---------------------------------------------------------------------------------------------------------


def smooth(u: Tensor) -> Tensor:
    """A spike whose derivative is its own."""
    return torch.sigmoid(2 * u)


SMOOTH: Mapping[str, Callable[[], Any]] = {
    "StateLeaky": lambda: snn.StateLeaky(
        torch.linspace(0.1, 0.9, 2), 2, spike_grad=smooth, learn_beta=True, learn_threshold=True
    ),
    "StateLeaky, exact": lambda: snn.StateLeaky(0.7, 2, spike_grad=smooth, learn_beta=True, exact=True),
    "StateLeaky, truncated": lambda: snn.StateLeaky(
        torch.linspace(0.1, 0.9, 2), 2, spike_grad=smooth, learn_beta=True, kernel_truncation_steps=3
    ),
    "LinearLeaky": lambda: snn.LinearLeaky(0.7, 2, 3, spike_grad=smooth),
    "LeakyParallel": lambda: snn.LeakyParallel(2, 3, 0.7, spike_grad=smooth, learn_beta=True, learn_threshold=True),
    "LeakyParallel, full": lambda: snn.LeakyParallel(
        2, 3, spike_grad=smooth, learn_beta=True, weight_hh_enable=True, learn_graded_spikes_factor=True
    ),
    "AssociativeLeaky": lambda: with_spike(snn.AssociativeLeaky(2, 2, 3, 6)),
}


def with_spike(layer: Any) -> Any:
    layer.spike_grad = smooth
    return layer


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_those_of_finite_differences_through_a_smooth_spike(name):
    torch.manual_seed(3)
    net = SMOOTH[name]().double()
    learned = {key: p.detach().clone().requires_grad_() for key, p in net.named_parameters() if p.requires_grad}
    x = torch.randn(7, 2, 2, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *values: Tensor) -> Any:
        return torch.func.functional_call(net, dict(zip(learned, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *learned.values()))


def test_a_spike_function_of_the_users_sees_all_membranes_at_once_after_a_kernel():
    calls: list[tuple[int, ...]] = []

    def spike(u: Tensor) -> Tensor:
        calls.append(tuple(u.shape))
        return (u > 0).float()

    for net, size in ((snn.StateLeaky(0.9, N, spike_grad=spike), N), (snn.LeakyParallel(N, 5, spike_grad=spike), 5)):
        calls.clear()
        with snn.backend("numba"):
            net(drawn(T, B, N))
        assert calls == [(T, B, size)]


def test_the_backward_of_membranes_keeps_one_sequence():
    lif, kept = snn.StateLeaky(0.9, N, output=False), dict[int, int]()

    def keep(t: Tensor) -> Tensor:
        kept[t.data_ptr()] = t.numel()
        return t

    x = drawn(500, B, N).requires_grad_()
    with snn.backend("numba"), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        lif(x)
    assert [size for size in kept.values() if size >= x.numel()] == [x.numel()]
