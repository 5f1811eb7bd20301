"""A stream of chunks is one unroll over the joined sequence, cut anywhere; it holds nothing of the chunks before."""

import copy
import gc
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import spikeloom as snn

from ..neurons.zoo import ZOO, made, sequence
from .networks import Residual, exact, leaky, quarters
from .test_checkpoint import NETWORKS, TwoInputs, assert_identical, backward, states_of

STEPS, BATCH, WIDTH = 11, 3, 6
CUT = [(11,), (1,) * 11, (4, 4, 3), (2, 1, 8)]
ALIKE = [name for name in NETWORKS if name not in ("norm", "dropout", "chance")]  # those see, or draw, by chunks


def joined(outputs: Iterable[Any]) -> Any:
    return tree_map(lambda *each: torch.cat(each) if isinstance(each[0], Tensor) else each[0], *outputs)


def two_layers() -> nn.Module:
    return exact(NETWORKS["two layers"]())


@pytest.mark.parametrize("sizes", CUT, ids=str)
@pytest.mark.parametrize("name", ALIKE)
def test_it_is_one_unroll_over_the_joined_sequence(name: str, sizes: tuple[int, ...]):
    """Outputs and states are the same bits; so are gradients, to rounding, where nothing is detached."""
    net = exact(NETWORKS[name]())
    twin = copy.deepcopy(net)
    x, same = (quarters(STEPS, BATCH, WIDTH).requires_grad_() for _ in range(2))
    got, wanted = joined(snn.stream(net, x.split(sizes), detach=False)), snn.unroll(twin, same)
    assert_identical((got, states_of(net)), (wanted, states_of(twin)))
    torch.testing.assert_close(backward(net, got, x), backward(twin, wanted, same))


@pytest.mark.parametrize("checkpoint", [None, 3])
@pytest.mark.parametrize("sizes", CUT[1:], ids=str)
def test_detached_it_is_a_loop_that_detaches(sizes: tuple[int, ...], checkpoint: int | None):
    """Truncated backpropagation: the same spikes, and the same gradients after every chunk."""
    net, x = two_layers(), quarters(STEPS, BATCH, WIDTH)
    twin = copy.deepcopy(net)
    for chunk, (spk, mem) in zip(x.split(sizes), snn.stream(net, x.split(sizes), checkpoint=checkpoint), strict=True):
        wanted_spk, wanted_mem = snn.unroll(twin, chunk, checkpoint=checkpoint)
        assert_identical((spk, mem), (wanted_spk, wanted_mem))
        (spk * mem).sum().backward()
        (wanted_spk * wanted_mem).sum().backward()
        snn.utils.detach(twin)
        assert_identical([p.grad for p in net.parameters()], [p.grad for p in twin.parameters()])
    assert all(p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("backend", ["loop", "numba"])
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("name", [name for name, kind in ZOO.items() if kind.exact and name != "NoisyLeaky"])
def test_every_neuron_streams(name: str, size: int, backend: str):
    """A state is cut from its graph before its chunk has had a backward, which goes where it went."""
    lif, chunks = made(name, learn=True), sequence(name, 9).requires_grad_().split(size)
    twin = copy.deepcopy(lif)
    with snn.backend(backend):
        for chunk, outputs in zip(chunks, snn.stream(lif, chunks), strict=True):
            assert not any(vars(lif)[state].requires_grad for state in lif._state_names())
            wanted = snn.unroll(twin, chunk)
            assert_identical(outputs, wanted)
            assert_identical(*(slopes(layer, outs) for layer, outs in ((lif, outputs), (twin, wanted))))
            snn.utils.detach(twin)


def slopes(net: nn.Module, outputs: Any) -> list[Tensor | None]:
    """The gradients of a sum of all outputs that have some."""
    total = sum(out.square().sum() for out in tree_leaves(outputs) if out.requires_grad)
    assert isinstance(total, Tensor)
    return list(torch.autograd.grad(total, list(net.parameters()), allow_unused=True))


def test_a_static_input_per_chunk():
    net, frames = two_layers(), quarters(4, BATCH, WIDTH)
    wanted = snn.unroll(two_layers(), frames.repeat_interleave(5, dim=0))
    assert_identical(joined(snn.stream(net, frames.unbind(), steps=5)), wanted)


def test_several_inputs():
    net, x, gates = exact(TwoInputs()), quarters(STEPS, BATCH, WIDTH), quarters(STEPS, BATCH, WIDTH, seed=1)
    wanted = snn.unroll(copy.deepcopy(net), x, {"gate": gates}, scale=0.5)
    chunks = ((part, {"gate": gate}) for part, gate in zip(x.split(4), gates.split(4), strict=True))
    got = list(snn.stream(net, chunks, scale=0.5))
    assert_identical(joined([(out["spk"], out["mem"][0]) for out in got]), (wanted["spk"], wanted["mem"][0]))


@pytest.mark.usefixtures("fresh_heap")
def test_chunks_are_asked_for_one_by_one_and_nothing_of_them_is_held():
    """While a chunk is made, those before are gone, with their outputs and graphs."""
    alive: list[weakref.ref[Tensor]] = []
    seen: list[int] = []

    def chunks() -> Iterator[Tensor]:
        for k in range(4):
            gc.collect()
            seen.append(sum(ref() is not None for ref in alive))
            chunk = quarters(5, BATCH, WIDTH, seed=k)
            alive.append(weakref.ref(chunk))
            yield chunk
            del chunk

    outputs = snn.stream(two_layers(), chunks())
    assert seen == []
    for _ in range(4):
        spk, mem = next(outputs)
        alive += [weakref.ref(spk), weakref.ref(mem)]
        mem.sum().backward()
        del spk, mem
    assert seen == [0] * 4


def test_without_gradients_nothing_has_a_graph():
    net = two_layers()
    with torch.no_grad():
        outs = list(snn.stream(net, quarters(STEPS, BATCH, WIDTH).split(4), detach=False))
    assert not any(t.requires_grad for t in (*tree_leaves(outs), *states_of(net).values()))


def test_leaving_the_loop_leaves_the_network_after_the_last_chunk():
    net, x = two_layers(), quarters(STEPS, BATCH, WIDTH)
    for done, _ in enumerate(snn.stream(net, x.split(4)), start=1):
        if done == 2:
            break
    wanted = two_layers()
    snn.unroll(wanted, x[:8])
    assert_identical(states_of(net), states_of(wanted))
    rest = joined(snn.stream(net, [x[8:]]))
    assert_identical(rest, snn.unroll(wanted, x[8:]))


BAD_CHUNKS = {
    "no steps": (quarters(0, BATCH, WIDTH), ValueError, "the chunk has no steps"),
    "no tensor": (None, TypeError, "no tensor to run over was passed"),
    "another width": (quarters(4, BATCH, WIDTH + 1), RuntimeError, "shapes cannot be multiplied"),
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_an_error_names_the_chunk_and_leaves_the_network_after_the_one_before(name: str):
    bad, error, sentence = BAD_CHUNKS[name]
    net, x = two_layers(), quarters(4, BATCH, WIDTH)
    outputs = snn.stream(net, [x, x, bad])
    next(outputs), next(outputs)
    before = {n: s.clone() for n, s in states_of(net).items()}
    with pytest.raises(error, match=sentence) as caught:
        next(outputs)
    assert "(in chunk 3 of the stream)" in caught.value.__notes__
    assert_identical(states_of(net), before)


@pytest.mark.parametrize(
    ("net", "chunks", "sentence"),
    [
        (leaky(), torch.zeros(9, 3, 6), "pass x.split"),
        (leaky(), 7, "requires an iterable of chunks; got int"),
        (leaky, [], "requires a network, an nn.Module; got function"),
    ],
)
def test_what_is_no_stream_is_refused_at_once(net: Any, chunks: Any, sentence: str):
    with pytest.raises(TypeError, match=sentence):
        snn.stream(net, chunks)


def test_no_chunks():
    assert list(snn.stream(leaky(), [])) == []


def test_an_empty_tuple_is_refused_as_unroll_refuses_it():
    with pytest.raises(TypeError, match="no tensor"):
        next(snn.stream(leaky(), [()]))


def test_check_looks_at_the_first_chunk():
    x = quarters(STEPS, BATCH, WIDTH)
    with pytest.raises(RuntimeError, match="step"):
        next(snn.stream(nn.Sequential(leaky(), nn.Softmax(dim=0)), x.split(4), check=True))
    assert len(list(snn.stream(Residual(WIDTH), x.split(4), check=True))) == 3


@pytest.mark.parametrize("checkpoint", [None, 2])
@pytest.mark.parametrize("raised", [KeyboardInterrupt, ValueError])
def test_an_error_while_states_are_detached_leaves_the_end_of_the_chunk_before(raised, checkpoint, monkeypatch):
    net = nn.Sequential(
        *(nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True)),
        *(nn.Linear(4, 4), snn.Leaky(beta=0.9, init_hidden=True)),
    )
    plain, chunks = copy.deepcopy(net), torch.rand(9, 2, 3).split(3)
    calls, detach_mem = [0], snn.Leaky.detach_mem

    def detach(self):
        calls[0] += 1
        if calls[0] == 4:  # in the second chunk, at the second layer
            raise raised
        detach_mem(self)

    monkeypatch.setattr(snn.Leaky, "detach_mem", detach)
    with pytest.raises(raised):
        list(snn.stream(net, chunks, checkpoint=checkpoint))
    monkeypatch.undo()
    assert not any(layer.mem.requires_grad for layer in (net[1], net[3]))
    list(snn.stream(net, chunks[1:], checkpoint=checkpoint))
    list(snn.stream(plain, chunks))
    assert torch.equal(net[3].mem, plain[3].mem)
