"""Delays: what is read is exact, the gradient is that of the window, the past is state, and the wrong is refused."""

from copy import deepcopy

import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom.layers._delayed_products import Connected

from ..oracle import assert_close
from .running import by_steps, drawn, inputs, unrolled

T, B, N, OUT, LONGEST = 9, 3, 5, 2, 4


def lag(delay: float) -> int:
    return round(min(max(delay, 0.0), float(LONGEST)))


def spikes(*shape: int) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(6)) < 0.4).float()


# -- forward ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [[0.0, 1.0, 2.0, 3.0, 4.0], [0.4, 0.6, 1.5, 2.5, 3.9]], ids=["whole", "real"])
@pytest.mark.parametrize("way", [by_steps, unrolled])
def test_each_axon_is_late_by_its_rounded_delay(delay, way):
    x = spikes(T, B, N)
    out = way(snn.SynapticDelay(N, LONGEST, torch.tensor(delay), learn_delay=True), x)
    for n, d in enumerate(delay):
        for t in range(T):
            assert torch.equal(out[t, :, n], x[t - lag(d), :, n] if t >= lag(d) else torch.zeros(B))


@pytest.mark.parametrize("way", [by_steps, unrolled])
def test_each_synapse_is_late_by_its_rounded_delay(way):
    fc = snn.DelayedLinear(N, OUT, LONGEST, drawn(OUT, N))
    x = spikes(T, B, N)
    out = way(fc, x)
    for t in range(T):
        wanted = fc.bias.expand(B, OUT).clone()
        for o in range(OUT):
            for i in range(N):
                late = t - lag(fc.delay[o, i].item())
                wanted[:, o] += fc.weight[o, i] * x[late, :, i] if late >= 0 else 0.0
        assert_close(out[t], wanted, f"step {t}")


def test_without_delays_it_is_a_linear_layer():
    fc, linear = snn.DelayedLinear(N, OUT, LONGEST, delay=0), nn.Linear(N, OUT)
    linear.load_state_dict({"weight": fc.weight, "bias": fc.bias})
    x = torch.rand(T, B, N)
    assert_close(unrolled(fc, x), linear(x), "out")


def test_infinite_and_missing_inputs_arrive_where_they_are_due_and_nowhere_else():
    x = torch.zeros(T, 1, 2)
    x[1, 0, 0], x[2, 0, 0] = float("inf"), float("nan")
    out = unrolled(snn.SynapticDelay(2, LONGEST, 3), x)
    assert torch.equal(out[4], x[1])
    assert out[5, 0, 0].isnan()
    assert out[[0, 1, 2, 3, 6, 7, 8]].abs().sum() == 0


@pytest.mark.parametrize(
    "make", [lambda d: snn.SynapticDelay(1, LONGEST, d), lambda d: snn.DelayedLinear(1, 1, LONGEST, d)]
)
def test_delays_are_drawn_evenly_from_the_whole_range_if_none_are_given(make):
    layers = [make(None) for _ in range(400)]
    found = torch.stack([layer.delay.flatten() for layer in layers])
    assert 0 <= found.min() < 0.1
    assert LONGEST - 0.1 < found.max() <= LONGEST
    assert abs(found.mean() - LONGEST / 2) < 0.3


# -- gradient ---------------------------------------------------------------------------------------------------------


def through_window(delay: torch.Tensor, sigma: float) -> torch.Tensor:
    """The share of each lag, [*D, LONGEST + 1], lag 0 first; differentiable in the delay."""
    lags = torch.arange(LONGEST + 1, dtype=delay.dtype)
    weights = torch.exp(-((lags - delay.unsqueeze(-1)) ** 2) / (2 * sigma**2))
    return weights / weights.sum(-1, keepdim=True)


def at_lags(x: torch.Tensor) -> torch.Tensor:
    """[T, ..., LONGEST + 1]: x delayed by each lag."""
    late = [torch.cat((x.new_zeros(k, *x.shape[1:]), x))[: len(x)] for k in range(LONGEST + 1)]
    return torch.stack(late, -1)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("way", [by_steps, unrolled])
def test_the_gradient_of_an_axons_delay_is_that_of_the_window(sigma, way):
    delay, x = drawn(N).double(), inputs("SynapticDelay").detach()
    late = snn.SynapticDelay(N, LONGEST, delay, learn_delay=True, sigma=sigma)
    out = way(late, x)
    cotangent = torch.randn_like(out)
    (got,) = torch.autograd.grad((out * cotangent).sum(), late.delay)
    smooth = (at_lags(x) * through_window(delay.requires_grad_(), sigma)).sum(-1)
    assert_close(got, torch.autograd.grad((smooth * cotangent).sum(), delay)[0], "delay")


@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_the_gradient_of_a_synapses_delay_is_that_of_the_window(sigma):
    x = inputs("DelayedLinear").detach()
    fc = snn.DelayedLinear(N, OUT, LONGEST, drawn(OUT, N), learn_delay=True, bias=False, sigma=sigma).double()
    out = unrolled(fc, x)
    cotangent = torch.randn_like(out)
    got = torch.autograd.grad((out * cotangent).sum(), (fc.delay, fc.weight))
    delay, lags = fc.delay.detach().requires_grad_(), at_lags(x)
    smooth = torch.einsum("tbik,oik,oi->tbo", lags, through_window(delay, sigma), fc.weight.detach())
    assert_close(got[0], torch.autograd.grad((smooth * cotangent).sum(), delay)[0], "delay")
    nearest = nn.functional.one_hot(fc.delay.round().long(), LONGEST + 1).double()
    assert_close(got[1], torch.einsum("tbik,oik,tbo->oi", lags, nearest, cotangent), "weight")


def test_between_two_steps_a_narrow_window_is_close_to_a_straight_line():
    late = snn.SynapticDelay(1, LONGEST, 1.5, learn_delay=True, sigma=0.5).double()
    x = torch.randn(T, B, 1, dtype=torch.float64)
    out = unrolled(late, x)
    cotangent = torch.randn_like(out)
    (out * cotangent).sum().backward()
    line = ((at_lags(x)[..., 2] - at_lags(x)[..., 1]) * cotangent).sum()
    assert abs(late.delay.grad - line) < 0.2 * abs(line)


def test_the_product_of_a_single_step_is_the_last_step_of_the_convolution():
    """One step takes products in place of torch's convolutions; output and gradients are those of the last of two."""
    draw = torch.Generator().manual_seed(3)
    series, weight, cotangent = (
        torch.randn(s, generator=draw).double() for s in ((B, N, LONGEST + 2), (OUT, N), (B, OUT))
    )
    leaves, found = [t.requires_grad_() for t in (series, weight, drawn(OUT, N).double())], []
    for first in (1, 0):
        out = Connected.apply(series[..., first:], weight, leaves[2], LONGEST, 1.0)[..., -1]
        found.append([out, *torch.autograd.grad((out * cotangent).sum(), leaves)])
    for single, whole in zip(*found, strict=True):
        assert_close(single, whole, "single step")
        assert whole.any()


@pytest.mark.parametrize("make", [lambda: snn.SynapticDelay(3, 2), lambda: snn.DelayedLinear(3, 2, 2)])
def test_inputs_pass_gradcheck_also_twice(make):
    layer, x = make().double(), torch.rand(3, 2, 3, dtype=torch.float64, requires_grad=True)

    def run(x):
        snn.utils.reset(layer)
        return snn.unroll(layer, x).sin()

    torch.autograd.gradcheck(run, x)
    torch.autograd.gradgradcheck(run, x)


@pytest.mark.parametrize("start", [-1.0, 0.0, LONGEST, LONGEST + 1.0])
@pytest.mark.parametrize("way", [by_steps, unrolled])
@pytest.mark.parametrize("make", [snn.SynapticDelay, lambda n, *a, **k: snn.DelayedLinear(n, 1, *a, bias=False, **k)])
def test_at_and_beyond_its_bounds_a_delay_has_the_gradient_of_the_window_at_the_bound(make, way, start):
    late = make(1, LONGEST, 2.0, learn_delay=True, sigma=1.0).double()
    with torch.no_grad():
        late.delay.fill_(start)
        getattr(late, "weight", torch.ones(1)).fill_(1.0)
    x = torch.randn(T, 1, 1, generator=torch.Generator().manual_seed(1)).double()
    cotangent = torch.randn(T, 1, 1, generator=torch.Generator().manual_seed(2)).double()
    out = way(late, x)
    assert torch.equal(out[-1], x[T - 1 - lag(start)])
    (out * cotangent).sum().backward()
    held = torch.tensor([float(lag(start))]).double().requires_grad_()
    ((at_lags(x) * through_window(held, 1.0)).sum(-1) * cotangent).sum().backward()
    assert_close(late.delay.grad.flatten(), held.grad, "delay")
    assert held.grad != 0


def test_only_a_learned_delay_keeps_its_inputs_for_the_backward():
    kept: dict[bool, int] = {}
    for learned in (False, True):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            unrolled(snn.SynapticDelay(N, LONGEST, learn_delay=learned), torch.rand(T, B, N, requires_grad=True))
        kept[learned] = max(sizes)
    assert kept == {False: N, True: (T + LONGEST) * B * N}


def test_a_delay_that_is_not_a_number_reads_some_input_and_keeps_the_process_alive():
    late = snn.SynapticDelay(2, LONGEST, learn_delay=True)
    nn.init.constant_(late.delay, float("nan"))
    out = unrolled(late, torch.ones(T, B, 2))
    assert out.isfinite().all()
    out.sum().backward()
    assert late.delay.grad.isnan().all()


# -- state ------------------------------------------------------------------------------------------------------------


def under_way(late: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What still comes out after the inputs have ended."""
    return by_steps(late, torch.zeros(LONGEST, *x.shape[1:], dtype=x.dtype))


@pytest.mark.parametrize("way", [by_steps, unrolled])
def test_the_past_holds_the_last_inputs_oldest_first(way):
    late, x = snn.SynapticDelay(N, LONGEST), torch.rand(T, B, N)
    way(late, x)
    assert torch.equal(late.past, x[-LONGEST:])
    assert late.past.untyped_storage().nbytes() <= (LONGEST + 1) * B * N * 4


def test_detach_lets_the_inputs_arrive_that_are_under_way_without_their_graph():
    fc, late = nn.Linear(N, N), snn.SynapticDelay(N, LONGEST, 3)
    net = nn.Sequential(fc, late)
    for chunk in torch.rand(6, 2, B, N):
        snn.unroll(net, chunk).sum().backward()
        snn.utils.detach(net)
        assert not late.past.requires_grad
    assert under_way(late, chunk).any()
    snn.utils.reset(net)
    assert not under_way(late, chunk).any()


def test_a_batch_of_another_size_starts_from_nothing():
    late = snn.SynapticDelay(N, LONGEST, 2)
    late(torch.ones(B, N))
    with pytest.warns(UserWarning, match="does not broadcast"):
        assert not late(torch.ones(B - 1, N)).any()
    assert not late(torch.ones(B - 1, N)).any()
    assert late(torch.ones(B - 1, N)).all()


def test_the_past_follows_to_and_is_no_buffer():
    late = snn.SynapticDelay(N, LONGEST)
    late(torch.ones(B, N))
    assert late.double().past.dtype == torch.float64
    assert late.to("meta").past.is_meta
    assert [name for name, _ in late.named_buffers()] == ["delay"]


def test_a_checkpoint_restores_the_delays_and_leaves_the_past():
    late, other = snn.SynapticDelay(N, LONGEST), snn.SynapticDelay(N, LONGEST, learn_delay=True)
    late(torch.ones(B, N))
    past = late.past
    late.load_state_dict(other.state_dict())
    assert torch.equal(late.delay, other.delay)
    assert late.past is past


def test_a_replica_starts_from_nothing():
    late = snn.SynapticDelay(N, LONGEST, 1)
    late(torch.ones(B, N))
    assert not late._replicate_for_data_parallel()(torch.ones(B, N)).any()
    assert late.past.any()


def test_autocast_runs_the_product_in_half_precision():
    fc, x = snn.DelayedLinear(N, OUT, LONGEST, learn_delay=True), torch.rand(T, B, N, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = unrolled(fc, x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in (x, *fc.parameters()))


# -- what is refused --------------------------------------------------------------------------------------------------

REFUSED = {
    "negative max_delay": (lambda: snn.SynapticDelay(N, -1), "max_delay=-1"),
    "max_delay that is no whole number": (lambda: snn.SynapticDelay(N, 2.5), "max_delay=2.5"),
    "delay above max_delay": (lambda: snn.SynapticDelay(N, 3, delay=3.1), "0 to max_delay=3"),
    "negative delay": (lambda: snn.DelayedLinear(N, OUT, 3, delay=torch.tensor(-0.1)), "0 to max_delay=3"),
    "delay that is not a number": (lambda: snn.SynapticDelay(N, 3, delay=float("nan")), "0 to max_delay=3"),
    "delays of another shape": (
        lambda: snn.DelayedLinear(N, OUT, 3, torch.ones(OUT)),
        r"shape \(2,\).*broadcasts to \(2, 5\)",
    ),
    "sigma below zero": (lambda: snn.SynapticDelay(N, 3, sigma=-0.5), "sigma=-0.5"),
    "sigma assigned": (lambda: setattr(snn.SynapticDelay(N, 3), "sigma", -1), "sigma=-1"),
    "input of another width": (
        lambda: snn.SynapticDelay(N, 3)(torch.ones(B, N + 1)),
        r"delay of shape \(5,\).*\(3, 6\)",
    ),
    "another in_features": (
        lambda: snn.DelayedLinear(N, OUT, 3)(torch.ones(B, N + 1)),
        r"shape \(3, 6\).*in_features=5",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(case):
    call, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.filterwarnings("ignore:.*is dropped")
@pytest.mark.parametrize("make", [lambda: snn.SynapticDelay(N, 3), lambda: snn.DelayedLinear(N, OUT, 3)])
def test_a_refused_input_leaves_the_past(make):
    late = make()
    late(torch.ones(B, N))
    past = late.past
    for bad in (torch.ones(B, N + 1), torch.ones(B, N, dtype=torch.complex64)):
        with pytest.raises((ValueError, TypeError)):
            late(bad)
        assert late.past is past


# -- learning ---------------------------------------------------------------------------------------------------------


def fitted(make, planted: torch.Tensor, x: torch.Tensor, steps: int) -> torch.Tensor:
    """The delays in force of a layer that was trained to give what one with the planted delays gives."""
    late, teacher = make(None), make(planted)
    if isinstance(late, snn.DelayedLinear):
        late.weight.data, teacher.weight.data = torch.ones(2, *planted.shape)
    with torch.no_grad():
        wanted = unrolled(teacher, x)
    optimizer = torch.optim.Adam([late.delay], lr=0.2)
    for _ in range(steps):
        snn.utils.reset(late)
        loss = (unrolled(late, x) - wanted).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return late.lags


def test_feedback_with_delays_is_unrolled_as_step_by_step():
    torch.manual_seed(0)
    for lif in (snn.RLeaky(0.9, linear_features=N, init_hidden=True), snn.RALIF(linear_features=N, init_hidden=True)):
        lif.recurrent = snn.DelayedLinear(N, N, LONGEST, learn_delay=True)
        twin, x = deepcopy(lif), 3 * torch.rand(T, B, N)
        outs = unrolled(lif, x), torch.stack([twin(row) for row in x])
        for out in outs:
            out.sum().backward()
        assert torch.equal(*outs)
        assert_close(lif.recurrent.delay.grad, twin.recurrent.delay.grad, "delay")
        assert lif.recurrent.delay.grad.any()


def test_axons_learn_planted_delays():
    x = (torch.rand(60, 16, 30) < 0.1).float()
    planted = torch.randint(0, 11, (30,))
    assert torch.equal(fitted(lambda d: snn.SynapticDelay(30, 10, d, learn_delay=True), planted, x, 150), planted)


def test_synapses_learn_planted_delays():
    x = (torch.rand(60, 16, 6) < 0.1).float()
    planted = torch.randint(0, 11, (4, 6))

    def make(delay):
        return snn.DelayedLinear(6, 4, 10, delay, learn_delay=True, bias=False)

    assert torch.equal(fitted(make, planted, x, 200), planted)


def test_a_spiking_network_learns_the_delays_that_distinguish_two_orders():
    """Two inputs, one before the other: only a neuron that delays the first by the gap sees them at once."""
    gap, steps = 5, 16
    x = torch.zeros(steps, 2, 2)
    x[2, 0, 0] = x[2 + gap, 0, 1] = 1.0  # row 0: first 0, then 1
    x[2, 1, 1] = x[2 + gap, 1, 0] = 1.0  # row 1: the other way round
    net = nn.Sequential(
        snn.DelayedLinear(2, 2, 8, delay=1.0, learn_delay=True, bias=False),
        snn.Leaky(beta=0.5, threshold=1.0, init_hidden=True, output=True),
    )
    nn.init.constant_(net[0].weight, 0.8)
    net[0].weight.requires_grad_(False)
    with torch.no_grad():
        net[0].delay += torch.tensor([[0.5, 0.0], [0.0, 0.5]])  # so that the two neurons are not alike

    def counts():
        snn.utils.reset(net)
        spk, mem = snn.unroll(net, x)
        return spk.sum(0), mem.amax(0)

    assert not counts()[0].any()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.2)
    for _ in range(60):
        loss = nn.functional.cross_entropy(4 * counts()[1], torch.tensor([0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fired = counts()[0] > 0
    assert torch.equal(fired, torch.eye(2, dtype=torch.bool))
