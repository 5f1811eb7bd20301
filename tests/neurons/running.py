"""Running a layer in its two ways, and watching that a call which fails leaves it as it was."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

import spikeloom as snn


def by_steps(net: Any, xs: Tensor) -> Any:
    """What the network returns at each step of [T, B, *N], stacked over time."""
    return tree_map(lambda *each: torch.stack(each), *[net(x) for x in xs.unbind(0)])


def at_once(net: Any, xs: Tensor) -> Any:
    """The same of the sequence mode."""
    return snn.unroll(net, xs)


WAYS: Mapping[str, Callable[[Any, Tensor], Any]] = {"by steps": by_steps, "at once": at_once}
BACKENDS = ("loop", "numba")

in_both_ways = pytest.mark.parametrize("run", WAYS.values(), ids=WAYS)
on_both_backends = pytest.mark.parametrize("backend", BACKENDS)


@contextmanager
def unchanged(*neurons: snn.SpikingNeuron) -> Iterator[None]:
    """After this block every state of these neurons is the same object with the same values, and so is all else."""
    before = [_everything(neuron) for neuron in neurons]
    yield
    for neuron, (objects, values) in zip(neurons, before, strict=True):
        objects_now, values_now = _everything(neuron)
        assert objects_now == objects
        for name, value in values.items():
            torch.testing.assert_close(values_now[name], value, rtol=0, atol=0, equal_nan=True)


def _everything(neuron: snn.SpikingNeuron) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Which objects a neuron holds, and copies of its states and parameters."""
    states = {name: getattr(neuron, name) for name in neuron._state_names()}
    tensors = states | dict(neuron.named_parameters()) | dict(neuron.named_buffers())
    others = {name: getattr(neuron, name) for name in ("reset_mechanism", "reset_delay", "init_hidden", "training")}
    objects = {name: id(tensor) for name, tensor in tensors.items()} | others | {"R": id(neuron._before)}
    return objects, {name: tensor.detach().clone() for name, tensor in tensors.items() if not tensor.is_meta}


def started(**options: Any) -> snn.Leaky:
    """A layer that holds a state: two steps of [3, 4] after zeros."""
    lif = snn.Leaky(**{"beta": 0.9, **options})
    for x in torch.rand(2, 3, 4):
        lif(x)
    return lif
