"""Values that are not learned may be written over before the backward, as DistributedDataParallel of some releases of
torch does with buffers at each call: the backward has what the call has seen."""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import spikeloom as snn

from .running import WAYS
from .sequences import LAYERS
from .zoo import COMPILED, made, sequence, spread

X = sequence("Leaky")
LEARNED = {"learn_beta": True, "graded_spikes_factor": 1.5}

NETS: Mapping[str, tuple[Callable[[], nn.Module], Tensor]] = {
    **{f"{name}, numbers": (partial(made, name), sequence(name)) for name in COMPILED},
    **{f"{name}, vectors": (partial(made, name, vectors=True), sequence(name)) for name in COMPILED},
    "beta learned": (lambda: snn.Leaky(0.9, threshold=0.5, **LEARNED), X),
    "beta learned, vectors": (lambda: snn.Leaky(spread(0.3, 0.9), threshold=spread(0.4, 1.2), **LEARNED), X),
    "beta of a circuit learned": (lambda: snn.Lapicque(R=5.0, C=spread(1.0, 2.0), learn_beta=True), X),
    "by methods": (lambda: snn.Leaky(0.9, state_quant=lambda mem: mem, **LEARNED), X),
    "an axon's delay": (lambda: snn.SynapticDelay(4, 3), X),
    "a synapse's delay": (lambda: snn.DelayedLinear(4, 2, 3), X),
}


def gradients(net: nn.Module, run: Callable[[Any, Tensor], Any], x: Tensor, written: bool) -> tuple[Tensor, ...]:
    torch.manual_seed(11)
    x = x.clone().requires_grad_()
    total = sum(out.square().sum() for out in tree_leaves(run(net, x)))
    for buffer in net.buffers() if written else ():
        buffer.mul_(3)
    return torch.autograd.grad(total, [x, *(p for p in net.parameters() if p.requires_grad)])


def assert_unmoved(make: Callable[[], nn.Module], run: Callable[[Any, Tensor], Any], x: Tensor, plain: bool) -> None:
    got = []
    for written in (False, True):
        torch.manual_seed(3)
        with snn.backend("loop") if plain else contextlib.nullcontext():
            got.append(gradients(make(), run, x, written))
    assert all(map(torch.equal, *got))


on_the_loop_and_kernels = pytest.mark.parametrize("plain", [True, False], ids=["loop", "kernels"])


@on_the_loop_and_kernels
@pytest.mark.parametrize("name", NETS)
def test_the_backward_has_what_the_steps_have_seen(name, plain):
    """A neuron of each class by steps and at once; with a vector of values in one way, every other in the other."""
    (make, x), ways = NETS[name], [*WAYS.values()]
    if name.endswith(", vectors"):
        del ways[[*NETS].index(name) % 2]
    for way in ways:
        assert_unmoved(make, way, x, plain)


@on_the_loop_and_kernels
@pytest.mark.parametrize("name", LAYERS)
def test_the_backward_has_what_a_whole_sequence_has_seen(name, plain):
    assert_unmoved(LAYERS[name], lambda layer, x: layer(x), X, plain)
