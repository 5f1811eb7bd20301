"""What unroll gives is what the loop over steps gives: bit for bit where sums are exact, else within rounding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._pytree import tree_leaves

import spikeloom as snn

from .comparison import assert_equal
from .networks import NETWORKS, leaky, quarters, stepped, twins

DTYPES = {"float32": torch.float32, "float64": torch.float64}
SIZES = [(7, 3), (1, 3), (7, 1), (1, 1), (3, 3)]  # T, B


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_gives_what_its_steps_give(network, dtype, static):
    for steps, batch in SIZES:
        assert_like_its_steps(network, steps, batch, DTYPES[dtype], static)


def assert_like_its_steps(network, steps, batch, dtype, static):
    net, twin = twins(NETWORKS[network], dtype)
    x = quarters(*(batch, 6) if static else (steps, batch, 6), dtype=dtype).requires_grad_()
    asked = steps if static else None
    ours, theirs = snn.unroll(net, x, steps=asked), stepped(twin, x, asked)
    if network == "a neuron without init_hidden":  # the loop keeps its state itself
        twin.mem = theirs[1][-1].detach()
    assert_equal(net, ours, twin, theirs, x)


@pytest.mark.parametrize("network", NETWORKS)
def test_ordinary_weights_agree_within_rounding(network):
    net, twin = NETWORKS[network]().double(), NETWORKS[network]().double()
    twin.load_state_dict(net.state_dict())
    x = torch.rand(9, 4, 6, dtype=torch.float64, requires_grad=True)
    ours, theirs = snn.unroll(net, x, check=False), stepped(twin, x)
    if network == "a neuron without init_hidden":
        twin.mem = theirs[1][-1].detach()
    assert_equal(net, ours, twin, theirs, x, exact=False)


values = st.fixed_dictionaries(
    {
        "beta": st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5]),
        "threshold": st.sampled_from([0.5, 1.0]),
        "graded_spikes_factor": st.sampled_from([1.0, 0.5]),
    }
)
kinds = st.sampled_from(  # few, since each is a kernel of its own, and what varies here is what stands around it
    [
        {},
        {"reset_mechanism": "zero", "reset_delay": False, "learn_beta": True, "learn_threshold": True},
        {"reset_mechanism": "none", "learn_beta": True},
    ]
)
options = st.tuples(values, kinds).map(lambda chosen: chosen[0] | chosen[1])
blocks = st.lists(st.tuples(st.sampled_from(["linear", "conv", "residual", "neuron"]), options), min_size=1, max_size=4)


class Around(nn.Module):
    def __init__(self, *inside: nn.Module):
        super().__init__()
        self.inside = nn.Sequential(*inside)

    def forward(self, x):
        return self.inside(x) + x


def network_of(plan) -> nn.Module:
    def block(kind, given):
        if kind == "linear":
            return nn.Sequential(nn.Linear(4, 4), leaky(**given))
        if kind == "conv":
            return nn.Sequential(
                nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3, padding=1), leaky(**given), nn.Flatten(), nn.Linear(8, 4)
            )
        return Around(nn.Linear(4, 4), leaky(**given)) if kind == "residual" else leaky(**given)

    return nn.Sequential(*(block(kind, given) for kind, given in plan))


@settings(max_examples=30)
@given(
    plan=blocks,
    steps=st.integers(0, 5),
    batch=st.integers(1, 3),
    static=st.booleans(),
    training=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_architecture_gives_what_its_steps_give(plan, steps, batch, static, training, seed):
    """Few steps: with beta in quarters, the membrane of a long run needs more bits than there are. One dtype: networks
    of both are above."""
    dtype = torch.float64
    net, twin = twins(lambda: network_of(plan), dtype)
    net.train(training), twin.train(training)
    x = quarters(*(batch, 4) if static else (steps, batch, 4), dtype=dtype, seed=seed).requires_grad_()
    asked = steps if static else None
    ours = snn.unroll(net, x, steps=asked)
    assert len(ours) == steps
    if steps:
        assert_equal(net, ours, twin, stepped(twin, x, asked), x)


@pytest.mark.parametrize("network", NETWORKS)
def test_chunks_continue_where_the_last_one_ended(network):
    net, twin = twins(NETWORKS[network])
    x = quarters(9, 3, 6)
    ours = [snn.unroll(net, chunk) for chunk in x.split((4, 0, 1, 4))]
    whole = snn.unroll(twin, x)
    for parts, all_of_it in zip(zip(*map(tree_leaves, ours), strict=True), tree_leaves(whole), strict=True):
        if all_of_it is not None:
            assert torch.equal(torch.cat(parts), all_of_it)


def test_steps_and_sequences_take_turns():
    net, twin = twins(NETWORKS["a sequence of layers"])
    x = quarters(6, 3, 6)
    net(x[0]), snn.unroll(net, x[1:5])
    got = net(x[5])
    wanted = [twin(x_t) for x_t in x][-1]
    assert torch.equal(got[0], wanted[0])
    assert torch.equal(got[1], wanted[1])


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("network", NETWORKS)
def test_no_steps_leave_everything_as_it_was(network, static):
    net = NETWORKS[network]()
    snn.unroll(net, quarters(2, 3, 6))
    before = {n: m.mem for n, m in net.named_modules() if isinstance(m, snn.Leaky)}
    outs = snn.unroll(net, quarters(3, 6), steps=0) if static else snn.unroll(net, quarters(0, 3, 6))
    assert all(out.shape[:2] == (0, 3) for out in tree_leaves(outs) if out is not None)
    assert all(m.mem is before[n] for n, m in net.named_modules() if isinstance(m, snn.Leaky))


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
def test_an_empty_batch_gives_empty_results(static):
    net = NETWORKS["residual"]()
    spk, mem = snn.unroll(net, torch.rand(0, 6), steps=5) if static else snn.unroll(net, torch.rand(5, 0, 6))
    assert spk.shape == mem.shape == (5, 0, 6)


class Twice(nn.Module):
    """Changes what its neuron returns in place, and returns it twice."""

    def __init__(self):
        super().__init__()
        self.lif = leaky(output=True)

    def forward(self, x):
        spk, mem = self.lif(x)
        spk.mul_(2)
        return spk, mem, spk


@pytest.mark.parametrize("learning", [True, False])
def test_results_of_the_last_neuron_are_those_of_the_loop_and_no_views(learning):
    net, x = Twice(), torch.rand(5, 3, 6, requires_grad=True)
    with torch.set_grad_enabled(learning):
        outs = snn.unroll(net, x, check=False)
        snn.utils.reset(net)
        wanted = [torch.stack(each) for each in zip(*map(net, x), strict=True)]
    for out, want in zip(outs, wanted, strict=True):
        assert torch.equal(out, want)
    if learning:
        grads = [torch.autograd.grad((spk * mem).sum(), x)[0] for spk, mem, _ in (outs, wanted)]
        assert torch.allclose(*grads)
    outs[0].detach_()
    assert outs[1].requires_grad == outs[2].requires_grad == learning


def swapped(net, spk):
    spk.data = spk.data * 2


AFTER_THE_LAST_NEURON = {
    "a hook": lambda net, spk: spk.register_hook(lambda grad: grad * 3),
    "retain_grad": lambda net, spk: spk.retain_grad(),
    "unsqueeze_": lambda net, spk: spk.unsqueeze_(2),
    "transpose_": lambda net, spk: spk.unsqueeze_(2).transpose_(1, 2),
    "data": swapped,
    "nothing": lambda net, spk: None,
}


@pytest.mark.parametrize("change", AFTER_THE_LAST_NEURON)
def test_what_the_forward_does_to_the_output_of_the_last_neuron_counts(change):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = leaky()

        def forward(self, x):
            spk = self.lif(x)
            AFTER_THE_LAST_NEURON[change](self, spk)
            self.spk = spk
            return spk

    net, twin = Net(), Net()
    x = quarters(5, 3, 6).requires_grad_()
    ours, theirs = snn.unroll(net, x, check=False), stepped(twin, x)
    assert ours.shape == theirs.shape
    assert torch.equal(ours, theirs)
    got, of_spk = torch.autograd.grad(ours.square().sum(), (x, net.spk), retain_graph=True)
    assert torch.equal(got, torch.autograd.grad(theirs.square().sum(), x)[0])
    assert of_spk.shape == net.spk.shape
    ours.sum().backward()
    assert not net.spk.retains_grad or net.spk.grad is not None
    assert net.spk.retains_grad is (change == "retain_grad")


def test_an_output_that_the_forward_makes_a_leaf_is_one_of_the_graph():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = leaky()

        def forward(self, x):
            self.spk = self.lif(x)
            return self.spk.requires_grad_()

    net = Net()
    out = snn.unroll(net, quarters(5, 3, 6), check=False)
    out.sum().backward()
    assert torch.equal(net.spk.grad, torch.ones(15, 6))


class Doubled(snn.Leaky):
    """A forward of the user's own, which runs step by step."""

    def forward(self, input_, mem=None):
        return super().forward(2 * input_, mem)


ALONE = {
    "Leaky": lambda: snn.Leaky(beta=0.5),
    "a hidden state": lambda: snn.Synaptic(alpha=0.5, beta=0.5, init_hidden=True),
    "recurrent": lambda: snn.RLeaky(beta=0.5, all_to_all=False),
    "an LSTM": lambda: snn.SLSTM(6, 6, threshold=0.1),
    "an own forward": lambda: Doubled(beta=0.5),
    "a whole sequence": lambda: snn.LeakyParallel(6, 6),
}


@pytest.mark.parametrize("neuron", ALONE)
def test_a_neuron_alone_equals_one_that_a_hook_observes(neuron):
    net, shapes = ALONE[neuron](), []

    def run(x):
        snn.reset(net)
        outs = snn.unroll(net, x)
        outs = outs if isinstance(outs, tuple) else (outs,)
        (grad,) = torch.autograd.grad(sum(out.sum() for out in outs), x)
        return [out.detach_() for out in outs], grad

    x = quarters(7, 3, 6).requires_grad_()
    alone = run(x)
    net.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    observed = run(x)
    assert shapes == [(21, 6)]  # hooks see time folded, as in every network
    torch.testing.assert_close(alone, observed, rtol=0, atol=0)
