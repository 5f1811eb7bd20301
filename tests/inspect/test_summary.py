"""The summary of a network: what it consists of, how much it fires, and no trace of having asked."""

import math

import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom import utils

from ..network.networks import NETWORKS, leaky


def images() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        leaky(threshold=0.3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 5),
        leaky(threshold=0.3, output=True, learn_beta=True, learn_threshold=True),
    )


def test_rows_show_shapes_neurons_states_and_parameters():
    summary = utils.summary(images(), torch.rand(8, 2, 1, 6, 6))
    assert [layer.path for layer in summary.layers] == list("012345")
    assert [layer.kind for layer in summary.layers] == ["Conv2d", "Leaky", "MaxPool2d", "Flatten", "Linear", "Leaky"]
    assert [layer.shape for layer in summary.layers] == [(4, 6, 6), (4, 6, 6), (4, 3, 3), (36,), (5,), (5,)]
    assert [layer.neurons for layer in summary.layers] == [0, 144, 0, 0, 0, 5]
    assert [layer.states for layer in summary.layers] == [(), ("mem",), (), (), (), ("mem",)]
    assert [layer.parameters for layer in summary.layers] == [40, 0, 0, 0, 185, 2]
    assert [layer.backend for layer in summary.layers] == ["torch", "numba", "torch", "torch", "torch", "numba"]
    assert (summary.neurons, summary.parameters, summary.learned) == (149, 227, 227)
    assert (summary.steps, summary.batch) == (8, 2)


def test_rates_are_those_of_a_loop_over_the_steps():
    net, x = images(), torch.rand(3, 1, 6, 6)
    summary = utils.summary(net, x, steps=10)
    spikes: dict[int, list[torch.Tensor]] = {1: [], 5: []}
    for number, kept in spikes.items():
        net[number].register_forward_hook(lambda m, args, out, kept=kept: kept.append(out[0] if m.output else out))
    for _ in range(10):
        net(x)
    for number, kept in spikes.items():
        assert summary.layers[number].rate == pytest.approx(torch.stack(kept).mean().item())
        assert 0 < summary.layers[number].rate < 1
    assert all(math.isnan(layer.rate) for layer in summary.layers if not layer.neurons)


def test_the_table_ends_with_totals_over_all_neurons():
    summary = utils.summary(images(), torch.rand(8, 2, 1, 6, 6))
    lines = str(summary).splitlines()
    assert repr(summary) == str(summary)
    assert lines[0] == "8 steps of 2 rows; 227 parameters are learned"
    assert " ".join(lines[1].split()) == "layer kind output neurons states parameters firing rate runs on"
    assert lines[3].split()[:6] == ["1", "Leaky", "4x6x6", "144", "mem", "0"]
    rate = (144 * summary.layers[1].rate + 5 * summary.layers[5].rate) / 149
    assert lines[-1].split() == ["total", "149", "227", f"{rate:.1%}"]


def test_shared_and_frozen_parameters_and_those_outside_of_layers_are_in_the_total_once():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
            self.other.weight = self.one.weight
            self.one.bias.requires_grad_(False)
            self.lif = leaky()

        def forward(self, x):
            return self.lif(self.other(self.one(x * self.scale)))

    summary = utils.summary(Scaled(), torch.rand(5, 2, 4))
    assert [layer.parameters for layer in summary.layers] == [20, 20, 0]
    assert (summary.parameters, summary.learned) == (4 + 16 + 4 + 4, 4 + 16 + 4)


def test_a_neuron_on_the_loop_says_so():
    summary = utils.summary(nn.Sequential(leaky(state_quant=lambda mem: mem)), torch.rand(5, 2, 4))
    assert summary.layers[0].backend == "loop"


def test_a_bare_neuron_and_a_network_without_neurons():
    assert "(itself)" in str(utils.summary(snn.Leaky(beta=0.5), torch.rand(5, 2, 4)))
    lines = str(utils.summary(nn.Linear(4, 3), torch.rand(5, 2, 4))).splitlines()
    assert lines[-1].split() == ["total", "0", "15", "-"]


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_has_a_summary(network):
    for x, steps in ((torch.rand(4, 6), 5), (torch.rand(5, 4, 6), None), (torch.rand(0, 4, 6), None)):
        assert str(utils.summary(NETWORKS[network](), x, steps=steps)).count("\n") >= 4


def test_it_changes_nothing():
    net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(), leaky())
    net(torch.rand(4, 6)).sum().backward()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    mem, grad, drawn = net[3].mem, net[0].weight.grad.clone(), torch.get_rng_state()
    utils.summary(net, torch.ones(4, 6), steps=5)
    assert net[3].mem is mem
    assert torch.equal(net[0].weight.grad, grad)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert net.training


def test_what_cannot_be_unrolled_is_refused_in_its_sentence():
    class ByHand(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = snn.Leaky(beta=0.5)

        def forward(self, x):
            return self.lif(x, self.lif.mem)

    with pytest.raises(RuntimeError, match="'lif' \\(Leaky\\): its mem is read while the network is unrolled"):
        utils.summary(ByHand(), torch.rand(5, 2, 4))


def test_a_fused_network_is_refused_with_what_to_use():
    fused = snn.fuse(images())
    with pytest.raises(TypeError, match=r"summary got a network of spikeloom.fuse.*spikeloom.explain\(net, x\)"):
        utils.summary(fused, torch.rand(8, 2, 1, 6, 6))
