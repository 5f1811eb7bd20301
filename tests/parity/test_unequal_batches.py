"""The tutorials' forwards, trained and evaluated with batches of unequal size, next to snnTorch."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn

from ..oracle import TOLERANCE
from .running import snntorch

importlib.import_module("snntorch.utils")
STEPS, IN, CLASSES = 5, 6, 4
BATCHES = (8, 8, 3, 8, 1, 5)
"""Rows: a smaller last batch, the next epoch, a single sample, an evaluation."""

NEURONS: Mapping[str, Callable[..., Any]] = {
    "leaky": lambda library, n, **given: library.Leaky(beta=0.9, learn_beta=True, **given),
    "lapicque": lambda library, n, **given: library.Lapicque(beta=0.8, threshold=0.4, **given),
    "synaptic": lambda library, n, **given: library.Synaptic(alpha=0.7, beta=0.8, learn_alpha=True, **given),
    "alpha": lambda library, n, **given: library.Alpha(alpha=0.9, beta=0.6, threshold=0.1, **given),
    "rleaky": lambda library, n, **given: library.RLeaky(beta=0.9, linear_features=n, **given),
    "rsynaptic": lambda library, n, **given: library.RSynaptic(alpha=0.6, beta=0.9, V=0.3, all_to_all=False, **given),
    "slstm": lambda library, n, **given: library.SLSTM(n, n, threshold=0.05, **given),
}


class ByHand(nn.Module):
    """Tutorials 3, 4 and 5: every state is passed by hand, and starts from what ``init_...`` returns."""

    def __init__(self, library: ModuleType, name: str):
        super().__init__()
        self.name = name
        self.fc1, self.lif1 = nn.Linear(IN, 9), NEURONS[name](library, 9)
        self.fc2, self.lif2 = nn.Linear(9, CLASSES), NEURONS[name](library, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        states1, states2 = (getattr(lif, f"init_{self.name}")() for lif in (self.lif1, self.lif2))
        states1, states2 = (s if isinstance(s, tuple) else (s,) for s in (states1, states2))
        spikes, membranes = [], []
        for _ in range(STEPS):
            spk, *states1 = self.lif1(self.fc1(x), *states1)
            spk, *states2 = self.lif2(self.fc2(spk), *states2)
            spikes.append(spk)
            membranes.append(states2[-1])
        return torch.stack(spikes), torch.stack(membranes)


class Hidden(nn.Module):
    """Tutorial 6: a Sequential that keeps its states, which are reset before each batch."""

    def __init__(self, library: ModuleType, name: str):
        super().__init__()
        self.library = library
        self.net = nn.Sequential(
            nn.Linear(IN, 9),
            NEURONS[name](library, 9, init_hidden=True),
            nn.Linear(9, CLASSES),
            NEURONS[name](library, CLASSES, init_hidden=True, output=True),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.library.utils.reset(self.net)
        outs = [self.net(x) for _ in range(STEPS)]
        return torch.stack([out[0] for out in outs]), torch.stack([out[-1] for out in outs])


class Convolutional(nn.Module):
    """Tutorial 6 with images, whose states have as many dimensions."""

    def __init__(self, library: ModuleType, name: str):
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), nn.Linear(3, CLASSES)
        self.lif1, self.lif2 = library.Leaky(beta=0.7), library.Leaky(beta=0.7)
        self.lstm = library.SConv2dLSTM(3, 3, 3, threshold=0.05)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.repeat_interleave(6, 1).unflatten(1, (1, 6, 6))
        mem1, mem2, (syn, mem) = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lstm.init_sconv2dlstm()
        spikes, membranes = [], []
        for _ in range(STEPS):
            spk, mem1 = self.lif1(self.pool(self.conv(x)), mem1)
            spk, syn, mem = self.lstm(spk, syn, mem)
            spk, mem2 = self.lif2(self.fc(spk.mean((2, 3))), mem2)
            spikes.append(spk)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


NETWORKS = [(ByHand, name) for name in NEURONS] + [(Convolutional, "leaky")]
NETWORKS += [(Hidden, name) for name in NEURONS if name != "rsynaptic"]  # whose spikes snnTorch's reset forgets


def trained(net: nn.Module) -> list[Tensor]:
    """The outputs and losses of a training whose batches differ in size, and of an evaluation."""
    optimizer, message = torch.optim.SGD(net.parameters(), lr=0.05), []
    generator = torch.Generator().manual_seed(3)
    for rows in BATCHES:
        x, y = 3 * torch.rand(rows, IN, generator=generator), torch.randint(CLASSES, (rows,), generator=generator)
        spk, mem = net(x)
        loss = sum(nn.functional.cross_entropy(m, y) for m in mem)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        message += [spk, loss]
    with torch.no_grad():
        return [*message, *net(torch.rand(7, IN, generator=generator))]


@pytest.mark.parametrize(("kind", "name"), NETWORKS, ids=[f"{kind.__name__}, {name}" for kind, name in NETWORKS])
def test_batches_of_unequal_size_give_what_they_give_in_snntorch(kind, name):
    snntorch.SpikingNeuron.instances = []  # its reset reaches every neuron of the process, broken ones too
    torch.manual_seed(1)
    ours, theirs = kind(snn, name), kind(snntorch, name)
    ours.load_state_dict(theirs.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of snnTorch's alone: ours must not say a word
        wanted = trained(theirs)
    for got, expected in zip(trained(ours), wanted, strict=True):
        torch.testing.assert_close(got, expected, **TOLERANCE[torch.float32])


@pytest.mark.parametrize("shape", [(1,), ()], ids=str)
def test_the_loop_of_tutorial_3_over_numbers(shape):
    """`cur[step]` is a number, and `mem` starts as torch.zeros(1)."""
    message = []
    for library in (snn, snntorch):
        lif, mem, spikes = library.Leaky(beta=0.8), torch.zeros(shape), []
        for current in torch.cat((torch.zeros(3), torch.full((9,), 0.3))):
            spk, mem = lif(current, mem)
            spikes.append((spk, mem))
        message.append(spikes)
    for ours, theirs in zip(*message, strict=True):
        for got, wanted in zip(ours, theirs, strict=True):
            torch.testing.assert_close(got, wanted)


SHAPES = [((2, 4), (3, 4)), ((2, 4), (4, 2)), ((4,), (2, 4)), ((1, 4), (3, 4)), ((2, 4), (0,)), ((2, 3), (2, 3, 1, 1))]


@pytest.mark.filterwarnings("ignore:.*is dropped")
@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize(("wanted", "given"), SHAPES)
def test_states_that_do_not_broadcast_are_replaced_as_in_snntorch(name, wanted, given):
    if name in ("rleaky", "slstm") and len(wanted) != 2:
        pytest.skip("snnTorch cannot")
    outs = []
    theirs = None
    for library in (snntorch, snn):
        lif = NEURONS[name](library, wanted[-1])
        if theirs is not None:
            lif.load_state_dict(theirs)
        theirs = lif.state_dict()
        count = len(lif.reset_mem()) if isinstance(lif.reset_mem(), tuple) else 1
        outs.append(lif(torch.full(wanted, 0.5), *[torch.full(given, 0.7)] * count))
    for other, got in zip(*outs, strict=True):
        torch.testing.assert_close(got, other)
