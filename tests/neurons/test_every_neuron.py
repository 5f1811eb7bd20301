"""What holds for every neuron: two ways of running, two backends, chunks, shapes, saving, copying."""

import copy
import io
import pickle
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import spikeloom as snn
from spikeloom.cells.firing import RESETS

from ..each import for_each
from ..oracle import Outcome, assert_close, assert_same
from .running import WAYS
from .zoo import ZOO, made, sequence

ALL_RESETS = ("Leaky", "RSynaptic")
"""Neurons with every pair of a reset and a delay; the others have every reset, every other one of them delayed."""


def resets(name: str) -> list[dict[str, Any]]:
    """The choices of reset of a neuron: of neuron, reset and delay any two meet."""
    kind = ZOO[name]
    if not kind.resets:
        return [{}]
    if not kind.delays:
        return [{"reset_mechanism": reset} for reset in RESETS]
    first, every = [*ZOO].index(name) % 2, name in ALL_RESETS
    return [
        {"reset_mechanism": reset, "reset_delay": delay}
        for i, reset in enumerate(RESETS)
        for delay in ((True, False) if every else ((i + first) % 2 == 0,))
    ]


def settings(name: str) -> Iterator[Any]:
    """Every reset of the neuron in one setting and, on Numba, in one way, but the first one with numbers in both ways,
    and with vectors too. Reset, delay, setting and way: any two meet."""
    both = {"numbers, float32": (False, torch.float32), "vectors, float64": (True, torch.float64)}
    numbers, vectors = both
    by_steps, at_once = WAYS
    for i, options in enumerate(resets(name)):
        first = {numbers: [by_steps, at_once], vectors: [at_once]}
        other = {(numbers, vectors)[(i + i // 2) % 2]: [(by_steps, at_once)[(i + i // 4) % 2]]}
        for which, ways in (other if i else first).items():
            message = "-".join([name, *map(str, options.values()), which])
            yield pytest.param(name, options, *both[which], ways, id=message)


def outcome(neuron: Any, xs: Tensor, way: str, seed: int = 11) -> Outcome:
    """Spikes, states, and the gradients of a weighted sum of them."""
    xs = xs.clone().requires_grad_()
    torch.manual_seed(seed)
    spk, *states = tree_leaves(WAYS[way](neuron, xs))
    learned = {"x": xs, **dict(neuron.named_parameters())}
    total = sum(
        (out * torch.linspace(-0.5, 1.0, out.numel(), dtype=out.dtype).view_as(out)).sum() for out in (spk, *states)
    )
    grads = torch.autograd.grad(total, list(learned.values()))
    return Outcome(
        {"spk": spk.detach()},
        {str(i): s.detach() for i, s in enumerate(states)},
        dict(zip(learned, grads, strict=True)),
    )


@pytest.fixture
def on_the_loop():
    """For what is the same on every backend: it compiles nothing."""
    with snn.backend("loop"):
        yield


@pytest.mark.usefixtures("on_the_loop")
@for_each("name", ZOO)
def test_the_inputs_make_some_neurons_fire_and_not_all(name):
    """Guards the tests below: without spikes they would compare little."""
    spk = tree_leaves(snn.unroll(made(name), sequence(name, 40)))[0]
    assert name == "LI" or 0.01 < (spk != 0).double().mean() < 0.9


@pytest.mark.parametrize(
    ("name", "options", "vectors", "dtype", "ways"), [setting for name in ZOO for setting in settings(name)]
)
def test_at_once_and_by_steps_on_both_backends(name, options, vectors, dtype, ways):
    """Against the reference: the plain loop, step by step."""
    xs = sequence(name, dtype=dtype)
    with snn.backend("loop"):
        wanted = outcome(made(name, vectors, learn=True, **options), xs, "by steps")
    for backend, way in [("loop", "at once"), *product(["numba"], ways)]:
        with snn.backend(backend):
            got = outcome(made(name, vectors, learn=True, **options), xs, way)
        assert_same(got, wanted, exact_states=ZOO[name].exact and backend == "loop")


@for_each("name", ZOO)
def test_a_sequence_in_chunks_gives_what_it_gives_at_once(name):
    xs = sequence(name, 12)
    whole, parts = (made(name, learn=True, output=True, init_hidden=True) for _ in range(2))
    torch.manual_seed(1)
    wanted = tree_leaves(snn.unroll(whole, xs))
    torch.manual_seed(1)
    chunks = [tree_leaves(snn.unroll(parts, chunk)) for chunk in (xs[:5], xs[5:6], xs[6:])]
    for i, (together, *pieces) in enumerate(zip(wanted, *chunks, strict=True)):
        assert_close(torch.cat(pieces), together, f"output {i}", exact=ZOO[name].exact)


@for_each(
    ("name", "shape"), product([name for name, kind in ZOO.items() if not kind.fixed], [(4,), (1, 1), (2, 3, 4, 4)])
)
def test_any_shape_of_input(name, shape):
    xs = sequence(name, 5, shape=shape)
    assert_same(outcome(made(name, learn=True), xs, "at once"), outcome(made(name, learn=True), xs, "by steps"))


@pytest.mark.parametrize("name", ["RLeaky through Linear", "RSynaptic through Linear"])
def test_recurrence_through_a_linear_layer_takes_inputs_without_a_batch(name):
    xs = sequence(name, 5, shape=(4,))
    with snn.backend("loop"):
        wanted = outcome(made(name), xs, "by steps")
    assert_same(outcome(made(name), xs, "at once"), wanted)


@for_each(("name", "learn"), product(ZOO, (False, True)))
@pytest.mark.usefixtures("on_the_loop")
def test_saved_loaded_copied_and_pickled_it_gives_the_same(name, learn):
    neuron = made(name, vectors=True, learn=learn, init_hidden=True, output=True)
    xs = sequence(name, dtype=torch.float64)
    neuron(xs[0])
    buffer = io.BytesIO()
    torch.save(neuron.state_dict(), buffer)
    buffer.seek(0)
    loaded = made(name, vectors=True, learn=learn, init_hidden=True, output=True)
    with torch.no_grad():
        for value in loaded.state_dict().values():
            if value.is_floating_point():
                value.zero_()
    loaded.load_state_dict(torch.load(buffer), strict=True)
    snn.utils.reset(loaded)
    copies = {"copied": copy.deepcopy(neuron), "pickled": pickle.loads(pickle.dumps(neuron))}
    torch.manual_seed(2)
    wanted = tree_leaves(neuron(xs[1]))
    for how, twin in copies.items():
        torch.manual_seed(2)
        for got, right in zip(tree_leaves(twin(xs[1])), wanted, strict=True):
            assert_close(got, right, how, exact=True)
    snn.utils.reset(neuron)
    torch.manual_seed(2)
    wanted = tree_leaves(neuron(xs[2]))
    torch.manual_seed(2)
    for got, right in zip(tree_leaves(loaded(xs[2])), wanted, strict=True):
        assert_close(got, right, "loaded", exact=True)


@for_each("name", ZOO)
def test_reset_goes_back_to_the_first_step_and_detach_cuts_the_graph(name):
    neuron = made(name, learn=True, init_hidden=True, output=True)
    xs = sequence(name)
    torch.manual_seed(2)
    first = [out.detach() for out in tree_leaves(neuron(xs[0]))]
    for x in xs[1:]:
        neuron(x)
    snn.utils.detach(neuron)
    assert not any(getattr(neuron, state).requires_grad for state in neuron._state_names())
    type(neuron).reset_hidden()
    torch.manual_seed(2)
    for got, right in zip(tree_leaves(neuron(xs[0])), first, strict=True):
        assert_close(got.detach(), right, "after the reset", exact=True)


@pytest.mark.usefixtures("on_the_loop")
@for_each("name", ZOO)
def test_states_are_no_parameters_and_not_in_the_state_dict(name):
    neuron = made(name, init_hidden=True)
    neuron(sequence(name)[0])
    kept = {*neuron.state_dict(), *dict(neuron.named_parameters()), *dict(neuron.named_buffers())}
    assert not kept & set(neuron._state_names())
    moved = neuron.to(torch.float64)
    assert {getattr(moved, state).dtype for state in neuron._state_names()} == {torch.float64}


@for_each(("name", "dtype"), product(ZOO, (torch.float16, torch.bfloat16)))
def test_half_precision_computes_in_float32(name, dtype):
    """Spikes have the dtype of the input; states are those of the same input in float32. Two kinds have other values:
    feedback is added to the input in its dtype, and noise is drawn in it."""
    xs = sequence(name).to(dtype)
    found = []
    for x in (xs, xs.float()):
        neuron = made(name, init_hidden=True, output=True)
        torch.manual_seed(0)
        spk, *_ = tree_leaves(snn.unroll(neuron, x))
        found.append([spk, *(getattr(neuron, state) for state in neuron._state_names())])
    names = ["spk", *neuron._state_names()]
    found[1][0] = found[1][0].to(dtype)
    for state, got, wanted in zip(names, *found, strict=True):
        assert got.dtype == wanted.dtype, state
        if name != "NoisyLeaky" and "spk" not in neuron._state_names():
            assert_close(got, wanted, state, exact=ZOO[name].exact)


def smooth(u: Tensor) -> Tensor:
    """A spike function whose derivative is its own, so that finite differences can check what stands around it."""
    return torch.sigmoid(4 * u)


@for_each("name", [n for n, kind in ZOO.items() if kind.resets and n != "NoisyLeaky"])
def test_gradients_are_those_of_finite_differences_with_a_smooth_spike(name):
    """Without reset, through which no gradient is to flow; of many inputs, along a random direction."""
    neuron = made(name, learn=True, spike_grad=smooth, reset_mechanism="none").double()
    xs = sequence(name, 3, torch.float64, shape=ZOO[name].shape[1:]).unsqueeze(1)
    parameters = list(neuron.parameters())

    def scan(x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        snn.utils.reset(neuron)
        return tuple(tree_leaves(snn.unroll(neuron, x)))

    assert torch.autograd.gradcheck(scan, (xs.requires_grad_(), *parameters), fast_mode=xs.numel() > 100)
