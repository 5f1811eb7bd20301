"""What a neuron shows of its arguments: to type checkers, to `help` and in `print(net)`."""

import inspect
from typing import get_type_hints

import pytest
import torch

import spikeloom as snn
from spikeloom.functional.quant import state_quant
from spikeloom.neurons import literature

TYPED = [cls for cls in vars(literature).values() if isinstance(cls, type) and getattr(cls, "signature", None)]


@pytest.mark.parametrize("cls", TYPED, ids=lambda cls: cls.__name__)
def test_a_constructor_states_the_parameters_and_defaults_of_its_equation(cls):
    typed = [p for p in inspect.signature(cls.__init__).parameters.values() if p.name not in ("self", "options")]
    given = [p for p in cls.signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in typed] == [(p.name, p.default) for p in given]


@pytest.mark.parametrize("cls", TYPED, ids=lambda cls: cls.__name__)
def test_the_typed_options_are_those_of_the_layer(cls):
    options = cls.__init__.__annotations__["options"].__args__[0]
    assert set(get_type_hints(options)) == {
        p.name for p in cls.signature.parameters.values() if p.kind is p.KEYWORD_ONLY
    }


def test_a_docstring_lists_states_and_options_before_the_source():
    assert "\n\nStates, in order: syn, mem, wait; each [B, *N]" in snn.CuBaLIF.__doc__
    assert "spike_grad, surrogate_disable, init_hidden, output, decay" in snn.CuBaLIF.__doc__
    assert snn.CuBaLIF.__doc__.index("By keyword: learn") < snn.CuBaLIF.__doc__.index("Source:")


SHOWN = {
    "Leaky(beta=0.9)": lambda: snn.Leaky(0.9),
    "Leaky(beta=0.9, init_hidden=True, output=True)": lambda: snn.Leaky(0.9, init_hidden=True, output=True),
    "Leaky(beta=Tensor[128], threshold=0.5, learn_beta=True)": lambda: snn.Leaky(
        torch.rand(128), threshold=0.5, learn_beta=True
    ),
    "Leaky(beta=0.9, spike_grad=fast_sigmoid(slope=10))": lambda: snn.Leaky(
        0.9, spike_grad=snn.surrogate.fast_sigmoid(10)
    ),
    "Leaky(beta=0.9, learn_beta=True, decay='tau')": lambda: snn.Leaky(0.9, learn_beta=True, decay="tau"),
    "Synaptic(alpha=0.9, beta=0.8, reset_mechanism='zero')": lambda: snn.Synaptic(0.9, 0.8, reset_mechanism="zero"),
    "Lapicque(beta=0.980199, R=5.0, C=0.1, time_step=0.01)": lambda: snn.Lapicque(R=5, C=0.1, time_step=0.01),
    "NoisyLeaky(beta=0.9, sigma=0.3, learn_sigma=True)": lambda: snn.NoisyLeaky(0.9, sigma=0.3, learn_sigma=True),
    "ALIF(learn=('beta', 'rho'))": lambda: snn.ALIF(learn=("rho", "beta")),
    "ParametricLIF()": snn.ParametricLIF,
    "ParametricLIF(learn=(), reset_mechanism='subtract')": lambda: snn.ParametricLIF(
        learn=(), reset_mechanism="subtract"
    ),
}


@pytest.mark.parametrize("text", SHOWN)
def test_a_repr_shows_the_arguments_that_are_required_or_not_the_default(text):
    assert repr(SHOWN[text]()) == text


def test_a_repr_of_a_recurrent_layer_and_of_a_quantized_state():
    assert "beta=0.9, linear_features=5\n" in repr(snn.RLeaky(0.9, linear_features=5))
    alif = snn.RALIF(V=0.5, all_to_all=False, learn="beta", learn_recurrent=False)
    assert "learn=('beta',), V=0.5, all_to_all=False, learn_recurrent=False\n" in repr(alif)
    assert "state_quant=state_quant(num_bits=4" in repr(snn.Leaky(0.9, state_quant=state_quant(4)))
    assert "kernel_size=3, threshold=0.1\n" in repr(snn.SConv2dLSTM(1, 2, 3, threshold=0.1))


def test_a_repr_of_a_subclass_shows_the_arguments_that_it_passes_on():
    class Counting(snn.Leaky):
        def __init__(self, count, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.count = count

    assert repr(Counting(4, beta=0.5)) == "Counting(beta=0.5, count=4)"


def test_a_repr_follows_what_is_assigned():
    lif = snn.Leaky(0.9)
    lif.beta = torch.tensor(0.5)
    lif.reset_mechanism = "none"
    assert repr(lif) == "Leaky(beta=0.5, reset_mechanism='none')"
