"""A strictly accelerated network gives the bits of the plain one."""

import copy

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn

from .test_accelerate import spikes

pytestmark = pytest.mark.usefixtures("every_size")


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(4, 20, 3), nn.MaxPool2d(2), snn.Leaky(beta=0.5, threshold=0.2, init_hidden=True),
        nn.Flatten(), nn.Linear(20 * 3 * 3, 33), snn.Leaky(beta=0.5, threshold=0.2, init_hidden=True),
    )  # fmt: skip


def run(net: nn.Module, x: Tensor) -> list[Tensor]:
    spk = snn.unroll(net, x)
    snn.utils.reset(net)
    assert 0.01 < spk.mean() < 0.99
    return [spk, *torch.autograd.grad(spk.sum(), [*net.parameters()])]


def test_strict_is_the_plain_network_bit_for_bit_and_explain_shows_it() -> None:
    plain, x = network(), spikes(10, 6, 4, 9, 8, density=0.1)
    strict, free = snn.accelerate(copy.deepcopy(plain), strict=True), snn.accelerate(copy.deepcopy(plain))
    wanted, got, other = (run(net, x) for net in (plain, strict, free))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(got, wanted, strict=True))
    assert not all(map(torch.equal, other, wanted))  # or the network would show nothing
    message = {row.kind: row.backend for row in snn.explain(strict, x).rows}
    assert (message["SpikeConv2d"], message["SpikeLinear"]) == ("dense, strict", "dense, strict")
    assert message["SpikeMaxPool2d"] == "numba"  # its bits are torch's in any case
    assert snn.explain(snn.accelerate(strict), x).rows[0].backend == "sparse"


def test_it_is_taken_back_with_the_rest() -> None:
    net = snn.accelerate(snn.accelerate(network(), strict=True), False)
    assert [type(layer) for layer in net][:2] == [nn.Conv2d, nn.MaxPool2d]
    assert "strict" not in vars(net[0])
