"""What is dropped is freed: networks that were never differentiated, runs, records, and what an error has left."""

import gc
import os
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

import spikeloom as snn
from spikeloom import functional as sf

from ..neurons.zoo import ZOO, made, sequence

pytestmark = pytest.mark.usefixtures("fresh_heap")  # nor is what was there before counted

ROUNDS = int(os.environ.get("LEAK_ROUNDS", "24"))


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 5),
        nn.BatchNorm1d(5),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(5, 4),
        snn.RLeaky(beta=0.5, linear_features=4, init_hidden=True, output=True),
    )


def series() -> Tensor:
    return torch.rand(6, 2, 6)


def failing(net: nn.Module) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    for options in ({}, {"checkpoint": 2}):
        with net[4].register_forward_hook(fail), pytest.raises(ZeroDivisionError):
            snn.unroll(net, series(), **options)


def tapped(net: nn.Module, graph: bool) -> None:
    with snn.tap(net, inputs=True, graph=graph) as record:
        snn.unroll(net, series())
    assert record["2"].steps == 6


def dropped_tap(net: nn.Module) -> None:
    snn.tap(net)
    snn.unroll(net, series())


def monitored(net: nn.Module) -> None:
    with (
        sf.OutputMonitor(net, snn.Leaky) as outputs,
        sf.AttributeMonitor("mem", True, net, snn.RLeaky),
        sf.GradInputMonitor(net, snn.Leaky),
    ):
        snn.unroll(net, series())
    assert len(outputs) == 1


def by_the_loop(net: nn.Module) -> None:
    with snn.backend("loop"):
        snn.unroll(net, series())


USES: dict[str, Callable[[nn.Module], Any]] = {
    "unroll": lambda net: snn.unroll(net, series()),
    "unroll, static": lambda net: snn.unroll(net, series()[0], steps=6),
    "unroll, by the loop": by_the_loop,
    "checkpoint": lambda net: snn.unroll(net, series(), checkpoint=2),
    "checkpoint, backward": lambda net: snn.unroll(net, series(), checkpoint=2)[1].sum().backward(),
    "stream": lambda net: list(snn.stream(net, series().split(2))),
    "stream of one graph": lambda net: list(snn.stream(net, series().split(2), detach=False)),
    "tap": lambda net: tapped(net, graph=False),
    "tap with its graph": lambda net: tapped(net, graph=True),
    "a tap that nobody holds": dropped_tap,
    "monitors": monitored,
    "explain": lambda net: snn.explain(net, series()),
    "steps": lambda net: [net(x) for x in series()],
    "an error": failing,
}


@pytest.mark.parametrize("name", USES)
def test_a_network_that_is_dropped_is_freed(name: str):
    dropped = []
    for _ in range(3):
        net = network()
        dropped.append(weakref.ref(net))
        USES[name](net)
        del net
    gc.collect()
    assert [net() for net in dropped] == [None] * 3


@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "Alpha", "SLSTM", "LeakyParallel", "StateLeaky", "AdLIF"])
@pytest.mark.parametrize("options", [{}, {"checkpoint": 4}], ids=str)
def test_every_neuron_that_is_dropped_is_freed(kind: str, options: dict[str, int]):
    net = nn.Sequential(made(kind, init_hidden=True) if kind in ZOO else getattr(snn, kind)(6, 6))
    x = sequence(kind, 8) if kind in ZOO else torch.rand(8, 2, 6)
    snn.unroll(net, x.requires_grad_(), **options)
    dropped = weakref.ref(net)
    del net
    gc.collect()
    assert dropped() is None


@pytest.mark.parametrize("name", USES)
def test_memory_is_flat(name: str):
    """On a network that lives on, and is reset between two runs."""
    net, tensors = network(), []
    counts = []
    for i in range(ROUNDS):
        USES[name](net)
        snn.utils.reset(net)
        if i in (ROUNDS // 3, ROUNDS - 1):
            gc.collect()
            tensors = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
            counts.append((len(gc.get_objects()), len(tensors)))
            del tensors
    assert counts[1][1] <= counts[0][1]
    assert counts[1][0] - counts[0][0] < ROUNDS // 3  # less than one object in two rounds


def test_spikes_that_a_tap_has_recorded_go_with_it():
    net, seen = network(), []
    for _ in range(3):
        with snn.tap(net) as record:
            spk, _ = snn.unroll(net, series())
        seen += [weakref.ref(spk), weakref.ref(record["2"].mem)]
        snn.utils.reset(net)
        del record, spk
    gc.collect()
    assert [t() for t in seen] == [None] * 6


def test_a_network_within_a_checkpoint_of_torch_is_freed_after_a_reset():
    alive: weakref.WeakSet[nn.Module] = weakref.WeakSet()
    for _ in range(5):
        net = network().eval()
        alive.add(net)
        torch.utils.checkpoint.checkpoint(snn.unroll, net, series(), use_reentrant=False)
        snn.utils.reset(net)
        del net
    gc.collect()
    assert not len(alive)
