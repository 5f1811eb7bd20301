"""What a backward runs again: methods of a user's, and steps within `torch.utils.checkpoint`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import spikeloom as snn

from ..neurons.zoo import made, sequence
from .test_checkpoint import backward, one_layer


def with_methods(kind: str, **methods: Callable[..., Any]) -> tuple[nn.Module, Tensor]:
    """One layer whose methods are the user's, which stand in a subclass."""
    net, x = one_layer(kind, output=True)
    net[0].__class__ = type(f"Own{kind}", (type(net[0]),), methods)
    return net, x


OWN: dict[str, dict[str, Callable[..., Any]]] = {
    "fire": {"fire": lambda lif, mem: lif.spike_grad(mem - lif.threshold)},
    "forward": {"forward": lambda lif, x, *states: lif._run(x * 0.75, (*states, *[None] * len(lif._state_names())))},
}


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("kind", ["Leaky", "RLeaky through Linear", "SLSTM", "SConv2dLSTM"])
def test_methods_of_a_user_are_recomputed(kind: str, own: str):
    gradients = []
    for length in (None, 3):
        net, x = with_methods(kind, **OWN[own])
        gradients.append(backward(net, snn.unroll(net, x, checkpoint=length), x))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", ["Leaky", "RLeaky through Linear", "Synaptic", "SLSTM", "SConv2dLSTM", "AdLIF"])
def test_steps_with_passed_states_are_recomputed_by_torch(kind: str):
    """`torch.utils.checkpoint` around one step needs no more than the states."""
    gradients = []
    for way in (lambda step, *args: step(*args), lambda step, *args: checkpoint(step, *args, use_reentrant=False)):
        snn.utils.seed(1)
        lif, x = made(kind, output=True), sequence(kind, 4).requires_grad_()
        lif(x[0].detach())
        states, loss = [torch.zeros_like(getattr(lif, name)) for name in lif._state_names()], torch.zeros(())
        for x_t in x:
            spk, *news = out = way(lif, x_t, *states)
            states = out[-len(lif._state_names()) :]
            loss = loss + spk.sum() + sum(new.square().sum() for new in news)
        loss.backward()
        gradients.append((x.grad, *[p.grad for p in lif.parameters()]))
    torch.testing.assert_close(*gradients, equal_nan=True)


def test_a_step_without_states_is_not_recomputed_from_those_of_a_later_step():
    lif, x = made("Leaky"), sequence("Leaky", 4).requires_grad_()
    spk, mem = checkpoint(lif, x[0], use_reentrant=False)
    for x_t in x[1:]:
        spk, mem = checkpoint(lif, x_t, mem, use_reentrant=False)
    with pytest.raises(RuntimeError, match="is run again within a backward"):
        (spk.sum() + mem.sum()).backward()
