"""Monitors against snnTorch's: the same layers, order, records and index, in a loop over steps."""

import inspect

import pytest
import torch
from torch import nn

import spikeloom as snn
import spikeloom.functional as SF  # noqa: N812

from ..oracle import assert_close
from .running import snntorch

theirs = pytest.importorskip("snntorch.functional")
LIBRARIES = ((snn, SF), (snntorch, theirs))

MONITORS = {
    "OutputMonitor": lambda f, net, lib, kind, *fun: f.OutputMonitor(net, kind, *fun),
    "InputMonitor": lambda f, net, lib, kind, *fun: f.InputMonitor(net, kind, *fun),
    "AttributeMonitor": lambda f, net, lib, kind, *fun: f.AttributeMonitor("mem", False, net, lib.Leaky, *fun),
    "GradInputMonitor": lambda f, net, lib, kind, *fun: f.GradInputMonitor(net, kind or nn.Linear, *fun),
    "GradOutputMonitor": lambda f, net, lib, kind, *fun: f.GradOutputMonitor(net, kind or nn.Linear, *fun),
}
KINDS = {
    "None": lambda lib: None,
    "Linear": lambda lib: nn.Linear,
    "Leaky": lambda lib: lib.Leaky,
    "both": lambda lib: (nn.Linear, lib.Leaky),
}
FUNCTIONS = {"as it is": (), "kind": (lambda value: type(value).__name__,)}


def network(library) -> nn.Sequential:
    torch.manual_seed(3)
    hidden = library.Leaky(beta=0.9, init_hidden=True)
    return nn.Sequential(
        nn.Linear(3, 8), hidden, nn.Linear(8, 2), library.Leaky(beta=0.9, init_hidden=True, output=True)
    )


def recorded(pair, monitor_name, kind, function):
    library, functional = pair
    net = network(library)
    monitor = MONITORS[monitor_name](functional, net, library, KINDS[kind](library), *FUNCTIONS[function])
    x = torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(1)) * 2
    x.requires_grad_()
    sum((t + 1) * net(x_t)[1].sum() for t, x_t in enumerate(x)).backward()
    monitor.disable()
    net(x[0])
    return monitor


def flat(records):
    return [t for record in records for t in (record if isinstance(record, tuple) else (record,))]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MONITORS)
def test_same_records(name, kind, function):
    ours, peer = (recorded(pair, name, kind, function) for pair in LIBRARIES)
    assert ours.monitored_layers == peer.monitored_layers
    assert ours.name_records_index == peer.name_records_index
    assert ours.is_enable() == peer.is_enable()
    assert [type(r) for r in ours.records] == [type(r) for r in peer.records]
    assert len(ours.records) == len(peer.records) > 0
    for layer in peer.monitored_layers:
        assert len(ours[layer]) == len(peer[layer])
    for got, wanted in zip(flat(ours.records), flat(peer.records), strict=True):
        if isinstance(wanted, torch.Tensor):
            assert_close(got, wanted, "a record")
        else:
            assert got == wanted


@pytest.mark.parametrize(
    "name",
    ["AttributeMonitor", "BaseMonitor", "GradInputMonitor", "GradOutputMonitor", "InputMonitor", "OutputMonitor"],
)
def test_the_arguments_have_the_same_names_and_order(name):
    ours, peer = (list(inspect.signature(getattr(functional, name)).parameters) for _, functional in LIBRARIES)
    assert ours == peer


@pytest.mark.parametrize("value", [(), (1,), (1, 2), [1], 3, None])
def test_unpack_len1_tuple(value):
    assert SF.unpack_len1_tuple(value) == theirs.unpack_len1_tuple(value)
