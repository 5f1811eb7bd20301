"""The LSTM neurons: their sizes, their memory, their gates against torch's own cell."""

import pytest
import torch
from torch import nn

import spikeloom as snn

from ..oracle import assert_close


def test_its_gates_are_those_of_the_cell_of_torch():
    torch.manual_seed(0)
    lif = snn.SLSTM(3, 4, threshold=0.1).double()
    xs = torch.rand(6, 2, 3, dtype=torch.float64)
    mem = syn = torch.zeros(2, 4, dtype=torch.float64)
    for x, ours in zip(xs, torch.stack(snn.unroll(lif, xs)[1:]).unbind(1), strict=True):
        mem, syn = lif.lstm_cell(x, (mem, syn))
        assert_close(ours[0], syn, "syn")
        assert_close(ours[1], mem, "mem")


def test_the_convolution_sees_the_input_beside_the_membrane():
    torch.manual_seed(0)
    lif = snn.SConv2dLSTM(2, 3, (3, 5), threshold=0.1, dilation=(2, 1)).double()
    xs = torch.rand(4, 2, 2, 7, 8, dtype=torch.float64)
    mem = syn = torch.zeros(2, 3, 7, 8, dtype=torch.float64)
    for x, ours in zip(xs, snn.unroll(lif, xs)[2], strict=True):
        i, f, o, g = lif.conv(torch.cat([x, mem], 1)).chunk(4, 1)
        syn = f.sigmoid() * syn + i.sigmoid() * g.tanh()
        mem = o.sigmoid() * syn.tanh()
        assert_close(ours, mem, "mem")


def test_a_stride_makes_the_states_smaller():
    lif = snn.SConv2dLSTM(2, 3, 3, stride=(2, 3), threshold=0.1)
    spk, syn, mem = lif(torch.rand(2, 2, 8, 9))
    assert spk.shape == syn.shape == mem.shape == (2, 3, 4, 3)


@pytest.mark.parametrize("pool", ["max_pool", "avg_pool"])
def test_the_pooled_membrane_fires_and_the_states_stay_as_they_are(pool):
    torch.manual_seed(0)
    lif = snn.SConv2dLSTM(1, 2, 3, threshold=0.02, **{pool: 2})
    spk, _, mem = lif(torch.rand(2, 1, 6, 6))
    pooling = getattr(nn.functional, f"{pool}2d".replace("pool2d", "pool2d"))
    assert mem.shape == (2, 2, 6, 6)
    assert torch.equal(spk, (pooling(mem, 2) > 0.02).float())
    assert 0 < spk.mean() < 1


def test_a_static_input_is_multiplied_once(monkeypatch):
    rows = []
    of_input = snn.SLSTM._of_input
    monkeypatch.setattr(snn.SLSTM, "_of_input", lambda self, x: rows.append(len(x)) or of_input(self, x))
    lif, x = snn.SLSTM(3, 4, threshold=0.1, init_hidden=True), torch.rand(2, 3)
    spk = snn.unroll(lif, x, steps=7)
    assert rows == [2]
    snn.utils.reset(lif)
    assert torch.equal(spk, torch.stack([lif(x) for _ in range(7)]))


def test_memoryless_it_forgets_at_every_step_where_the_sizes_differ():
    torch.manual_seed(0)
    lif = snn.SLSTM(3, 4, threshold=0.1, memoryless=True)
    x = torch.rand(2, 3)
    first = lif(x)
    for _ in range(3):
        again = lif(x, torch.rand(2, 4), torch.rand(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    same_size = snn.SLSTM(4, 4, threshold=0.1, memoryless=True)
    x = torch.rand(2, 4)
    assert not torch.equal(same_size(x)[2], same_size(x)[2])


def test_a_state_of_another_size_is_refused_and_nothing_changes():
    lif = snn.SLSTM(3, 4, threshold=0.1)
    lif(torch.rand(2, 3))
    before = lif.mem
    with pytest.raises(ValueError, match=r"mem of shape \(2, 3\)"):
        lif(torch.rand(2, 3), torch.rand(2, 4), torch.rand(2, 3))
    assert lif.mem is before


@pytest.mark.parametrize("arguments", [(snn.SLSTM, (3, 4)), (snn.SConv2dLSTM, (1, 2, 3))], ids=["SLSTM", "SConv2dLSTM"])
def test_a_threshold_that_is_never_crossed_is_told(arguments):
    kind, sizes = arguments
    with pytest.warns(UserWarning, match=r"cannot fire: its membrane stays below 1.*pass a threshold of 0.1"):
        kind(*sizes)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"max_pool": 2, "avg_pool": 2}, "pass one of them"), ({"kernel_size": (3, 4)}, "pass odd sizes")],
)
def test_what_has_no_meaning_is_refused(options, told):
    with pytest.raises(ValueError, match=told):
        snn.SConv2dLSTM(**{"in_channels": 1, "out_channels": 2, "kernel_size": 3, "threshold": 0.1, **options})


def test_explain_says_why_it_runs_on_the_loop():
    (row,) = snn.explain(snn.SLSTM(3, 4, threshold=0.1), torch.rand(5, 2, 3)).rows
    assert (row.backend, row.refusals) == (
        "loop",
        ("numba: the membrane enters its gates by a product at every step",),
    )


def test_a_users_fire_is_honoured():
    class Never(snn.SLSTM):
        def fire(self, mem):
            return torch.zeros_like(mem)

    assert not Never(3, 4, threshold=-1.0)(torch.rand(2, 3))[0].any()


def test_it_learns_to_remember_the_first_input_of_a_sequence():
    torch.manual_seed(0)
    net = nn.Sequential(snn.SLSTM(1, 16, threshold=0.1, init_hidden=True), nn.Linear(16, 2))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    wanted = torch.arange(64) % 2
    xs = torch.zeros(12, 64, 1)
    xs[0, :, 0] = wanted.float()
    for _ in range(60):
        snn.utils.reset(net)
        out = snn.unroll(net, xs)[-1]
        loss = nn.functional.cross_entropy(out, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert bool((out.argmax(1) == wanted).float().mean() > 0.95)
