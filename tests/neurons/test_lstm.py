"""SLSTM and SConv2dLSTM: what they alone have. What holds for every neuron is tested in test_every_neuron."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, cross_entropy, max_pool2d

import spikeloom as snn
from spikeloom.neurons.lstm import Gated

from ..oracle import Outcome, assert_close, assert_same
from .running import WAYS, at_once, by_steps, in_both_ways, on_both_backends, unchanged

LOW = {"threshold": 0.1}
KEPT = LOW | {"init_hidden": True, "output": True}


def drawn(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Inputs that drive the gates both ways."""
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def slstm(size: int = 3, hidden: int = 5, **options: Any) -> snn.SLSTM:
    torch.manual_seed(0)
    return snn.SLSTM(size, hidden, **KEPT | options)


def sconv(channels: int = 2, out: int = 3, kernel: Any = 3, **options: Any) -> snn.SConv2dLSTM:
    torch.manual_seed(0)
    return snn.SConv2dLSTM(channels, out, kernel, **KEPT | options)


# -- the equations -----------------------------------------------------------------------------------------------------


@in_both_ways
@on_both_backends
@pytest.mark.parametrize(("size", "hidden"), [(3, 5), (5, 3), (4, 4)])
def test_without_reset_the_states_are_those_of_torch_s_lstm(run, backend, size, hidden):
    xs, lif, lstm = drawn(7, 2, size), slstm(size, hidden), nn.LSTM(size, hidden)
    lstm.load_state_dict({f"{name}_l0": value for name, value in lif.lstm_cell.state_dict().items()})
    with snn.backend(backend):
        spk, _, mem = run(lif, xs)
    wanted, (_, cell) = lstm(xs)
    assert_close(mem.detach(), wanted.detach(), "mem")
    assert_close(lif.syn.detach(), cell[0].detach(), "the last syn")
    assert torch.equal(spk, (mem > 0.1).float())
    assert 0.1 < spk.mean() < 0.9


@in_both_ways
@on_both_backends
@pytest.mark.parametrize("stride", [1, 2, (1, 3)], ids=str)
@pytest.mark.parametrize("dilation", [1, (2, 1)], ids=str)
def test_the_convolution_by_its_definition(run, backend, stride, dilation):
    """The input's part strided, the membrane's not, so that the state keeps its size."""
    xs, lif = drawn(4, 2, 2, 7, 8), sconv(kernel=(3, 5), stride=stride, dilation=dilation)
    with snn.backend(backend):
        spk, syn, mem = (out.detach() for out in run(lif, xs))
    of_x, of_mem = lif.conv.weight.detach().split([2, 3], dim=1)
    rows, columns = (stride, stride) if isinstance(stride, int) else stride
    h = c = torch.zeros(2, 3, -(-7 // rows), -(-8 // columns))
    for t, x in enumerate(xs):
        gates = conv2d(x, of_x, lif.conv.bias.detach(), stride, lif.padding, dilation)
        i, f, o, g = (gates + conv2d(h, of_mem, None, 1, lif.padding, dilation)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        assert_close(syn[t], c, f"syn of step {t}")
        assert_close(mem[t], h, f"mem of step {t}")
    assert 0.05 < spk.mean() < 0.9


POOLS = {"max_pool": max_pool2d, "avg_pool": avg_pool2d}


@in_both_ways
@on_both_backends
@pytest.mark.parametrize("pool", POOLS)
def test_pooling_is_of_the_membrane_and_before_the_threshold(run, backend, pool):
    lif, threshold = sconv(**{pool: (2, 3)}, threshold=0.05), 0.05
    with snn.backend(backend):
        spk, _, mem = run(lif, drawn(5, 2, 2, 6, 7))
    pooled = POOLS[pool](mem.flatten(0, 1), (2, 3)).unflatten(0, (5, 2))
    assert torch.equal(spk, (pooled > threshold).float())
    assert spk.shape == (5, 2, 3, 3, 2)
    assert mem.shape == (5, 2, 3, 6, 7)


@in_both_ways
def test_pooled_spikes_need_no_states_to_be_returned(run):
    xs = drawn(5, 2, 2, 6, 6)
    wanted = run(sconv(max_pool=2), xs)[0]
    with torch.no_grad():
        assert torch.equal(run(sconv(max_pool=2, output=False), xs), wanted)


# -- sizes -------------------------------------------------------------------------------------------------------------


@in_both_ways
@pytest.mark.parametrize("size", [3, 5])
def test_the_state_has_a_memory_whatever_the_sizes(run, size):
    """The same last input after different first ones gives different membranes."""
    xs = drawn(3, 2, size)
    others = torch.cat([-xs[:1], xs[1:]])
    mems = [run(slstm(size, 5), each)[2][-1] for each in (xs, others)]
    assert (mems[0] - mems[1]).abs().max() > 1e-3


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
def test_a_memoryless_layer_begins_every_step_anew_both_ways(static):
    xs = drawn(4, 2, 3)
    if static:
        xs = xs[:1].expand(4, -1, -1)
    stepped, unrolled, first = slstm(memoryless=True), slstm(memoryless=True), slstm()
    outs = by_steps(stepped, xs)
    at_all = snn.unroll(unrolled, xs[0], steps=4) if static else snn.unroll(unrolled, xs)
    for got, wanted in zip(at_all, outs, strict=True):
        assert_close(got.detach(), wanted.detach(), "unrolled")
    assert_close(unrolled.mem.detach(), stepped.mem.detach(), "the last mem")
    assert unrolled.mem.shape == (2, 5)
    assert_close(outs[2][3].detach(), first(xs[3])[2].detach(), "the last step by itself")


def test_a_memoryless_layer_reads_no_states_passed_by_hand():
    lif, x, ones = slstm(memoryless=True, init_hidden=False), drawn(2, 3), torch.ones(2, 5)
    for got, wanted in zip(lif(x, ones, ones), slstm()(x), strict=True):
        assert torch.equal(got, wanted)


def test_a_memoryless_layer_of_equal_sizes_remembers_as_snntorch_s_does():
    xs = drawn(4, 2, 3)
    for got, wanted in zip(at_once(slstm(3, 3, memoryless=True), xs), at_once(slstm(3, 3), xs), strict=True):
        assert torch.equal(got, wanted)


@in_both_ways
@on_both_backends
def test_one_sample_without_a_batch_is_a_batch_of_one(run, backend):
    for make, shape in ((slstm, (4, 3)), (sconv, (4, 2, 5, 6)), (lambda: sconv(avg_pool=2), (4, 2, 5, 6))):
        xs = drawn(*shape)
        with snn.backend(backend):
            bare = by_steps(make(), xs)
            batch = run(make(), xs.unsqueeze(1))
        for got, wanted in zip(bare, batch, strict=True):
            assert_close(got.detach(), wanted.squeeze(1).detach(), "without a batch")


@pytest.mark.parametrize("make", [slstm, sconv, lambda: sconv(max_pool=2)], ids=["SLSTM", "SConv2dLSTM", "pooled"])
@on_both_backends
def test_no_steps_give_nothing_and_keep_the_state(make, backend):
    lif = make()
    shape = (2, 3) if isinstance(lif, snn.SLSTM) else (2, 2, 5, 6)
    with snn.backend(backend):
        lif(drawn(*shape))
        mem = lif.mem.clone()
        outs, wanted = snn.unroll(lif, drawn(0, *shape)), snn.unroll(lif, drawn(1, *shape))
    assert [out.shape for out in outs] == [(0, *out.shape[1:]) for out in wanted]
    assert mem.shape == lif.mem.shape


def test_a_smaller_last_batch_begins_from_zeros():
    lif, fresh = slstm(), slstm()
    lif(drawn(4, 3))
    with pytest.warns(UserWarning, match="does not broadcast"):
        outs = lif(drawn(2, 3))
    for got, wanted in zip(outs, fresh(drawn(2, 3)), strict=True):
        assert torch.equal(got, wanted)


# -- what runs ---------------------------------------------------------------------------------------------------------


def outcome(lif: Gated, xs: Tensor, way: str) -> Outcome:
    xs = xs.clone().requires_grad_()
    spk, syn, mem = WAYS[way](lif, xs)
    leaves = {"x": xs, **dict(lif.named_parameters())}
    total = sum(
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum() for out in (spk, syn, mem)
    )
    grads = torch.autograd.grad(total, list(leaves.values()))
    states = {"syn": syn.detach(), "mem": mem.detach()}
    return Outcome({"spk": spk.detach()}, states, dict(zip(leaves, grads, strict=True)))


@pytest.mark.parametrize("work", [0, 1 << 62], ids=["all threads", "one thread"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [(lambda: slstm(7, 301), (20, 7)), (lambda: sconv(2, 5), (3, 2, 31, 33))],
    ids=["rows of 301", "rows of 5115"],
)
def test_blocks_that_end_with_their_rows(tuned, make, shape, work):
    """More elements than a block has, in rows that are no multiple of a vector's length."""
    tuned(serial_below=work)
    xs = drawn(3, *shape, dtype=torch.float64)
    with snn.backend("loop"):
        wanted = outcome(make().double(), xs, "at once")
    assert_same(outcome(make().double(), xs, "at once"), wanted)


@pytest.mark.parametrize("make", [slstm, sconv], ids=["SLSTM", "SConv2dLSTM"])
def test_the_input_s_part_is_one_product_and_a_static_input_s_is_made_once(monkeypatch, make):
    lif, seen = make(), []
    shape = (2, 3) if isinstance(lif, snn.SLSTM) else (2, 2, 5, 6)
    monkeypatch.setattr(lif, "_of_input", lambda x: seen.append(x.shape) or type(lif)._of_input(lif, x))
    snn.unroll(lif, drawn(6, *shape), check=False)
    snn.unroll(lif, drawn(*shape), steps=6, check=False)
    assert seen == [(12, *shape[1:]), shape]


@on_both_backends
@pytest.mark.parametrize("make", [slstm, sconv], ids=["SLSTM", "SConv2dLSTM"])
def test_gradients_go_through_the_border_of_two_chunks(make, backend):
    whole, parts = make().double(), make().double()
    xs = drawn(6, *((2, 3) if isinstance(whole, snn.SLSTM) else (2, 2, 5, 6)), dtype=torch.float64)
    with snn.backend(backend):
        wanted = torch.autograd.grad(snn.unroll(whole, xs)[2].sum(), list(whole.parameters()))
        mems = torch.cat([snn.unroll(parts, chunk)[2] for chunk in (xs[:3], xs[3:])])
        grads = torch.autograd.grad(mems.sum(), list(parts.parameters()))
    for (name, _), got, right in zip(whole.named_parameters(), grads, wanted, strict=True):
        assert_close(got, right, name)


@pytest.mark.parametrize("make", [slstm, sconv], ids=["SLSTM", "SConv2dLSTM"])
def test_the_gradient_of_a_static_input_is_summed_over_time(make):
    shape = (2, 3) if isinstance(make(), snn.SLSTM) else (2, 2, 5, 6)
    x = drawn(*shape).requires_grad_()
    (got,) = torch.autograd.grad(snn.unroll(make(), x, steps=5)[2].sum(), x)
    with snn.backend("loop"):
        (wanted,) = torch.autograd.grad(by_steps(make(), x.expand(5, *shape))[2].sum(), x)
    assert_close(got, wanted, "the gradient")


def test_explain_names_the_kernel_or_says_why_not():
    assert [row.backend for row in snn.explain(slstm(), drawn(3, 2, 3)).rows] == ["numba"]
    quantised = slstm(state_quant=torch.round)
    (row,) = snn.explain(quantised, drawn(3, 2, 3)).rows
    assert row.backend == "loop"
    assert "state_quant" in str(row.refusals)


@on_both_backends
def test_a_frozen_layer_gives_its_input_a_gradient_and_frozen_weights_none(backend):
    lif = slstm().requires_grad_(False)
    x = drawn(3, 2, 3).requires_grad_()
    with snn.backend(backend):
        (got,) = torch.autograd.grad(snn.unroll(lif, x)[0].sum(), x)
        lif.lstm_cell.weight_hh.requires_grad_(True)
        (weight,) = torch.autograd.grad(snn.unroll(lif, drawn(3, 2, 3))[0].sum(), lif.lstm_cell.weight_hh)
    assert got.abs().max() > 0
    assert weight.abs().max() > 0


def test_a_second_derivative_is_refused_by_the_kernel_and_given_by_the_loop():
    x = drawn(3, 2, 3).requires_grad_()
    (grad,) = torch.autograd.grad(snn.unroll(slstm(), x)[2].sum(), x, create_graph=False)
    assert grad.shape == x.shape
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(snn.unroll(slstm(), x)[2].sum(), x, create_graph=True)
    with snn.backend("loop"):
        (grad,) = torch.autograd.grad(snn.unroll(slstm(), x)[2].sum(), x, create_graph=True)
    assert torch.autograd.grad(grad.sum(), x)[0].shape == x.shape


def test_a_graph_that_is_already_freed_is_reported():
    lif = slstm()
    with snn.backend("numba"):
        lif(drawn(2, 3))[0].sum().backward()
        with pytest.raises(RuntimeError, match=r"utils\.reset\(net\)"):
            lif(drawn(2, 3))[0].sum().backward()


@in_both_ways
def test_under_autocast_the_states_stay_float32(run):
    with torch.autocast("cpu", torch.bfloat16):
        spk, syn, mem = run(slstm(), drawn(3, 2, 3))
    assert (spk.dtype, syn.dtype, mem.dtype) == (torch.float32, torch.float32, torch.float32)


def test_it_learns_to_remember_the_first_input_of_a_sequence():
    torch.manual_seed(0)
    net = nn.Sequential(snn.SLSTM(1, 16, threshold=0.1, init_hidden=True), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    wanted = torch.arange(64) % 2
    xs = torch.zeros(12, 64, 1)
    xs[0, :, 0] = wanted.float()
    for _ in range(60):
        snn.utils.reset(net)
        out = snn.unroll(net, xs)[-1]
        loss = cross_entropy(out, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert bool((out.argmax(1) == wanted).float().mean() > 0.95)


# -- methods of the user's ---------------------------------------------------------------------------------------------


class Twice(snn.SConv2dLSTM):
    """Fires twice above two thresholds, and resets from half the threshold on."""

    def fire(self, mem: Tensor) -> Tensor:
        return super().fire(mem) + self.spike_grad(mem - 2 * self.threshold)

    def mem_reset(self, mem: Tensor) -> Tensor:
        return (mem > self.threshold / 2).to(mem.dtype)


@in_both_ways
@pytest.mark.parametrize("pool", [0, 2])
def test_fire_and_mem_reset_of_a_subclass_are_honoured(run, pool):
    torch.manual_seed(0)
    lif = Twice(2, 3, 3, max_pool=pool, reset_mechanism="zero", **KEPT)
    spk, _, mem = run(lif, drawn(6, 2, 2, 6, 6))
    seen = max_pool2d(mem.flatten(0, 1), 2).unflatten(0, (6, 2)) if pool else mem
    assert torch.equal(spk, (seen > 0.1).float() + (seen > 0.2).float())
    assert spk.max() == 2
    assert (mem[1:][mem[:-1] > 0.05] == 0).all()


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"kernel_size": 2}, "odd"),
    ({"kernel_size": (3, 4)}, "odd"),
    ({"stride": 0}, "stride"),
    ({"dilation": (1, 0)}, "dilation"),
    ({"max_pool": 2, "avg_pool": 2}, "one of them"),
    ({"reset_mechanism": "other"}, "choose one of"),
])  # fmt: skip
def test_arguments_that_have_no_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        snn.SConv2dLSTM(**{"in_channels": 1, "out_channels": 1, "kernel_size": 3, **LOW, **options})


@pytest.mark.parametrize(("make", "good", "bad", "message"), [
    (slstm, (2, 3), (2, 4), "input_size=3"),
    (sconv, (2, 2, 5, 6), (2, 3, 5, 6), "in_channels=2"),
    (sconv, (2, 2, 5, 6), (2, 5), "in_channels=2"),
    (lambda: sconv(max_pool=3), (2, 2, 5, 6), (2, 2, 5, 2), "larger image"),
], ids=["features", "channels", "dimensions", "pool"])  # fmt: skip
@in_both_ways
def test_an_input_that_does_not_fit_is_refused_and_the_state_stays(run, make, good, bad, message):
    lif = make()
    lif(drawn(*good))
    with unchanged(lif), pytest.raises(ValueError, match=message):
        run(lif, drawn(3, *bad))


def test_a_state_that_broadcasts_is_taken():
    lif = slstm(init_hidden=False)
    rows = [lif(drawn(2, 3), *(torch.full(shape, 0.3),) * 2)[2] for shape in ((5,), (2, 5))]
    assert torch.equal(*rows)


def test_a_threshold_that_is_never_reached_is_reported():
    for make in (lambda **given: snn.SLSTM(2, 2, **given), lambda **given: snn.SConv2dLSTM(1, 1, 3, **given)):
        with pytest.warns(UserWarning, match="cannot fire") as message:
            make()
        assert message[0].filename == __file__
        make(learn_threshold=True)
        make(threshold=torch.tensor([0.5, 2.0]))


def test_inhibition_is_ignored_with_a_warning():
    xs = drawn(3, 2, 3)
    with pytest.warns(UserWarning, match="ignores inhibition"):
        inhibited = slstm(inhibition=True)
    assert torch.equal(at_once(inhibited, xs)[0], at_once(slstm(), xs)[0])
    assert snn.explain(inhibited, xs).rows[0].backend == "numba"
