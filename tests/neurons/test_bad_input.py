"""What cannot run is refused in a sentence that says what to do, and leaves the layer as it was."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeloom as snn
from spikeloom import surrogate

from .running import at_once, started, unchanged

pytestmark = pytest.mark.filterwarnings("ignore:inhibition", "ignore:.*is dropped")

X = torch.full((3, 4), 0.5)


@dataclass(frozen=True)
class Bad:
    """A call that must fail.

    Args:
        error: what is raised.
        message: a part of the message.
        x: the input of one step.
        mem: passed by hand.
        options: of the layer, which has run before on [3, 4].
    """

    error: type[Exception]
    part_of_message: str
    x: Any = field(default_factory=lambda: X)
    mem: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def failing(after: int) -> Callable[[Tensor], Tensor]:
    """A function of the user's that fails after so many calls."""
    calls = []

    def fail(u: Tensor) -> Tensor:
        calls.append(u)
        if len(calls) > after:
            raise ZeroDivisionError("the user's own")
        return (u > 0).float()

    return fail


ANYWHERE = {
    "complex input": Bad(TypeError, "dtype torch.complex64; pass real numbers", X + 0j),
    "beta for other neurons": Bad(ValueError, r"beta of shape \(5,\)", torch.rand(2, 6), options={"beta": "late"}),
    "inhibition of a vector": Bad(
        ValueError, r"dimension 1.*inhibition=False", torch.rand(4), options={"inhibition": True}
    ),
}
STEP = {
    "a list": Bad(TypeError, "type list; pass a torch.Tensor", [1.0, 2.0]),
    "the tuple of a neuron": Bad(TypeError, "tuple of a neuron.*init_hidden=True.*only the spikes", (X, X)),
    "a sparse tensor": Bad(TypeError, r"layout torch.sparse_coo; pass a dense tensor, x.to_dense\(\)", X.to_sparse()),
    "nothing": Bad(TypeError, "type NoneType; pass a torch.Tensor", None),
    "mem is a number": Bad(TypeError, "mem of type float; pass a tensor", mem=(0.5,)),
    "mem is complex": Bad(TypeError, "mem of dtype torch.complex64", mem=(X + 0j,)),
    "mem on another device": Bad(ValueError, "mem on meta and got an input on cpu; move", mem=(X.to("meta"),)),
    "mem and init_hidden": Bad(TypeError, "init_hidden=True.*only the input", mem=(X,), options={"init_hidden": True}),
    "mem and init_hidden and output": Bad(
        TypeError, "stores its own state", mem=(X,), options={"init_hidden": True, "output": True}
    ),
}


@pytest.mark.parametrize("name", STEP | ANYWHERE)
def test_a_step_that_cannot_run_says_why_and_changes_nothing(name):
    bad = (STEP | ANYWHERE)[name]
    lif = prepared(bad)
    with unchanged(lif), pytest.raises(bad.error, match=bad.part_of_message):
        lif(bad.x, *bad.mem)


@pytest.mark.parametrize("name", ANYWHERE)
def test_a_sequence_that_cannot_run_says_why_and_changes_nothing(name):
    bad = ANYWHERE[name]
    lif = prepared(bad)
    with unchanged(lif), pytest.raises(bad.error, match=bad.part_of_message):
        at_once(lif, torch.stack([bad.x] * 3))


def prepared(bad: Bad) -> snn.Leaky:
    """A layer with a state; a parameter for other neurons comes after it."""
    options = {key: value for key, value in bad.options.items() if value != "late"}
    lif = started(**options)
    if len(options) < len(bad.options):
        lif.beta = torch.rand(5)
    return lif


def test_an_error_in_the_user_s_spike_function_changes_nothing():
    lif = started(init_hidden=True)
    lif.spike_grad = failing(after=1)  # the reset of a step is the first call, its spikes are the second
    with unchanged(lif), pytest.raises(ZeroDivisionError):
        lif(torch.rand(3, 4))


def test_an_error_of_the_user_s_in_the_middle_of_a_sequence_takes_back_the_steps_before_it():
    lif = started(init_hidden=True)
    lif.spike_grad = failing(after=5)
    with unchanged(lif), pytest.raises(ZeroDivisionError):
        at_once(lif, torch.rand(6, 3, 4))


class Overriding(snn.Leaky):
    """Fails in the fourth step of its own forward."""

    calls = 0

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Any:
        self.calls += 1
        if self.calls > 3:
            raise ZeroDivisionError("the user's own")
        return super().forward(input_, mem)


def test_an_error_in_the_middle_of_a_user_s_forward_takes_back_the_steps_before_it():
    lif = Overriding(0.9, init_hidden=True)
    lif(torch.rand(3, 4))
    with unchanged(lif), pytest.raises(ZeroDivisionError):
        at_once(lif, torch.rand(5, 3, 4))


def test_a_forced_backend_that_refuses_changes_nothing():
    lif = started(inhibition=True)
    with unchanged(lif), snn.backend("numba"), pytest.raises(RuntimeError, match=r"'numba' was selected.*inhibition"):
        lif(X)


ARGUMENTS = {
    "unknown reset": ({"reset_mechanism": "hard"}, ValueError, "'hard'; choose one of 'subtract', 'zero', 'none'"),
    "reset is a number": ({"reset_mechanism": 0}, ValueError, "choose one of"),
    "reset is a list": ({"reset_mechanism": []}, ValueError, "choose one of"),
    "beta is a word": ({"beta": "0.9"}, TypeError, "beta='0.9'; pass a number or a tensor"),
    "beta is nothing": ({"beta": None}, TypeError, "beta=None; pass a number"),
    "threshold is complex": ({"threshold": 1j}, TypeError, "threshold of dtype torch.complex64; pass real"),
    "spike_grad is a number": ({"spike_grad": 25}, TypeError, "spike_grad=25; pass a function"),
    "state_quant is no function": ({"state_quant": True}, TypeError, "state_quant=True; pass a function"),
    "an argument too many": ({"betta": 0.9}, TypeError, "betta"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_make_no_sense_are_refused_and_leave_nothing_behind(name):
    options, error, part_of_message = ARGUMENTS[name]
    before = list(snn.SpikingNeuron.instances)
    with pytest.raises(error, match=part_of_message):
        snn.Leaky(**{"beta": 0.9, **options})
    assert list(snn.SpikingNeuron.instances) == before
    snn.Leaky.reset_hidden()


@pytest.mark.parametrize("mode", ["hard", 1, None])
def test_an_unknown_reset_is_refused_also_when_assigned(mode):
    lif = started()
    with unchanged(lif), pytest.raises(ValueError, match="choose one of"):
        lif.reset_mechanism = mode


def test_a_checkpoint_with_an_unknown_reset_is_refused_and_loads_nothing_into_the_layer():
    lif = started(beta=0.5)
    theirs = snn.Leaky(0.7).state_dict() | {"reset_mechanism_val": torch.tensor(7)}
    with unchanged(lif), pytest.raises(RuntimeError, match="reset_mechanism_val is none of"):
        lif.load_state_dict(theirs)


@pytest.mark.parametrize("kind", [snn.LIF, snn.SpikingNeuron])
def test_a_base_class_has_no_forward_and_says_which_layer_to_use(kind):
    with pytest.raises(NotImplementedError, match="Leaky"):
        kind(0.9)(X)


@pytest.mark.parametrize("backend", ["numba", "loop"])
@pytest.mark.parametrize("name", ["beta", "threshold", "graded_spikes_factor"])
def test_a_single_number_on_another_device_is_reported_before_a_kernel_reads_it(name, backend):
    lif = started()
    setattr(lif, name, getattr(lif, name).to("meta"))
    part_of_message = f"{name} on meta and got an input on cpu; move"
    with snn.backend(backend), unchanged(lif), pytest.raises(ValueError, match=part_of_message):
        lif(torch.rand(3, 4))


class Backward(torch.autograd.Function):
    """A surrogate written by hand."""


NO_SPIKE_FUNCTION = {
    "a factory": (
        surrogate.fast_sigmoid,
        r"surrogate.fast_sigmoid, which makes .*spike_grad=surrogate.fast_sigmoid\(\)",
    ),
    "one with an argument": (surrogate.custom_surrogate, r"spike_grad=surrogate.custom_surrogate\(f\)"),
    "a Function": (Backward, "got spike_grad=Backward, an autograd.Function; pass spike_grad=Backward.apply"),
}


@pytest.mark.parametrize("case", NO_SPIKE_FUNCTION)
def test_what_makes_a_spike_function_is_not_one(case):
    given, message = NO_SPIKE_FUNCTION[case]
    lif = snn.Leaky(0.9)
    for call in (
        lambda: snn.Leaky(0.9, spike_grad=given),
        lambda: snn.ALIF(spike_grad=given),
        lambda: snn.LeakyParallel(2, 3, spike_grad=given),
        lambda: setattr(lif, "spike_grad", given),
    ):
        with pytest.raises(TypeError, match=message):
            call()
    assert lif.spike_grad == surrogate.atan()
    for right in (surrogate.fast_sigmoid(), surrogate.FastSigmoid.apply, lambda u: (u > 0).float()):
        assert snn.Leaky(0.9, spike_grad=right)(X)[0].shape == X.shape


def test_a_function_that_returns_no_spikes_is_named_at_the_first_step():
    with pytest.raises(TypeError, match="returned a Spike instead of spikes; if it makes spike functions, call it"):
        snn.unroll(snn.Leaky(0.9, spike_grad=lambda slope: surrogate.atan()), X)


@pytest.mark.parametrize("nothing", [None, 0.0])
def test_a_state_that_is_no_tensor_is_refused_where_it_is_assigned(nothing):
    lif = started(init_hidden=True)
    before = lif.mem
    with pytest.raises(TypeError, match=f"Leaky got mem of type {type(nothing).__name__}; pass a tensor, or call"):
        lif.mem = nothing
    assert lif.mem is before


def test_a_tuple_between_layers_of_an_unrolled_network_is_explained():
    net = torch.nn.Sequential(snn.Leaky(0.9, init_hidden=True, output=True), torch.nn.Linear(4, 2))
    with pytest.raises(TypeError, match="tuple") as caught:
        at_once(net, torch.rand(3, 2, 4))
    assert any("Pass on only the spikes" in note for note in caught.value.__notes__)


def test_decays_outside_of_0_to_1_have_no_unconstrained_form():
    """They became NaN, or another decay."""
    for decay in ("sigmoid", "tau"):
        for beta in (1.5, -0.5, torch.tensor([0.5, 2.0])):
            with pytest.raises(
                ValueError, match=f"Leaky got beta=.*decay='{decay}'; pass a decay per step from 0 to 1"
            ):
                snn.Leaky(beta, decay=decay)
        for beta in (0.0, 0.5, 1.0):
            assert snn.Leaky(beta, decay=decay).beta.item() == beta
