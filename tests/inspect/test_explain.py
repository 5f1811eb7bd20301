"""explain tells what runs on what, and leaves no trace."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import spikeloom as snn

from ..network.networks import NETWORKS, Residual, leaky


def test_rows_name_every_layer_in_the_order_of_the_forward():
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), leaky(), nn.Sequential(nn.Linear(5, 4), leaky(output=True)))
    explanation = snn.explain(net, torch.rand(4, 2, 3), steps=5)
    assert [row.path for row in explanation.rows] == ["0", "1", "2", "3.0", "3.1"]
    assert [row.kind for row in explanation.rows] == ["Flatten", "Linear", "Leaky", "Linear", "Leaky"]
    assert [row.static for row in explanation.rows] == [True, True, True, False, False]
    assert [row.backend for row in explanation.rows] == ["torch", "torch", "numba", "torch", "numba"]
    assert all(0 <= row.density <= 1 for row in explanation.rows)


def test_the_refusals_are_those_of_the_neuron():
    net = nn.Sequential(nn.Linear(6, 5), leaky(state_quant=lambda mem: mem))
    explanation = snn.explain(net, torch.rand(5, 4, 6))
    assert explanation.rows[1].backend == "loop"
    assert any("state_quant" in refusal for refusal in explanation.rows[1].refusals)
    assert "state_quant" in str(explanation)


def test_the_table_says_why_a_static_input_was_repeated():
    explanation = snn.explain(Residual(), torch.rand(4, 6), steps=5)
    assert "add combines" in explanation.repeated
    assert explanation.repeated in str(explanation) == repr(explanation)
    assert not any(row.static for row in explanation.rows)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_can_be_explained(network):
    net = NETWORKS[network]()
    for x, steps in ((torch.rand(4, 6), 5), (torch.rand(5, 4, 6), None), (torch.rand(0, 4, 6), None)):
        assert len(snn.explain(net, x, steps=steps).rows) >= 1


def test_it_changes_nothing():
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 5), leaky(), Residual(5))
    out = snn.unroll(net, torch.rand(5, 4, 6))
    out[1].sum().backward()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    states = [m.mem for m in net.modules() if isinstance(m, snn.Leaky)]
    grads = [p.grad.clone() for p in net.parameters()]
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    buffers, versions = dict(net.named_buffers()), [b._version for b in net.buffers()]
    for x, steps in ((torch.rand(4, 6), 5), (torch.rand(5, 4, 6), None)):
        torch.set_rng_state(drawn[0])
        snn.explain(net, x, steps=steps)
        assert torch.equal(torch.get_rng_state(), drawn[0])
    assert random.getstate() == drawn[1]
    assert np.array_equal(np.random.get_state()[1], drawn[2])
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert all(b is buffers[name] for name, b in net.named_buffers())
    assert versions == [b._version for b in net.buffers()]
    assert all(a is b.mem for a, b in zip(states, (m for m in net.modules() if isinstance(m, snn.Leaky)), strict=True))
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, net.parameters(), strict=True))


def test_a_refusal_leaves_no_hook_behind():
    hooks = dict(torch.nn.modules.module._global_forward_hooks)
    with pytest.raises(RuntimeError):
        snn.explain(nn.Linear(7, 2), torch.rand(5, 4, 6))
    assert hooks == dict(torch.nn.modules.module._global_forward_hooks)


def test_explanations_of_equal_runs_are_equal():
    net, x = nn.Sequential(nn.Linear(3, 4), snn.Leaky(0.9, init_hidden=True)), torch.rand(5, 2, 3)
    snn.reset(net)
    first = snn.explain(net, x)
    snn.reset(net)
    assert snn.explain(net, x) == first
