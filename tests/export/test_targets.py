"""Profiles of readers: other values of the same neuron, and refusals of what the reader would drop or misread."""

import copy
import json
import warnings
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom.conformance import ALL, Cell, measure, table
from spikeloom.conformance.cases import CASES
from spikeloom.conformance.readers import READERS

from .graphs import NIR_RESET, leaky, outputs

X = torch.rand(2, 4)


def exported(net, target, x=X):
    return snn.export_to_nir(nn.Sequential(*net), x, target=target)


def test_each_reader_gets_the_values_that_it_reads_right():
    dt = 1e-4
    node = exported([leaky(0.75, 3.0)], "norse").nodes["0"]  # it ignores r
    assert np.allclose(node.r, 1)
    assert np.allclose(node.v_threshold, 3.0 / 4)
    node = exported([snn.ParametricLIF(0.75, 0.5, init_hidden=True)], "snntorch").nodes["0"]  # it takes r = tau / dt
    assert np.allclose(node.r, node.tau / dt)
    assert np.allclose(node.v_threshold, 2.0)
    for target, kind, r in (("snntorch", nir.LIF, 2.0**26), ("spikingjelly", nir.IF, 1e4), ("norse", nir.IF, 1.0)):
        node = exported([snn.IF(2.0, **NIR_RESET)], target).nodes["0"]
        assert type(node) is kind
        assert np.allclose(node.r, r)
        assert np.allclose(node.v_threshold, 2.0)
    assert np.float32(1) - np.float32(dt) / exported([snn.IF(**NIR_RESET)], "snntorch").nodes["0"].tau[0] == 1
    node = exported([snn.LI(0.75, init_hidden=True)], "sinabs").nodes["0"]  # its tau is in steps, exponential
    assert np.allclose(np.exp(-1 / node.tau), 0.75)
    assert np.allclose(node.r, 1)
    flatten = exported([nn.Flatten()], "norse", torch.rand(1, 2, 3)).nodes["0"]  # it counts the batch
    assert (flatten.start_dim, flatten.end_dim) == (-2, -1)
    assert type(exported([nn.Linear(4, 2, bias=False)], "sinabs").nodes["0"]) is nir.Affine
    graph = exported([nn.Linear(4, 4), snn.RLeaky(0.5, linear_features=4, **NIR_RESET)], "snntorch")
    assert isinstance(graph.nodes["1"], nir.NIRGraph)
    inner = graph.nodes["1"].nodes["w_rec"]
    assert not inner.bias.any()  # moved to the layer before: readers leave it out at the first step
    assert isinstance(exported([snn.Leaky(0.9, init_hidden=True)], "spyx").nodes["0"], nir.LIF)


REFUSED = {
    "Rockpool 3.1.0, which expects a tau_mem": ("rockpool", lambda: leaky()),
    "Rockpool 3.1.0, which has no Scale": ("rockpool", lambda: snn.GradedSpikes(4, 1.0, dim=1)),
    "Sinabs 3.1.3, which reads the tau of LIF as steps": ("sinabs", lambda: leaky()),
    "Sinabs 3.1.3, which clamps the membrane of IF": ("sinabs", lambda: snn.IF(**NIR_RESET)),
    "Norse 1.1.0, which has no LI": ("norse", lambda: snn.LI(0.9, init_hidden=True)),
    "snnTorch 1.0.0: it supports one v_threshold": ("snntorch", lambda: leaky(0.9, torch.rand(4))),
    "SpikingJelly 2.0.0: it supports one tau": ("spikingjelly", lambda: leaky(torch.rand(4))),
    "subtracts the threshold a step later": ("spyx", lambda: leaky()),
    "Spyx 1.0.0, which subtracts the threshold of CubaLIF": ("spyx", lambda: snn.Synaptic(0.5, 0.5, init_hidden=True)),
    "LI and Threshold only together": ("spyx", lambda: snn.LI(0.9, init_hidden=True)),
    "Sinabs 3.1.3 cannot run cycles": ("sinabs", lambda: snn.RLeaky(0.9, linear_features=4, **NIR_RESET)),
    "recurrent weights without bias": ("norse", lambda: snn.RLeaky(0.9, linear_features=4, **NIR_RESET)),
    "reset_mechanism='subtract'": ("norse", lambda: snn.Leaky(0.9, init_hidden=True)),
}


def test_what_a_reader_ignores_or_misreads_is_refused_by_name():
    for match, (target, make) in REFUSED.items():
        with pytest.raises(ValueError, match=match):
            exported([make()], target)
    with pytest.raises(ValueError, match="ignores the padding"):
        exported([nn.AvgPool2d(2, 2, 1, divisor_override=1)], "norse", torch.rand(1, 1, 4, 4))
    with pytest.raises(ValueError, match="channels last"):
        exported([nn.Flatten()], "spyx", torch.rand(1, 2, 3, 3))
    with pytest.raises(ValueError, match=r"snnTorch 1.0.0 reads every graph with dt=0.0001"):
        snn.export_to_nir(leaky(), X, dt=1e-3, target="snntorch")

    class Branch(nn.Module):
        def forward(self, x):
            return x + 2 * x

    with pytest.raises(ValueError, match="branch or a sum; Spyx"):
        snn.export_to_nir(Branch(), X, target="spyx")


def test_our_reader_gets_the_network_back_from_every_profile():
    """Also where the values were changed for the reader."""
    x = torch.rand(30, 2, 4) * 3
    nets = {
        "norse": nn.Sequential(nn.Linear(4, 4), leaky(0.9), snn.RLeaky(0.5, V=0.5, all_to_all=False, **NIR_RESET)),
        "snntorch": nn.Sequential(
            nn.Linear(4, 4), snn.IF(**NIR_RESET), snn.RSynaptic(0.5, 0.5, V=0.1, all_to_all=False, **NIR_RESET)
        ),
        "spikingjelly": nn.Sequential(nn.Linear(4, 4), snn.ParametricLIF(0.7, init_hidden=True)),
        "spyx": nn.Sequential(nn.Linear(4, 4), snn.Leaky(0.9, 0.3, init_hidden=True)),
        "sinabs": nn.Sequential(nn.Linear(4, 4), snn.LI(0.9, init_hidden=True)),
    }
    for target, net in nets.items():
        again = snn.import_from_nir(snn.export_to_nir(net, x[0], target=target))
        assert torch.equal(outputs(again, x), outputs(net, x)), target


def test_snntorch_itself_computes_the_same():
    """It is installed with the tests; the other readers run by `make conformance`."""
    for name in ("LIF", "IF", "CubaLIF", "Affine, LIF, recurrent", "AvgPool2d", "residual sum"):
        (case,) = [case for case in CASES if case.name == name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cell = measure(case, READERS["snntorch"], steps=40, batch=2)
        assert (cell.error, cell.refusal, cell.differing) == ("", "", 0), name
        assert cell.values >= 2000


def test_the_conformance_table_shows_what_differs():
    case = CASES[0]

    def wrong(graph, x, dt):
        out = copy.deepcopy(x).numpy()
        out[:] = 0
        return out

    reader = READERS["norse"]
    wrong_reader = type(reader)("norse", "norse", wrong)
    cell = measure(case, wrong_reader, steps=10, batch=2)
    assert cell.values == 2000
    assert 0 < cell.differing < 2000
    failing = measure(case, type(reader)("norse", "norse", lambda *_: 1 / 0), steps=10, batch=2)
    assert "ZeroDivisionError" in failing.error
    refused = measure(case, READERS["rockpool"], steps=10, batch=2)
    rows = table([cell, Cell(case.name, "rockpool", refusal=refused.refusal)], {"norse": "1", "rockpool": "3"})
    assert rows[2] == f"| LIF | {cell.differing:,} | (1) |"
    assert rows[-1].startswith("1. Rockpool 3.1.0")
    assert set(ALL) == {"norse", "rockpool", "sinabs", "snntorch", "spikingjelly", "spyx", "brian2", "nest"}


def test_the_page_shows_the_stored_table():
    """`python -m spikeloom conformance --out docs/conformance.json` stores it."""
    docs = Path(__file__).parent.parent.parent / "docs"
    stored = json.loads((docs / "conformance.json").read_text())
    cells = [Cell(**cell) for cell in stored["cells"]]
    assert "\n".join(table(cells, stored["versions"])) in (docs / "nir.md").read_text()
    assert {cell.case for cell in cells} == {case.name for case in CASES}
    assert not [cell for cell in cells if cell.error]
    differing = {(cell.case, cell.reader): cell.largest for cell in cells if cell.differing}
    assert all(largest < 1e-6 for largest in differing.values())  # sums in another order, and no spikes
    assert {case for case, _ in differing} == {"Conv2d", "Conv2d in two groups"}
