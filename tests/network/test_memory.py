"""What an unrolled run keeps for its backward: one float trace per layer, and spikes as bits."""

import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.engine import tuning
from spikeloom.engine.jit import buffer_pool
from spikeloom.network import _saved_bits

from .networks import leaky

STEPS, BATCH, WIDTH = 64, 32, 160  # 1.25 MiB for each sequence


def net_and_input() -> tuple[nn.Sequential, Tensor]:
    snn.utils.seed(1)
    layers = [layer for _ in range(3) for layer in (nn.Linear(WIDTH, WIDTH), leaky())]
    return nn.Sequential(*layers), torch.rand(STEPS, BATCH, WIDTH) * 3


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch, tuned) -> Iterator[list[torch.Size]]:
    """The shapes of what is kept as bits, from the first byte on."""
    tuned(pack_after=0)
    seen: list[torch.Size] = []
    pack = _saved_bits.pack_bits

    def watched(x: Tensor) -> _saved_bits.Bits | None:
        kept = pack(x)
        seen.extend([] if kept is None else [x.shape])
        return kept

    monkeypatch.setattr(_saved_bits, "pack_bits", watched)
    return seen


def test_spikes_are_freed_and_kept_as_bits(packs: list[torch.Size]):
    net, x = net_and_input()
    spikes = []
    for layer in net[1::2]:
        layer.register_forward_hook(lambda module, args, out: spikes.append(weakref.ref(out)))
    out = snn.unroll(net, x)
    assert packs == [(STEPS * BATCH, WIDTH)] * 2
    assert [spk() is None for spk in spikes[:2]] == [True, True]
    out.sum().backward()


def test_the_first_bytes_of_a_run_stay_as_they_are(packs: list[torch.Size], tuned):
    net, x = net_and_input()
    for factor, packed in ((0.9, 2), (1.9, 1), (2, 0)):
        tuned(pack_after=int(factor * x.nbytes))
        packs.clear()
        snn.unroll(net, x)
        assert len(packs) == packed, factor


def test_gradients_are_the_same_bits(tuned, packs: list[torch.Size]):
    found = []
    for smallest in (1 << 20, 1 << 60):
        tuned(pool_from=smallest)
        net, x = net_and_input()
        out = snn.unroll(net, x.requires_grad_())
        out.square().sum().backward(retain_graph=True)
        out.sum().backward()
        found.append([x.grad, *(p.grad for p in net.parameters())])
    assert len(packs) == 2
    assert all(g is not None and g.abs().sum() > 0 for g in found[0])
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_what_a_neuron_saves_for_itself_is_kept_as_it_is(packs: list[torch.Size]):
    lif = snn.RLeaky(beta=0.9, all_to_all=False, init_hidden=True)  # whose backward reads the spikes
    snn.unroll(lif, torch.rand(STEPS, BATCH, WIDTH).requires_grad_()).sum().backward()
    assert packs == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0,), (5,), (4096,), (3, 4097), (2, 8, 25, 40)])
def test_bits_give_the_same_tensor_back(shape: tuple[int, ...], dtype: torch.dtype):
    spk = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3).to(dtype)
    for x in [spk, spk.contiguous(memory_format=torch.channels_last)] if spk.dim() == 4 else [spk]:
        kept = _saved_bits.pack_bits(x)
        assert kept is not None
        again = _saved_bits.unpack_bits(kept)
        assert torch.equal(again, x)
        assert again.stride() == x.stride()


@pytest.mark.parametrize("value", [-0.0, 0.5, 2.0, -1.0, float("nan"), float("inf"), 1e-45])
@pytest.mark.parametrize("place", [0, 4095, 300_000])
def test_other_values_are_left_alone(place: int, value: float):
    x = torch.zeros(400_000)
    x[place] = value
    assert _saved_bits.pack_bits(x) is None


def test_layouts_with_gaps_are_left_alone():
    x = torch.zeros(100, 100)
    assert _saved_bits.pack_bits(x.t()) is None
    assert _saved_bits.pack_bits(x[:, :50]) is None
    assert _saved_bits.pack_bits(x.half()) is None


def test_graded_spikes_are_kept_as_they_are(packs: list[torch.Size]):
    net, x = net_and_input()
    for layer in net[1::2]:
        layer.graded_spikes_factor = torch.tensor(2.0)
    snn.unroll(net, x)
    assert packs == []


def test_what_was_changed_in_place_is_noticed():
    net, x = net_and_input()
    out = snn.unroll(net, x)
    with torch.no_grad():
        net[4].weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_second_derivatives_work_where_they_did():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.rand(5, 2, 4, requires_grad=True)
    found = []
    for y in (snn.unroll(net, x), net(x)):
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), net[0].weight)[0])
    torch.testing.assert_close(*found)


def test_hooks_of_the_user_are_left_in_force(packs: list[torch.Size]):
    net, x = net_and_input()
    seen: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):
        snn.unroll(net, x)
    assert packs == []
    assert seen


def test_saved_outputs_do_not_hold_themselves():
    outs = []
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    net[1].register_forward_hook(lambda module, args, out: outs.append(weakref.ref(out)))
    snn.unroll(net, torch.rand(5, 2, 4))
    assert outs[0]() is None


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch, fresh_heap: None) -> list[int]:
    """The bytes of large results that exist at a time, noted whenever one is made or dies."""
    noted = [0]
    empty, give_back = buffer_pool.empty, buffer_pool._give_back

    def made(shape: tuple[int, ...], like: Tensor) -> Tensor:
        result = empty(shape, like)
        noted.append(noted[-1] + (result.nbytes if result.nbytes >= tuning.limits.pool_from else 0))
        return result

    def died(block: buffer_pool.Block) -> None:
        noted.append(noted[-1] - len(block))
        give_back(block)

    monkeypatch.setattr(buffer_pool, "empty", made)
    monkeypatch.setattr(buffer_pool, "_give_back", died)
    return noted


@pytest.mark.parametrize("frozen", [False, True], ids=["no_grad", "nothing requires a gradient"])
def test_inference_keeps_no_trace(lent: list[int], frozen: bool):
    """Of what neurons make, one sequence exists at a time: spikes, until the next layer has seen them."""
    net, x = net_and_input()
    net.requires_grad_(not frozen)
    with torch.set_grad_enabled(frozen):
        out = snn.unroll(net, x)
    assert max(lent) == lent[-1] == out.nbytes


def test_training_keeps_a_trace_per_layer(lent: list[int], packs: list[torch.Size]):
    """The spikes that are returned, and the membrane of each layer."""
    net, x = net_and_input()
    out = snn.unroll(net, x)
    assert max(lent) == lent[-1] == 4 * out.nbytes
    del out
    snn.utils.detach(net)  # the last states, too, hold the graph
    assert lent[-1] == 0
