"""Every warning names the user's line, through whichever public function it comes."""

import warnings
from contextlib import nullcontext

import pytest
import torch
from torch import nn

import spikeloom as snn


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), snn.Leaky(beta=0.9, init_hidden=True))


SEQUENCE = torch.rand(5, 4, 6)
"""Passed with steps=5, it may be meant as a sequence."""

WITH_STEPS = {
    "unroll": lambda net: snn.unroll(net, SEQUENCE, steps=5),
    "unroll, its old name of steps": lambda net: snn.unroll(net, SEQUENCE, num_steps=5),
    "unroll in chunks": lambda net: snn.unroll(net, SEQUENCE, steps=5, checkpoint=2),
    "unroll, checked": lambda net: snn.unroll(net, SEQUENCE, steps=5, check=True),
    "stream": lambda net: list(snn.stream(net, [SEQUENCE], steps=5)),
    "explain": lambda net: snn.explain(net, SEQUENCE, steps=5),
    "summary": lambda net: snn.summary(net, SEQUENCE, steps=5),
    "diagnose": lambda net: snn.diagnose(net, SEQUENCE, steps=5),
    "a forward that unrolls": lambda net: unrolls(net)(SEQUENCE),
}


def unrolls(net: nn.Module) -> nn.Module:
    class Unrolls(nn.Module):
        def forward(self, x):
            return snn.unroll(net, x, steps=5)

    return Unrolls()


def leaves_a_state() -> nn.Module:
    net = network()
    net(3 * torch.rand(3, 6))
    return net


DROPPED = {
    "a call": lambda net: net(torch.rand(2, 6)),
    "unroll": lambda net: snn.unroll(net, torch.rand(4, 2, 6)),
    "a fused loop": lambda net: snn.fuse(lambda x: [net(x) for _ in range(3)][-1] + 0)(torch.rand(2, 6)),
    "stream": lambda net: next(iter(snn.stream(net, [torch.rand(4, 2, 6)]))),
}

CONSTRUCTORS = {
    "inhibition": lambda: snn.Leaky(0.5, inhibition=True),
    "inhibition of a recurrent neuron": lambda: snn.RSynaptic(0.5, 0.5, linear_features=3, inhibition=True),
    "inhibition of an LSTM": lambda: snn.SLSTM(3, 4, threshold=0.1, inhibition=True),
    "a threshold that is never reached": lambda: snn.SLSTM(3, 4, threshold=2.0),
    "options of spikes": lambda: snn.StateLeaky(0.5, 3, output=False, surrogate_disable=True),
    "rate": lambda: snn.spikegen.rate(torch.full((3,), 2.0), num_steps=4),
    "a layer that encodes": lambda: snn.spikegen.Rate(4)(torch.full((3,), 2.0)),
}


def lines_of(call, *args) -> list[tuple[str, str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*args)
    return [(str(warning.message), warning.filename) for warning in caught]


@pytest.mark.parametrize(
    ("make", "calls", "said"),
    [
        (network, WITH_STEPS, "leave out steps"),
        (leaves_a_state, DROPPED, "is dropped"),
        (nullcontext, {name: lambda _, call=call: call() for name, call in CONSTRUCTORS.items()}, ""),
    ],
    ids=["steps with a sequence", "a state of another shape", "constructors and codes"],
)
def test_a_warning_names_the_line_of_the_caller(make, calls, said):
    with snn.backend("loop"):
        found = {name: lines_of(call, make()) for name, call in calls.items()}
    for name, lines in found.items():
        assert [file for message, file in lines if said in message] == [__file__], (name, lines)


def test_a_warning_within_a_module_of_torch_names_the_line_of_the_caller():
    """Through `nn.Sequential`, a hook and a `with` block, all of whose frames are not the user's."""
    net = nn.Sequential(leaves_a_state())
    with snn.backend("loop"), torch.no_grad():
        assert [file for _, file in lines_of(net, torch.rand(2, 6))] == [__file__]
