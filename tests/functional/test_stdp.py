"""STDP: the rule against a plain loop over spikes, its learner in steps and unrolled, and what emerges."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import spikeloom as snn
from spikeloom.functional import stdp_learner as stdp

from ..oracle import assert_close

TAU_PRE, TAU_POST = 3.0, 5.0
ones = torch.ones_like

CONVOLUTIONS = {
    "plain": {},
    "stride and padding": {"stride": 2, "padding": 1},
    "same": {"padding": "same"},
    "same, even": {"kernel_size": 2, "padding": "same"},
    "dilated": {"dilation": 2},
    "groups": {"groups": 2},
    "circular": {"padding": 1, "padding_mode": "circular"},
}


def spikes(*shape: int, seed: int = 0, rate: float = 0.4) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


# -- one step ----------------------------------------------------------------------------------------------------------


def test_every_pair_of_spikes_counts_by_its_distance_in_time():
    """Against the double sum over pairs of spikes that Morrison et al. (2008) write, with one weight."""
    pre, post = spikes(30, 1, 1, seed=1), spikes(30, 1, 1, seed=2)
    fc, traces, dW = nn.Linear(1, 1), (None, None), torch.zeros(1, 1)
    for x, y in zip(pre, post, strict=True):
        *traces, change = stdp.stdp_linear_single_step(fc, x, y, *traces, TAU_PRE, TAU_POST, f_pre=ones, f_post=ones)
        dW += change
    wanted = 0.0
    for i in pre.flatten().nonzero().flatten().tolist():
        for j in post.flatten().nonzero().flatten().tolist():
            wanted += (1 - 1 / TAU_PRE) ** (j - i) if j >= i else 0.0
            wanted -= (1 - 1 / TAU_POST) ** (i - j) if i >= j else 0.0
    assert dW.item() == pytest.approx(wanted, rel=1e-4)


def test_the_change_depends_on_the_weight_by_default():
    fc = nn.Linear(4, 3)
    pre, post, traces = spikes(2, 4), spikes(2, 3, seed=1), (torch.rand(2, 4), torch.rand(2, 3))
    args = (fc, pre, post, *traces, TAU_PRE, TAU_POST)
    *_, plain = stdp.stdp_linear_single_step(*args, f_pre=lambda w: 2.0, f_post=lambda w: 0.0)
    *_, weighted = stdp.stdp_linear_single_step(*args, f_post=torch.zeros_like)
    assert_close(weighted, fc.weight.detach() * plain / 2, "dW")
    assert not weighted.requires_grad


def neighbourhoods(conv: nn.Module, x: Tensor) -> Tensor:
    """What each weight of one output channel sees at each place: [B, C, *kernel, places]."""
    columns = F.unfold(x, conv.kernel_size, dilation=conv.dilation, stride=conv.stride)
    return columns.unflatten(1, (x.size(1), *conv.kernel_size))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_sums_over_all_places(name, dims):
    """Against unfolding every neighbourhood; a Conv1d is a Conv2d of one column, whose weights are shared."""
    options = {"kernel_size": 3} | CONVOLUTIONS[name]
    conv = (nn.Conv1d if dims == 1 else nn.Conv2d)(2, 4, **options)
    step = stdp.stdp_conv1d_single_step if dims == 1 else stdp.stdp_conv2d_single_step
    x = spikes(3, 2, 7) if dims == 1 else spikes(3, 2, 7, 6)
    y = spikes(*conv(x).shape, seed=1)
    before = step(conv, x.flip(0), y.flip(0), None, None, TAU_PRE, TAU_POST)[:2]
    trace_pre, trace_post, dW = step(conv, x, y, *before, TAU_PRE, TAU_POST, f_pre=ones, f_post=ones)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    arrived = F.pad(x, conv._reversed_padding_repeated_twice, mode)
    assert_close(trace_pre, before[0] * (1 - 1 / TAU_PRE) + arrived, "trace of the input")
    assert_close(trace_post, before[1] * (1 - 1 / TAU_POST) + y, "trace of the output")
    zero_pad = type(conv)(2, 4, **{**options, "padding": 0, "padding_mode": "zeros"})

    def summed(pre: Tensor, post: Tensor) -> Tensor:
        weight = torch.zeros_like(conv.weight, requires_grad=True)
        zero_pad.weight, zero_pad.bias = nn.Parameter(weight), None
        (grad,) = torch.autograd.grad((zero_pad(pre) * post).sum(), zero_pad.weight)
        return grad

    assert_close(dW, summed(trace_pre, y) - summed(arrived, trace_post), "dW")
    if dims == 2 and conv.groups == 1:
        by_hand = torch.einsum("bcijl,bkl->kcij", neighbourhoods(zero_pad, trace_pre), y.flatten(2))
        assert_close(summed(trace_pre, y), by_hand, "by neighbourhoods")


@pytest.mark.parametrize("lead", [(), (2,), (5, 2)], ids=str)
def test_any_leading_dimensions(lead):
    fc = nn.Linear(4, 3)
    x, y = spikes(*lead, 4), spikes(*lead, 3, seed=1)
    pre, post, dW = stdp.stdp_linear_single_step(
        fc, x, y, None, None, TAU_PRE, TAU_POST, f_pre=ones, f_post=lambda w: 0.0
    )
    assert_close(dW, -torch.einsum("bo,bi->oi", y.reshape(-1, 3), x.reshape(-1, 4)), "dW")
    *_, e = stdp.mstdp_linear_single_step(fc, x, y, None, None, TAU_PRE, TAU_POST)
    assert (pre.shape, post.shape, e.shape) == (x.shape, y.shape, (*lead, 3, 4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_dtype_follows_the_weight(dtype):
    fc = nn.Linear(4, 3, dtype=dtype)
    for spike in (spikes(2, 4).to(dtype), spikes(2, 4).bool()):
        out = stdp.stdp_linear_single_step(fc, spike, spikes(2, 3).to(dtype), None, None, TAU_PRE, TAU_POST)
        assert {t.dtype for t in out} == {dtype}


# -- three factors -----------------------------------------------------------------------------------------------------


def test_an_eligibility_is_one_row_of_the_change_with_traces_that_fade_exponentially():
    fc = nn.Linear(4, 3)
    pre, post, traces = spikes(2, 4), spikes(2, 3, seed=1), (torch.rand(2, 4), torch.rand(2, 3))
    trace_pre, trace_post, e = stdp.mstdp_linear_single_step(fc, pre, post, *traces, TAU_PRE, TAU_POST, ones, ones)
    assert_close(trace_pre, traces[0] * math.exp(-1 / TAU_PRE) + pre, "trace of the input")
    assert_close(trace_post, traces[1] * math.exp(-1 / TAU_POST) + post, "trace of the output")
    for row in range(2):
        wanted = torch.outer(post[row], trace_pre[row]) - torch.outer(trace_post[row], pre[row])
        assert_close(e[row], wanted, "eligibility")


def test_a_reward_teaches_which_input_to_follow():
    """MSTDPET: of four inputs only one earns reward; after some trials the neuron answers to that one alone."""
    torch.manual_seed(0)
    fc, lif = nn.Linear(4, 1, bias=False), snn.Leaky(beta=0.5, init_hidden=True)
    with torch.no_grad():
        fc.weight.fill_(1.2)
    tau_z, traces, z = 4.0, (None, None), torch.zeros(1, 4)
    for trial in torch.randint(0, 4, (400,)).tolist():
        x = F.one_hot(torch.tensor([trial]), 4).float()
        spk = lif(fc(x))
        *traces, e = stdp.mstdpet_linear_single_step(
            fc, x, spk, *traces, 2.0, 2.0, tau_z, f_pre=torch.zeros_like, f_post=ones
        )
        z = z * math.exp(-1 / tau_z) + e[0] / tau_z
        reward = spk.item() * (1.0 if trial == 2 else -1.0)
        with torch.no_grad():
            fc.weight.add_(0.1 * reward * z).clamp_(0, 1.5)
    lif.reset_mem()
    assert lif(fc(torch.eye(4))).flatten().tolist() == [0.0, 0.0, 1.0, 0.0]


# -- the learner -------------------------------------------------------------------------------------------------------

PAIRS = {
    "linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1), (3, 2, 5)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3, stride=2), (3, 2, 7, 7)),
}
NEURONS = {
    "returns spikes": lambda: snn.Leaky(beta=0.8, threshold=0.3, init_hidden=True),
    "returns a tuple": lambda: snn.Leaky(beta=0.8, threshold=0.3, init_hidden=True, output=True),
    "has two states": lambda: snn.Synaptic(alpha=0.5, beta=0.8, threshold=0.3, init_hidden=True, output=True),
}


def by_single_steps(synapse, neuron, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The traces at the end and the sum of the changes."""
    kinds = {
        nn.Linear: stdp.stdp_linear_single_step,
        nn.Conv1d: stdp.stdp_conv1d_single_step,
        nn.Conv2d: stdp.stdp_conv2d_single_step,
    }
    pre, post, dW = None, None, 0
    for x_t in x:
        out = neuron(synapse(x_t))
        spk = out[0] if isinstance(out, tuple) else out
        pre, post, change = kinds[type(synapse)](synapse, x_t, spk, pre, post, TAU_PRE, TAU_POST)
        dW = dW + change
    return pre, post, dW


@pytest.mark.parametrize("way", ["one step at a time", "after a loop", "unrolled", "unrolled in chunks"])
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("kind", NEURONS)
def test_the_learner_makes_the_change_of_the_single_steps(kind, pair, way):
    make, shape = PAIRS[pair]
    synapse, neuron, x = make(), NEURONS[kind](), spikes(8, *shape)
    net = nn.Sequential(synapse, neuron)
    pre, post, wanted = by_single_steps(synapse, neuron, x)
    snn.utils.reset(net)
    learner = stdp.STDPLearner(synapse, neuron, TAU_PRE, TAU_POST)
    chunks = {"one step at a time": x.unbind(0), "unrolled in chunks": x.split(3)}.get(way, [x])
    dW = torch.zeros_like(synapse.weight)
    for chunk in chunks:
        if way == "unrolled" or way == "unrolled in chunks":
            snn.unroll(net, chunk)
        else:
            for x_t in chunk if way == "after a loop" else [chunk]:
                net(x_t)
        dW += learner.step(on_grad=False)
    assert_close(dW, wanted, "dW")
    assert_close(learner.trace_pre, pre, "trace of the input")
    assert_close(learner.trace_post, post, "trace of the output")
    assert wanted.any()


@pytest.mark.parametrize("way", ["plain", "unrolled"])
def test_the_neuron_may_take_whole_sequences(way):
    synapse, neuron, x = nn.Linear(6, 4), snn.StateLeaky(0.8, 4, threshold=0.3), spikes(8, 3, 6)
    out, _ = neuron(synapse(x))
    pre, post, wanted = None, None, 0
    for x_t, spk in zip(x, out, strict=True):
        pre, post, dW = stdp.stdp_linear_single_step(synapse, x_t, spk, pre, post, TAU_PRE, TAU_POST)
        wanted = wanted + dW
    learner = stdp.STDPLearner(synapse, neuron, TAU_PRE, TAU_POST)
    neuron(synapse(x)) if way == "plain" else snn.unroll(nn.Sequential(synapse, neuron), x)
    assert_close(learner.step(on_grad=False), wanted, "dW")
    assert_close(learner.trace_post, post, "trace of the output")


def test_a_static_input_counts_at_every_step():
    synapse, neuron, x = nn.Linear(6, 4), NEURONS["returns spikes"](), spikes(3, 6)
    *_, wanted = by_single_steps(synapse, neuron, x.expand(8, 3, 6))
    neuron.reset_mem()
    learner = stdp.STDPLearner(synapse, neuron, TAU_PRE, TAU_POST)
    snn.unroll(nn.Sequential(synapse, neuron), x, steps=8)
    assert_close(learner.step(on_grad=False), wanted, "dW")


def learning() -> tuple[nn.Linear, snn.Leaky, stdp.STDPLearner]:
    synapse, neuron = nn.Linear(6, 4), NEURONS["returns spikes"]()
    return synapse, neuron, stdp.STDPLearner(synapse, neuron, TAU_PRE, TAU_POST)


def test_on_grad_an_optimiser_adds_the_change():
    synapse, neuron, learner = learning()
    before = synapse.weight.detach().clone()
    optimizer = torch.optim.SGD([synapse.weight], lr=1.0)
    x = spikes(8, 3, 6)
    snn.unroll(nn.Sequential(synapse, neuron), x)
    assert learner.step(scale=0.5) is None
    optimizer.step()
    neuron.reset_mem()
    after, synapse.weight.data = synapse.weight.detach().clone(), before
    *_, dW = by_single_steps(synapse, neuron, x)
    assert_close(after, before + 0.5 * dW, "weight")


def test_on_grad_it_adds_to_a_gradient_that_is_there():
    synapse, neuron, learner = learning()
    synapse.weight.grad = torch.ones_like(synapse.weight)
    snn.unroll(nn.Sequential(synapse, neuron), spikes(8, 3, 6))
    learner.step()
    assert (synapse.weight.grad != 1).any()
    grad = synapse.weight.grad.clone()
    learner.step()
    assert_close(synapse.weight.grad, grad, "without spikes it stays", exact=True)


def test_without_spikes_the_change_is_zero():
    synapse, _, learner = learning()
    assert_close(learner.step(on_grad=False), torch.zeros_like(synapse.weight), "dW", exact=True)
    assert learner.step() is None
    assert synapse.weight.grad is None


def test_reset_forgets_traces_and_spikes():
    synapse, neuron, learner = learning()
    net, x = nn.Sequential(synapse, neuron), spikes(8, 3, 6)
    snn.unroll(net, x)
    learner.step(on_grad=False)
    net(x[0])
    learner.reset()
    assert learner.trace_pre is learner.trace_post is None
    snn.utils.reset(net)
    snn.unroll(net, x)
    again = learner.step(on_grad=False)
    neuron.reset_mem()
    assert_close(again, by_single_steps(synapse, neuron, x)[2], "dW")


def test_disable_stops_listening():
    synapse, neuron, learner = learning()
    learner.disable()
    neuron(synapse(spikes(3, 6)))
    learner.enable()
    assert not learner.step(on_grad=False).any()


def test_it_is_a_module_that_holds_its_synapse():
    synapse, _, learner = learning()
    assert [name for name, _ in learner.named_parameters()] == ["synapse.weight", "synapse.bias"]
    assert learner.synapse is synapse


def test_refusals_say_what_to_do():
    synapse, neuron, learner = learning()
    with pytest.raises(TypeError, match=r"pass an nn\.Linear, nn\.Conv1d or nn\.Conv2d"):
        stdp.STDPLearner(nn.Conv3d(1, 1, 1), neuron, TAU_PRE, TAU_POST)
    with pytest.raises(ValueError, match="tau_post=0"):
        stdp.STDPLearner(synapse, neuron, TAU_PRE, 0)
    with pytest.raises(ValueError, match="tau_trace=-1"):
        stdp.mstdpet_linear_single_step(synapse, spikes(6), spikes(4), None, None, 2.0, 2.0, -1)
    synapse(spikes(3, 6))
    with pytest.raises(RuntimeError, match="the synapse ran 1 steps and the neuron 0"):
        learner.step()
    learner.reset()
    for rows in (3, 2):
        neuron.reset_mem()
        neuron(synapse(spikes(rows, 6)))
    with pytest.raises(RuntimeError, match=r"call step\(\) and reset\(\) before the batch changes"):
        learner.step()


# -- what emerges ------------------------------------------------------------------------------------------------------


def test_a_pattern_emerges():
    """A pattern that recurs in noise of the same mean rate leaves itself in the weights; the rest fades."""
    torch.manual_seed(0)
    pattern = torch.zeros(20)
    pattern[[1, 4, 7, 12, 18]] = 1.0
    net = nn.Sequential(nn.Linear(20, 1, bias=False), snn.Leaky(beta=0.5, init_hidden=True))
    nn.init.constant_(net[0].weight, 0.3)
    learner = stdp.STDPLearner(*net, tau_pre=1.25, tau_post=4.0, f_pre=lambda w: 0.015, f_post=lambda w: 0.04)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    for _ in range(60):
        x = (torch.rand(20, 1, 20) < 0.1).float()
        x[::4] = pattern  # every fourth step; elsewhere noise
        snn.unroll(net, x)
        optimizer.zero_grad()
        learner.step()
        optimizer.step()
        net[0].weight.data.clamp_(0, 1)
        snn.utils.detach(net)
    weight = net[0].weight.detach()[0]
    assert weight[pattern > 0].min() > 0.9
    assert weight[pattern == 0].max() < 0.1
