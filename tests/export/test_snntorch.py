"""Scripts for snnTorch's NIR modules run: its names, arguments, node names and return values."""

import warnings

import nir
import numpy as np
import pytest
import torch
from torch import nn

import spikeloom
from spikeloom.export_nir import export_to_nir
from spikeloom.import_nir import import_from_nir

from .graphs import around

ONES = torch.ones(10)


def built(kind, **options):
    """A network as snnTorch's own tests have it: the default reset, values per neuron."""
    return nn.Sequential(
        nn.Linear(20, 10),
        kind(beta=0.9 * ONES, threshold=ONES, init_hidden=True, **options),
        nn.Linear(10, 5),
        spikeloom.Leaky(beta=0.9 * torch.ones(5), threshold=torch.ones(5), init_hidden=True, output=True),
    )


KINDS = {
    "Leaky": lambda: built(spikeloom.Leaky),
    "RLeaky": lambda: built(spikeloom.RLeaky, V=ONES, all_to_all=False),
    "RSynaptic": lambda: built(spikeloom.RSynaptic, alpha=0.5 * ONES, V=ONES, all_to_all=False),
    "Synaptic": lambda: built(spikeloom.Synaptic, alpha=0.5),
}


@pytest.mark.parametrize("name", KINDS)
def test_export_and_import_commute(name):
    net, x = KINDS[name](), torch.rand(4, 20)
    wanted, _ = net(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = export_to_nir(net, torch.ones(4, 20), ignore_dims=[0])
    recurrent = name.startswith("R")
    middle = ["1.lif", "1.w_rec"] if recurrent else ["1"]
    assert set(graph.nodes) == {"input", "0", *middle, "2", "3", "output"}
    assert ("0", middle[0]) in graph.edges
    assert (middle[0], "2") in graph.edges
    if recurrent:
        assert isinstance(graph.nodes["1.w_rec"], nir.Linear)
        assert {("1.lif", "1.w_rec"), ("1.w_rec", "1.lif")} <= set(graph.edges)
    out, state = import_from_nir(graph)(x)
    assert torch.equal(out, wanted)
    assert "3" in state


def test_scalars_take_the_width_of_their_layer():
    net = nn.Sequential(nn.Linear(16, 128), spikeloom.Synaptic(alpha=0.5, beta=0.9, init_hidden=True, output=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        node = export_to_nir(net, torch.ones(1, 16), ignore_dims=[0]).nodes["1"]
    for field in ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"):
        assert getattr(node, field).shape == (128,)
    assert node.input_type["input"].tolist() == node.output_type["output"].tolist() == [128]


def test_an_if_node_becomes_an_ideal_integrator():
    net = import_from_nir(around(nir.IF(r=np.ones(3), v_threshold=np.ones(3)), (3,)))
    (lif,) = [module for module in net.modules() if isinstance(module, spikeloom.Leaky)]
    assert torch.all(lif.beta == 1.0)
    x = 0.0625 * torch.ones(1, 3)
    for step in range(1, 5):
        lif(x)
        assert torch.allclose(lif.mem, step * x)


def test_export_under_the_alias_approximates_as_snntorch_does(monkeypatch):
    """By the name at the top level too; snnTorch's own tests call that."""
    net, x = KINDS["Leaky"](), torch.ones(4, 20)
    with monkeypatch.context() as patch:
        patch.setattr("spikeloom.alias._ALIAS.holds", 1)  # snnTorch itself may be imported in this process
        with pytest.warns(UserWarning, match="the graph is approximate"):
            assert set(spikeloom.export_to_nir(net, x).nodes) == {"input", "0", "1", "2", "3", "output"}
        with pytest.raises(ValueError, match=r"'1' .* has reset_mechanism='subtract'"):
            spikeloom.export_to_nir(net, x, allow_approximate=False)
    with pytest.raises(ValueError, match=r"'1' .* has reset_mechanism='subtract'"):
        spikeloom.export_to_nir(net, x)


def test_the_modules_are_found_under_snntorchs_names():
    assert spikeloom.export_nir.export_to_nir is export_to_nir
    assert spikeloom.import_nir.import_from_nir is spikeloom.import_from_nir
