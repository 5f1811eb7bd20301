"""Our Leaky against that of snnTorch 1.0.0 over the product of its options: the same numbers, the same gradients."""

import pytest
import torch

import spikeloom as snn

from ..each import for_each
from ..oracle import assert_same
from .running import Case, at_once, by_steps, inputs, layer, outcome, snntorch, spread

RESETS = ("subtract", "zero", "none")
KEEPING = {
    "mem by hand": {},
    "mem by hand, output": {"output": True},
    "init_hidden": {"init_hidden": True},
    "init_hidden, output": {"init_hidden": True, "output": True},
}
LEARNING = {
    "nothing": {},
    "beta": {"learn_beta": True},
    "threshold": {"learn_threshold": True},
    "factor": {"learn_graded_spikes_factor": True},
    "everything": {"learn_beta": True, "learn_threshold": True, "learn_graded_spikes_factor": True},
}
VALUES = {
    "numbers": {},
    "graded": {"graded_spikes_factor": 1.7},
    "per neuron": {
        "beta": spread(0.3, 1.0, 4),
        "threshold": spread(0.4, 1.2, 4),
        "graded_spikes_factor": spread(0.5, 2.0, 4),
    },
    "a number in a vector": {"beta": torch.tensor([0.7]), "threshold": torch.tensor([0.6])},
}
SHAPES = {
    "a vector": (5,),
    "one neuron": (1, 1),
    "a batch": (3, 4),
    "images": (2, 3, 4, 5),
    "a batch of none": (0, 4),
}
SURROGATES = (
    ("straight_through_estimator",),
    ("triangular", 0.5),
    ("fast_sigmoid", 10),
    ("atan", 3.0),
    ("heaviside",),
    ("sigmoid", 8),
    ("spike_rate_escape", 2, 5),
    ("SFS", 5, 0.2),
    ("custom_surrogate", lambda x, grad, spikes: grad * torch.exp(-x.abs()) + spikes * 0.1),
)


@pytest.mark.parametrize("values", VALUES)
def test_the_inputs_make_some_neurons_fire_and_not_all(values):
    """Guards the tests below: without spikes they would compare little."""
    case = Case(VALUES[values])
    spikes = outcome(layer(snn, case), case).spikes["spk"] > 0
    assert 0.1 < spikes.float().mean() < 0.6


def assert_alike(case: Case) -> None:
    assert_same(outcome(layer(snn, case), case), outcome(layer(snntorch, case), case))


@pytest.fixture
def on_the_loop():
    """The whole product runs on the plain loop, which compiles nothing; that kernels agree with it is tested apart."""
    with snn.backend("loop"):
        yield


@pytest.mark.usefixtures("on_the_loop")
@for_each("delay", [True, False])
@for_each("reset", RESETS)
@for_each("values", VALUES)
@pytest.mark.parametrize("learning", LEARNING)
@pytest.mark.parametrize("keeping", KEEPING)
def test_the_product_of_the_options(keeping, learning, values, reset, delay):
    options = KEEPING[keeping] | LEARNING[learning] | VALUES[values]
    assert_alike(Case({**options, "reset_mechanism": reset, "reset_delay": delay}))


CASES = {
    **{f"shape: {name}": Case({"learn_beta": True}, shape=shape) for name, shape in SHAPES.items()},
    **{f"{r} on images": Case({"reset_mechanism": r, "learn_threshold": True}, shape=(2, 3, 4, 5)) for r in RESETS},
    **{f"{s[0]}": Case({"spike_grad": s, "learn_beta": True}) for s in SURROGATES},
    **{
        f"immediate {r} through {s}": Case({"spike_grad": (s, 5), "reset_mechanism": r, "reset_delay": False})
        for r, s in zip(RESETS, ("fast_sigmoid", "sigmoid", "fast_sigmoid"), strict=True)
    },
    **{
        f"membrane detached, {name}": Case(options | {"learn_beta": True}, detach=True)
        for name, options in KEEPING.items()
    },
    "a value per channel": Case(
        {"beta": spread(0.2, 0.9, 3, 1, 1), "threshold": spread(0.4, 1.0, 3, 1, 1), "learn_beta": True},
        shape=(2, 3, 4, 5),
    ),
    "a value per pixel": Case({"beta": spread(0.2, 0.9, 3, 4, 5), "learn_beta": True}, shape=(2, 3, 4, 5)),
    "beta beyond one": Case({"beta": 1.3, "learn_beta": True}),
    "beta below zero": Case({"beta": -0.4, "learn_beta": True}),
    "beta of zero and one": Case({"beta": torch.tensor([0.0, 1.0, 0.5, 0.5]), "learn_beta": True}),
    "integers": Case({"beta": 1, "threshold": 1}),
    "a threshold of zero": Case({"threshold": 0.0}),
    "a negative threshold": Case({"threshold": -0.3, "learn_threshold": True}),
    "a factor of zero": Case({"graded_spikes_factor": 0.0, "learn_graded_spikes_factor": True}),
    "a factor of zero, immediate": Case({"graded_spikes_factor": 0.0, "reset_delay": False}),
    "no gradient through spikes": Case({"surrogate_disable": True, "learn_threshold": True}),
    "graded, immediate zero": Case(
        {
            "graded_spikes_factor": 1.7,
            "learn_graded_spikes_factor": True,
            "reset_mechanism": "zero",
            "reset_delay": False,
        }
    ),
    "many steps": Case({"learn_beta": True}, steps=60),
    "strong input": Case({"learn_threshold": True}, scale=20.0),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_option_after_the_other_on_the_fastest_backend(case):
    assert_alike(case)


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if not case.detach and "spike_grad" not in case.options]
)
def test_sequence_mode_gives_what_the_step_loop_of_snntorch_gives(name):
    """Surrogates of sequences are compared with the loop, in tests/engine/run."""
    case = CASES[name]
    assert_same(outcome(layer(snn, case), case, at_once), outcome(layer(snntorch, case), case))


@pytest.mark.filterwarnings("ignore:.*[Ii]nhibition")
@pytest.mark.parametrize("run", [by_steps, at_once], ids=["by steps", "at once"])
@pytest.mark.parametrize("delay", [True, False], ids=["delayed", "immediate"])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("graded", [1.0, 1.7])
def test_inhibition_lets_the_same_neuron_fire(run, reset, delay, graded):
    options = {"inhibition": True, "reset_mechanism": reset, "reset_delay": delay, "graded_spikes_factor": graded}
    case = Case(options, scale=2.0)
    assert_same(outcome(layer(snn, case), case, run), outcome(layer(snntorch, case), case))


def quantised(mem: torch.Tensor) -> torch.Tensor:
    """To eighths, with the gradient of the identity."""
    return mem + (torch.round(8 * mem) / 8 - mem).detach()


@pytest.mark.parametrize("run", [by_steps, at_once], ids=["by steps", "at once"])
@pytest.mark.parametrize("delay", [True, False], ids=["delayed", "immediate"])
@pytest.mark.parametrize("reset", RESETS)
def test_state_quant_sees_the_same_membranes(run, reset, delay):
    case = Case({"state_quant": quantised, "reset_mechanism": reset, "reset_delay": delay, "learn_beta": True})
    assert_same(outcome(layer(snn, case), case, run), outcome(layer(snntorch, case), case))


@pytest.mark.parametrize("delay", [True, False], ids=["delayed", "immediate"])
@pytest.mark.parametrize("reset", RESETS)
def test_nan_and_inf_flow_as_they_do_there(reset, delay):
    case = Case({"reset_mechanism": reset, "reset_delay": delay})
    xs = inputs(case).detach()
    xs[2, 0], xs[3, 1], xs[3, 2] = torch.nan, torch.inf, -torch.inf
    with torch.no_grad():
        ours, theirs = (by_steps(layer(library, case), xs, False) for library in (snn, snntorch))
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], equal_nan=True)


def test_a_layer_that_is_given_no_membrane_goes_on_from_its_last_as_there():
    case = Case()
    for library in (snn, snntorch):
        neuron, xs = layer(library, case), inputs(case)
        together = torch.stack([neuron(x)[1] for x in xs.unbind(0)])
        by_hand = by_steps(layer(library, case), inputs(case), False)[1]
        torch.testing.assert_close(together, by_hand)
        (grad,) = torch.autograd.grad(together[-1].sum(), xs)
        assert bool((grad[0] != 0).all())


def test_the_last_reset_signal_is_an_attribute_as_there():
    case = Case(scale=2.0)
    ours, theirs = layer(snn, case), layer(snntorch, case)
    for x in inputs(case).detach():
        ours(x)
        theirs(x)
        assert torch.equal(ours.reset, theirs.reset)


@pytest.mark.parametrize("reset", RESETS)
def test_the_methods_give_what_theirs_give(reset):
    case = Case({"reset_mechanism": reset, "graded_spikes_factor": 1.3, "threshold": 0.5})
    ours, theirs = layer(snn, case), layer(snntorch, case)
    mem = inputs(case).detach()[0]
    assert torch.equal(ours.fire(mem), theirs.fire(mem))
    assert torch.equal(ours.mem_reset(mem), theirs.mem_reset(mem))
    assert torch.equal(ours.fire_inhibition(3, mem), theirs.fire_inhibition(3, mem))
    assert ours.reset_mechanism == theirs.reset_mechanism
    assert ours.reset_dict == theirs.reset_dict
