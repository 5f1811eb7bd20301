"""A module of the user's that is assigned to `recurrent`: step by step and unrolled."""

import copy

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn

from .running import by_steps


class Doubling(nn.Module):
    """Has no weights."""

    def forward(self, spk: Tensor) -> Tensor:
        return 2 * spk - 0.1


MODULES = {
    "a layer": lambda: nn.Linear(4, 4, bias=False),
    "a Sequential of a layer": lambda: nn.Sequential(nn.Linear(4, 4)),
    "a network": lambda: nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.LayerNorm(7), nn.Linear(7, 4)),
    "a network with a neuron": lambda: nn.Sequential(nn.Linear(4, 4), snn.Leaky(0.8, init_hidden=True)),
    "a network with a recurrent neuron": lambda: nn.Sequential(
        nn.Linear(4, 3), snn.RLeaky(0.8, linear_features=3, init_hidden=True), nn.Linear(3, 4)
    ),
    "without weights": Doubling,
    "a dropout": lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)),
}
NEURONS = {
    "RLeaky": lambda: snn.RLeaky(0.9, linear_features=4, init_hidden=True),
    "RLeaky, one to one": lambda: snn.RLeaky(0.9, V=0.1, all_to_all=False, init_hidden=True),
    "RSynaptic": lambda: snn.RSynaptic(0.5, 0.9, linear_features=4, init_hidden=True),
    "RSynaptic, one to one": lambda: snn.RSynaptic(0.5, 0.9, all_to_all=False, init_hidden=True, reset_delay=False),
}


def gradients(net: nn.Module, spk: Tensor) -> dict[str, Tensor | None]:
    """Of a weighted sum of the spikes."""
    net.zero_grad()
    (spk * torch.linspace(-0.5, 1.0, spk.numel()).view_as(spk)).sum().backward()
    return {name: p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("neuron", NEURONS)
def test_steps_and_unrolled_agree(neuron, module):
    torch.manual_seed(0)
    lif = NEURONS[neuron]()
    lif.recurrent = MODULES[module]()
    net = nn.Sequential(nn.Linear(3, 4), lif)
    xs, message = 4 * torch.rand(6, 2, 3), []
    for run in (by_steps, snn.unroll, lambda net, xs: snn.unroll(net, xs, checkpoint=2)):
        snn.utils.reset(net)
        torch.manual_seed(1)
        spk = run(net, xs)
        message.append((spk, gradients(net, spk)))
    for spk, grads in message[1:]:
        assert torch.equal(spk, message[0][0])
        for name, wanted in message[0][1].items():
            torch.testing.assert_close(grads[name], wanted, msg=lambda why, name=name: f"{name}: {why}")


def test_the_module_is_what_feeds_the_spikes_back():
    for make in NEURONS.values():
        lif = make()
        lif.recurrent = Doubling()
        message = lif(torch.full((1, 4), 2.0)), lif.mem.clone(), lif(torch.zeros(1, 4)), lif.mem.clone()
        lif.reset_mem()
        lif.recurrent = nn.Identity()
        others = lif(torch.full((1, 4), 2.0)), lif.mem.clone(), lif(torch.zeros(1, 4)), lif.mem.clone()
        assert (message[3] > others[3]).all()


def test_a_copy_has_the_module_too():
    lif = snn.RLeaky(0.9, V=0.1, all_to_all=False, init_hidden=True)
    lif.recurrent = Doubling()
    twin, xs = copy.deepcopy(lif), 2 * torch.rand(5, 2, 4)
    assert torch.equal(by_steps(twin, xs), by_steps(lif, xs))
    assert lif.all_to_all is False
