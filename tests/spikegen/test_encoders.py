"""The codes as modules: the same spikes as the functions, alone and in a network that is unrolled."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom import spikegen

from .cases import CODES, T, numbers

BY_CODE = pytest.mark.parametrize("code", CODES.values(), ids=CODES)
STATIC = {name: code for name, code in CODES.items() if code.timed and not code.sequence and not code.added}
BY_STATIC = pytest.mark.parametrize("code", STATIC.values(), ids=STATIC)


def seeded(call, *args):
    torch.manual_seed(6)
    return call(*args)


def body(features: int = 4) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(features, 6), snn.Leaky(beta=0.8, threshold=0.2, init_hidden=True))


@BY_CODE
def test_a_module_gives_the_spikes_of_its_function(code):
    x = numbers(3, 4)
    assert torch.equal(seeded(code.module(), x), seeded(code, x))


@BY_CODE
def test_a_module_takes_the_arguments_of_its_function_with_the_same_defaults(code):
    ours, functions = (
        {p.name: p.default for p in inspect.signature(thing).parameters.values()}
        for thing in (type(code.module()), getattr(spikegen, code.name))
    )
    functions.pop("data")
    functions.pop("time_var_input", None)  # that is RateConv, over a sequence
    if code.name == "rate":
        functions["num_steps"] = inspect.Parameter.empty
    assert ours == functions


@BY_CODE
@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copied", "pickled"])
def test_a_module_is_copied_and_pickled_with_its_generator(code, again):
    options = {"generator": torch.Generator().manual_seed(5)} if code.random else {}
    module = code.module(**options)
    other, x = again(module), numbers(3, 4)
    assert repr(other).partition("generator")[0] == repr(module).partition("generator")[0]
    assert torch.equal(other(x), module(x))


def test_the_repr_shows_what_is_not_the_default():
    assert repr(spikegen.Rate(25)) == "Rate(num_steps=25)"
    assert repr(spikegen.Latency(9, linear=True, tau=1.0)) == "Latency(num_steps=9, linear=True)"
    assert repr(spikegen.Delta(torch.tensor(0.5))) == "Delta(threshold=tensor(0.5000))"
    assert repr(spikegen.RateConv()) == "RateConv()"
    assert repr(spikegen.Population(5, 6, code="rate")) == "Population(num_steps=5, num_neurons=6, code='rate')"


def test_arguments_are_attributes_that_may_be_changed():
    encode = spikegen.Rate(25)
    encode.num_steps = 7
    assert encode(torch.ones(2)).shape == (7, 2)


def test_tensors_follow_the_module_and_stay_out_of_its_state_dict():
    encode = spikegen.Population(5, 4, low=torch.zeros(3), high=torch.ones(3)).to(torch.float64)
    assert encode.low.dtype == torch.float64
    assert not encode.state_dict()


def test_a_wrong_argument_is_reported_at_once():
    with pytest.raises(TypeError, match="steps"):
        spikegen.Phase(steps=5)


# -- unrolled ----------------------------------------------------------------------------------------------------------


def unrolled(net: nn.Module, x: torch.Tensor, steps: int | None = T) -> torch.Tensor:
    torch.manual_seed(6)
    return snn.unroll(net, x, steps=steps)


@BY_STATIC
@pytest.mark.parametrize("batch", [1, 3])
def test_before_a_network_a_code_makes_all_steps(code, batch):
    x = numbers(batch, 4)
    spk = seeded(code, x)
    assert torch.equal(unrolled(nn.Sequential(code.module(), *body()), x), snn.unroll(body(), spk))


@BY_STATIC
def test_the_same_where_the_static_input_is_repeated(code):
    """A layer that draws makes `unroll` repeat it; here it draws nothing that matters."""
    x = numbers(3, 4)
    net = nn.Sequential(nn.Dropout(1e-9), code.module(), *body())
    got = snn.unroll(net, x, steps=T)
    assert got.shape == (T, 3, 6)
    if not code.random:
        assert torch.equal(got, snn.unroll(body(), code(x)))


def test_a_code_may_stand_behind_stateless_layers():
    x, scale = numbers(3, 8), nn.Sequential(nn.Linear(8, 4), nn.Sigmoid())
    spk = spikegen.phase(scale(x), T)
    assert torch.equal(unrolled(nn.Sequential(*scale, spikegen.Phase(T), *body()), x), snn.unroll(body(), spk))


@pytest.mark.parametrize("encode", [spikegen.Rate(T), spikegen.Phase(T)], ids=lambda m: type(m).__name__)
def test_what_stands_before_a_code_runs_once_and_not_at_every_step(encode):
    rows, squash = [], nn.Sigmoid()
    squash.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    unrolled(nn.Sequential(squash, encode, *body()), numbers(3, 4))
    assert rows == [3]


def test_a_population_is_flattened_for_a_linear():
    x = numbers(3, 4)
    net = nn.Sequential(spikegen.Population(T, 5), nn.Flatten(), *body(20))
    assert torch.equal(unrolled(net, x), snn.unroll(body(20), spikegen.population(x, T, 5).flatten(2)))


@pytest.mark.parametrize("steps", [1, T])
def test_a_code_of_as_many_steps_as_there_are(steps):
    net = nn.Sequential(spikegen.Latency(steps, normalize=True), *body())
    assert unrolled(net, numbers(3, 4), steps).shape == (steps, 3, 6)


def test_delta_takes_a_sequence():
    x = numbers(T, 3, 4)
    got = unrolled(nn.Sequential(spikegen.Delta(0.2), *body()), x, steps=None)
    assert torch.equal(got, snn.unroll(body(), spikegen.delta(x, 0.2)))


def test_delta_of_a_static_input_fires_at_the_first_step():
    x = numbers(3, 4)
    got = unrolled(nn.Sequential(spikegen.Delta(0.2), *body()), x)
    assert torch.equal(got, snn.unroll(body(), spikegen.delta(x.expand(T, 3, 4), 0.2)))


def test_rate_conv_draws_anew_at_every_step_in_a_loop_and_unrolled():
    x, net = torch.full((3, 40), 0.5), nn.Sequential(spikegen.RateConv())
    torch.manual_seed(6)
    looped = torch.stack([net(x) for _ in range(T)])
    assert torch.equal(unrolled(net, x), looped)
    assert len(looped.unique(dim=0)) == T


def test_another_number_of_steps_is_refused():
    net = nn.Sequential(spikegen.Rate(7), *body())
    with pytest.raises(ValueError, match=r"'0' \(Rate\) generates 7 steps, but the network is unrolled over 10"):
        unrolled(net, numbers(3, 4))


def test_an_input_that_changes_is_refused():
    net = nn.Sequential(spikegen.Rate(T), *body())
    with pytest.raises(ValueError, match=r"changes from step to step; encode before .* snn.unroll\(net, encode\(x\)\)"):
        unrolled(net, numbers(T, 3, 4), steps=None)


def test_what_the_function_refuses_is_reported_unrolled_too():
    net = nn.Sequential(spikegen.Phase(T), *body())
    with pytest.raises(ValueError, match=r"phase expects data in \[0, 1\], got"):
        unrolled(net, numbers(3, 4) + 1)
