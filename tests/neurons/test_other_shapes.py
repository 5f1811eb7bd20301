"""A state of another shape than the step needs: used if it broadcasts, else replaced by its start, never an error."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

import spikeloom as snn

from ..oracle import TOLERANCE
from .running import unchanged
from .zoo import ZOO, made, sequence


@contextmanager
def warning_once(layer: str = "") -> Iterator[None]:
    """Within this block exactly one warning says that a state is dropped, or, if no layer is named, none."""
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        yield
    sentences = [str(warning.message) for warning in recorded]
    assert len(sentences) == bool(layer), sentences
    assert all(layer in sentence and "does not broadcast" in sentence for sentence in sentences), sentences


def inputs(name: str, rows: int, steps: int = 3) -> Tensor:
    """[T, rows, *N]."""
    return sequence(name, steps, shape=(rows, *ZOO[name].shape[1:]))


def neuron(name: str, hidden: bool) -> Any:
    return made(name, **({"init_hidden": hidden, "output": True} if name != "DeltaLeaky" else {"init_hidden": hidden}))


def step(lif: Any, x: Tensor, states: Any = ()) -> tuple[Tensor, ...]:
    """Spikes and states after one step, from states passed by hand, if any."""
    torch.manual_seed(11)  # for the noise
    if isinstance(lif, snn.DeltaLeaky) and states:
        states = (tuple(states),)
    return tuple(tree_leaves(lif(x, *states)))


def assert_equal(got: Any, wanted: Any) -> None:
    for one, other in zip(tree_leaves(got), tree_leaves(wanted), strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE[other.dtype])


def state_shape(name: str, rows: int) -> torch.Size:
    lif = neuron(name, hidden=True)
    lif(inputs(name, rows)[0])
    return getattr(lif, lif._state_names()[-1]).shape


@pytest.mark.parametrize("name", ZOO)
def test_a_loop_goes_on_with_batches_of_other_sizes_from_what_reset_mem_returns(name):
    """The tutorials' forward: zeros in the shape of the last batch, passed by hand."""
    lif = neuron(name, hidden=False)
    for rows in (4, 2, 1, 5):
        states, fresh = lif.reset_mem(), neuron(name, hidden=False)
        states = states if isinstance(states, tuple) else (states,)
        wanted = (None, None) if name == "DeltaLeaky" else ()
        for x in inputs(name, rows):
            with warning_once():
                _, *states = outs = step(lif, x, states)
                _, *wanted = expected = step(fresh, x, wanted)
            assert_equal(outs, expected)


@pytest.mark.parametrize("name", ZOO)
def test_a_state_passed_by_hand_that_does_not_broadcast_is_replaced_with_one_warning(name):
    lif, x = neuron(name, hidden=False), inputs(name, 2)[0]
    bad = torch.full(state_shape(name, 3), 0.3)
    wanted = step(neuron(name, hidden=True), x)
    with warning_once(type(lif).__name__):
        assert_equal(step(lif, x, [bad] * len(lif._state_names())), wanted)
    with warning_once():
        assert_equal(step(lif, x, [bad] * len(lif._state_names())), wanted)


@pytest.mark.parametrize("name", ZOO)
def test_a_state_that_broadcasts_is_used(name):
    x, full = inputs(name, 3)[0], state_shape(name, 3)
    for shape in (full[1:], (1, *full[1:]), (1,), ()):
        state = torch.full(shape, 0.3)
        lif, other, kept = (neuron(name, hidden) for hidden in (False, False, True))
        names = lif._state_names()
        for state_name in names:
            setattr(kept, state_name, state)
        with warning_once():
            wanted = step(other, x, [state.expand(full).clone()] * len(names))
            assert_equal(step(lif, x, [state] * len(names)), wanted)
            assert_equal(step(kept, x), wanted)


def unrolled(lif: Any, xs: Tensor) -> Any:
    torch.manual_seed(11)
    return snn.unroll(lif, xs)


def streamed(lif: Any, xs: Tensor) -> Any:
    torch.manual_seed(11)
    return tree_map(lambda *each: torch.cat(each), *snn.stream(lif, xs.split(2)))


def stepped(lif: Any, xs: Tensor) -> Any:
    torch.manual_seed(11)
    return tree_map(lambda *each: torch.stack(each), *[lif(x) for x in xs])


@pytest.mark.parametrize("run", [stepped, unrolled, streamed])
@pytest.mark.parametrize("name", ZOO)
def test_a_state_that_the_layer_keeps_is_replaced_with_one_warning(name, run):
    lif = neuron(name, hidden=True)
    run(lif, inputs(name, 4))
    for sentences, rows in ((type(lif).__name__, 2), ("", 3)):
        fresh, xs = neuron(name, hidden=True), inputs(name, rows)
        with warning_once(sentences):
            got = run(lif, xs)
        assert_equal(got, run(fresh, xs))


@pytest.mark.parametrize("run", [stepped, unrolled, streamed])
def test_after_a_reset_nothing_is_dropped(run):
    lif = snn.Leaky(0.9, init_hidden=True)
    for rows in (4, 2, 1, 5):
        with warning_once():
            run(lif, torch.rand(3, rows, 4))
        snn.utils.reset(lif)


def test_a_stream_goes_on_with_chunks_of_other_sizes():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(0.9, init_hidden=True, output=True))
    chunks = [torch.rand(3, rows, 3) for rows in (4, 4, 2)]
    with warning_once("Leaky"):
        *_, last = snn.stream(net, chunks)
    snn.utils.reset(net)
    assert_equal(last, snn.unroll(net, chunks[-1]))


def test_looking_at_a_network_says_nothing_and_a_check_says_it_once():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(0.9, init_hidden=True))
    snn.unroll(net, torch.rand(3, 4, 3))
    xs = torch.rand(3, 2, 3)
    with warning_once():
        snn.explain(net, xs)
        snn.utils.summary(net, xs)
    with warning_once("Leaky"):
        snn.unroll(net, xs, check=True)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (3,)], ids=str)
def test_a_scalar_input_gives_scalar_states(shape):
    lif, mem = snn.Leaky(0.5), torch.zeros(shape)
    with warning_once():
        for _ in range(2):
            spk, mem = lif(torch.tensor(0.5), mem)
    assert (spk.shape, mem.shape, mem.item()) == ((), (), 0.75)


def test_other_images_and_another_layer_s_states_and_growing_sequences():
    big, small = snn.Leaky(0.9), snn.Leaky(0.9)
    big(torch.rand(2, 3, 8, 8))
    small(torch.rand(2, 5))
    with warning_once():
        assert big(torch.rand(2, 3, 6, 6), big.reset_mem())[1].shape == (2, 3, 6, 6)
        assert big(torch.rand(2, 3, 6, 6), small.reset_mem())[1].shape == (2, 3, 6, 6)
        for length in range(2, 5):
            assert big(torch.rand(2, length), big.reset_mem())[1].shape == (2, length)


class Decaying(snn.Leaky):
    """Fires by a method of its own."""

    def fire(self, mem: Tensor) -> Tensor:
        return super().fire(mem) * 1.0


class Wrapping(snn.Leaky):
    """Has a forward of its own."""

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Any:
        return super().forward(2 * input_, mem)


@snn.cell
def Slow(x, trace, mem=0.25, *, beta=0.9):
    trace = beta * trace + x
    mem = beta * mem + trace
    return snn.ops.spike(mem - 1), trace, mem


@pytest.mark.parametrize(
    "make",
    [
        lambda **given: Decaying(0.9, **given),
        lambda **given: Wrapping(0.9, **given),
        lambda **given: Slow(**given),
        lambda **given: snn.Leaky(0.9, state_quant=lambda mem: mem.round(decimals=1), **given),
    ],
    ids=["fire", "forward", "cell", "state_quant"],
)
def test_neurons_of_a_user_s_own(make):
    lif, fresh, x = make(), make(), torch.rand(2, 4)
    states = [torch.ones(3, 4)] * len(lif._state_names())
    with warning_once(type(lif).__name__):
        got = lif(x, *states)
    assert_equal(got, fresh(x))
    kept, fresh = make(init_hidden=True), make(init_hidden=True)
    snn.unroll(kept, torch.rand(3, 3, 4))
    with warning_once(type(lif).__name__):
        got = snn.unroll(kept, torch.stack([x, x]))
    assert_equal(got, snn.unroll(fresh, torch.stack([x, x])))


def test_neither_zeros_nor_starts_are_missed():
    lif, x = snn.Izhikevich(), torch.zeros(2, 4)
    starts = [lif._starts_at(name) for name in lif._state_names()]
    assert all(starts)
    for values in (starts, [0.0, 0.0]):
        with warning_once():
            got = lif(x, *[torch.full((3, 4), value) for value in values])
        assert_equal(got, snn.Izhikevich()(x))


@pytest.mark.parametrize("bad", [[0.5], 0.5, torch.ones(3, 4) + 0j, torch.ones(3, 4, device="meta")], ids=str)
@pytest.mark.parametrize("name", [name for name in ZOO if name != "DeltaLeaky"])
def test_what_is_no_state_is_refused_and_changes_nothing(name, bad):
    lif = neuron(name, hidden=False)
    x = inputs(name, 3)[0]
    lif(x)
    if isinstance(bad, Tensor):
        bad = torch.ones(state_shape(name, 3)).to(bad)
    with unchanged(lif), pytest.raises((TypeError, ValueError), match=r"pass a tensor|pass real|move one"):
        step(lif, x, [bad] * len(lif._state_names()))


def test_delays_start_afresh_too():
    late, fresh = snn.SynapticDelay(4, 3, 2), snn.SynapticDelay(4, 3, 2)
    late(torch.ones(3, 4))
    for sentences, rows in (("SynapticDelay", 2), ("", 5)):
        with warning_once(sentences):
            got = late(torch.ones(rows, 4))
        assert_equal(got, fresh(torch.ones(rows, 4)))
        late(torch.ones(rows, 4))
        snn.utils.reset(fresh)


def test_a_dropped_state_takes_no_part_in_the_gradient():
    lif, x = snn.Leaky(0.9, init_hidden=True, learn_beta=True), torch.rand(2, 4, requires_grad=True)
    with pytest.warns(UserWarning, match="does not broadcast"):
        lif(torch.ones(3, 4)), lif(x)
    lif.mem.sum().backward()
    assert torch.equal(x.grad, torch.ones(2, 4))
    assert lif.beta.grad.item() == 0.0
