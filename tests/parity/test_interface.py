"""What a script written for snnTorch touches beside the numbers: signatures, names, checkpoints, a whole training."""

import importlib
import inspect
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import spikeloom as snn

from ..oracle import TOLERANCE
from .running import snntorch

LIBRARIES = {"ours": snn, "theirs": snntorch}
LAYERS = ("Leaky", "LIF", "SpikingNeuron")
ADDED = {"Leaky": ["decay"]}
"""What our layers take after the arguments that they share."""

LEARN_ALL = {"learn_beta": True, "learn_threshold": True, "learn_graded_spikes_factor": True}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "learned": LEARN_ALL,
    "per neuron": {"beta": torch.rand(4), "threshold": torch.rand(4), "graded_spikes_factor": torch.rand(4)},
    "per neuron, learned": {"beta": torch.rand(4), "threshold": torch.rand(4), **LEARN_ALL},
    "integers": {"beta": 1, "threshold": 1},
    "doubles": {"beta": torch.tensor(0.5, dtype=torch.float64)},
    "zero": {"reset_mechanism": "zero"},
    "none": {"reset_mechanism": "none"},
}


def made(library: ModuleType, name: str = "Leaky", **options: Any) -> Any:
    if name == "SpikingNeuron":
        return library.SpikingNeuron(**options)
    return getattr(library, name)(**{"beta": 0.9, **options})


@pytest.mark.parametrize("name", LAYERS)
def test_the_arguments_have_the_same_names_order_and_defaults(name):
    ours, theirs = (inspect.signature(getattr(library, name)).parameters for library in LIBRARIES.values())
    taken = [(p.name, p.default) for p in ours.values()]
    assert taken[: len(theirs)] == [(p.name, p.default) for p in theirs.values()]
    assert [name for name, _ in taken[len(theirs) :]] == ADDED.get(name, [])


def test_the_arguments_of_a_call_have_the_same_names_order_and_defaults():
    ours, theirs = (inspect.signature(library.Leaky.forward).parameters for library in LIBRARIES.values())
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


@pytest.mark.parametrize("options", OPTIONS)
def test_state_dict_has_the_same_keys_in_the_same_order_with_the_same_values(options):
    ours, theirs = (made(library, **OPTIONS[options]).state_dict() for library in LIBRARIES.values())
    assert list(ours) == list(theirs)
    for key in theirs:
        assert torch.equal(ours[key], theirs[key])
        assert (ours[key].dtype, ours[key].shape) == (theirs[key].dtype, theirs[key].shape)


@pytest.mark.parametrize("options", OPTIONS)
def test_parameters_have_the_same_names_in_the_order_that_optimizers_count_by(options):
    ours, theirs = (list(dict(made(library, **OPTIONS[options]).named_parameters())) for library in LIBRARIES.values())
    assert ours == theirs


def network(library: ModuleType, **options: Any) -> nn.Sequential:
    leaky = library.Leaky(beta=torch.full((7,), 0.7), init_hidden=True, **options)
    return nn.Sequential(nn.Linear(5, 7), leaky, nn.Sequential(nn.Linear(7, 3), library.Leaky(0.5, init_hidden=True)))


@pytest.mark.parametrize("options", [{}, LEARN_ALL, {"reset_mechanism": "zero"}], ids=["plain", "learned", "zero"])
@pytest.mark.parametrize("way", [("theirs", "ours"), ("ours", "theirs")], ids=" to ".join)
def test_checkpoints_load_strictly_in_both_directions(way, options, tmp_path):
    source, target = (network(LIBRARIES[name], **options) for name in way)
    source(torch.rand(2, 5))  # so that the layers hold states
    torch.save(source.state_dict(), tmp_path / "net.pt")
    target.load_state_dict(torch.load(tmp_path / "net.pt"), strict=True)
    for (name, ours), theirs in zip(target.state_dict().items(), source.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("way", [("theirs", "ours"), ("ours", "theirs")], ids=" to ".join)
def test_a_loaded_network_gives_the_numbers_of_the_one_that_was_saved(way):
    torch.manual_seed(0)
    source, target = (network(LIBRARIES[name]) for name in way)
    target.load_state_dict(source.state_dict())
    for x in torch.rand(5, 2, 5):
        assert torch.equal(source(x), target(x))


# -- a whole script ----------------------------------------------------------------------------------------------------


def by_hand(snn: ModuleType) -> list[float]:
    """The membranes are the script's own, as in the first tutorials."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(10, 30), nn.Linear(30, 4)
            self.lif1 = snn.Leaky(beta=0.9, learn_beta=True, spike_grad=snn.surrogate.fast_sigmoid(slope=10))
            self.lif2 = snn.Leaky(beta=torch.linspace(0.5, 0.9, 4), threshold=0.8, reset_mechanism="zero")

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            spikes, membranes = [], []
            for _ in range(12):
                spk1, mem1 = self.lif1(self.fc1(x), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                spikes.append(spk2)
                membranes.append(mem2)
            return torch.stack(spikes), torch.stack(membranes)

    def loss_of(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        _, membranes = net(x)
        losses = [nn.functional.cross_entropy(mem, y) for mem in membranes]
        return torch.stack(losses).sum()

    return trained(Net, loss_of)


def hidden(snn: ModuleType) -> list[float]:
    """The layers keep their states, and the script resets them before each batch."""

    def make() -> nn.Module:
        return nn.Sequential(
            nn.Linear(10, 30),
            snn.Leaky(beta=0.9, threshold=0.3, init_hidden=True, learn_threshold=True),
            nn.Linear(30, 4),
            snn.Leaky(beta=0.8, threshold=0.1, init_hidden=True, output=True, reset_delay=False),
        )

    def loss_of(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        snn.utils.reset(net)
        spikes = torch.stack([net(x)[0] for _ in range(12)])
        return nn.functional.cross_entropy(spikes.sum(0), y)

    return trained(make, loss_of)


def truncated(snn: ModuleType) -> list[float]:
    """Every third step is a backward, an update and a detach."""

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(10, 20), snn.Leaky(beta=0.95, init_hidden=True, output=True))

    def loss_of(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        snn.Leaky.detach_hidden()
        return sum(nn.functional.cross_entropy(net(x)[1][:, :4], y) for _ in range(3))

    return trained(make, loss_of)


def trained(make: Any, loss_of: Any) -> list[float]:
    """The losses of a few steps of Adam, from the same weights and on the same data at every call."""
    torch.manual_seed(5)
    net = make()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        x, y = 2 * torch.rand(8, 10), torch.randint(0, 4, (8,))
        loss = loss_of(net, x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("script", [by_hand, hidden, truncated], ids=lambda script: script.__name__)
def test_a_training_script_gives_the_same_losses_after_a_change_of_its_import(script):
    importlib.import_module("snntorch.utils")  # which `import snntorch` does not do
    ours, theirs = script(snn), script(snntorch)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), **TOLERANCE[torch.float32])
    assert len(set(ours)) == len(ours), "the losses do not move"
