"""state_quant against snnTorch's, over the product of its options."""

import inspect
from itertools import product

import pytest
import torch
from torch import Tensor

import spikeloom as snn
from spikeloom.functional import quant

from ..oracle import assert_close
from .running import Case, layer, snntorch

theirs = pytest.importorskip("snntorch.functional.quant")

OPTIONS = list(
    product((1, 2, 3, 4, 5, 6, 7, 8), (True, False), (True, False), (0.5, 1), (0, 0.3), (0.1, 0.2), (None, 0.4, 1.5))
)


def values(levels: Tensor) -> Tensor:
    """Values over and beyond the levels; none half-way between two, where rounding decides."""
    x = torch.cat((torch.linspace(-1.6, 1.6, 700), 1 + 0.1 * torch.randn(300), 0.1 * torch.randn(300)))
    halfway = (levels[1:] + levels[:-1]) / 2
    return x[(x[:, None] - halfway).abs().amin(1) > 2e-6]


@pytest.mark.parametrize("bits", range(1, 9))
def test_same_values_and_gradients(bits):
    for options in (each for each in OPTIONS if each[0] == bits):
        ours, peer = quant.state_quant(*options), theirs.state_quant(*options)
        x = values(ours.levels()).requires_grad_()
        y = x.detach().clone().requires_grad_()
        got, wanted = ours(x), peer(y)
        assert_close(got, wanted, f"values with {options}")
        if options[1]:
            assert torch.equal(got, wanted), f"uniform levels differ in their last bits with {options}"
        cotangent = torch.linspace(-1, 1, len(x))
        grads = (torch.autograd.grad((out * cotangent).sum(), each)[0] for out, each in ((got, x), (wanted, y)))
        assert_close(*grads, f"gradients with {options}")


@pytest.mark.parametrize("bits", [9, 10])
@pytest.mark.parametrize("centered", [True, False])
def test_more_bits_have_the_multiplier_of_eight(bits, centered):
    ours, peer = (library.state_quant(bits, False, centered) for library in (quant, theirs))
    x = torch.linspace(-1.3, 1.3, 500)
    assert_close(ours(x), peer(x), "values")


def test_the_arguments_have_the_same_names_order_and_defaults():
    ours, peer = (inspect.signature(library.state_quant).parameters.values() for library in (quant, theirs))
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in peer]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_a_quantised_layer_gives_the_same_spikes(bits, uniform, reset):
    runs = []
    for library in (quant, theirs):
        options = {"state_quant": library.state_quant(bits, uniform), "reset_mechanism": reset}
        lif = layer(snn if library is quant else snntorch, Case(options))
        x = torch.rand(12, 3, 5, generator=torch.Generator().manual_seed(5)) * 0.7
        mem, out = lif.init_leaky(), []
        for x_t in x:
            spk, mem = lif(x_t, mem)
            out += [spk, mem]
        runs.append(torch.stack(out))
    assert_close(*runs, "spikes and membranes")
    assert runs[0][::2].sum() > 0
