"""unroll with checkpoint=K: errors, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn

from .networks import exact, leaky, quarters
from .test_checkpoint import BATCH, STEPS, WIDTH, assert_identical, two_layers


def test_an_error_in_a_chunk_leaves_the_network_unharmed():
    net = exact(nn.Sequential(nn.Linear(WIDTH, 5), nn.BatchNorm1d(5), leaky(output=True)))
    snn.unroll(net, quarters(2, BATCH, WIDTH))
    buffers, mem = {n: b.clone() for n, b in net.named_buffers()}, net[2].mem
    calls: list[int] = []

    def fail_in_the_third(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("the third chunk")

    with snn.tap(net) as record, net[2].register_forward_hook(fail_in_the_third):
        with pytest.raises(ValueError, match="the third chunk"):
            snn.unroll(net, quarters(STEPS, BATCH, WIDTH), checkpoint=3)
        assert record["2"].steps == 0
    assert net[2].mem is mem
    assert_identical(dict(net.named_buffers()), buffers)


def test_parameters_changed_before_the_backward_are_noticed():
    net, x = two_layers()
    spk, _ = snn.unroll(net, x, checkpoint=4)
    with torch.no_grad():
        net[0].bias.add_(1)
    with pytest.raises(RuntimeError, match=r"before optimizer\.step\(\)"):
        spk.sum().backward()


def test_an_input_changed_before_the_backward_is_noticed():
    net, x = two_layers()
    x = x.detach()
    spk, _ = snn.unroll(net, x, checkpoint=4)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spk.sum().backward()


def test_outputs_are_no_views():
    net, x = two_layers()
    spk, _ = snn.unroll(net, x, checkpoint=4)
    assert not spk.detach_().requires_grad


def test_outputs_that_differ_from_chunk_to_chunk_are_refused():
    class Growing(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x[:, : self.calls]

    with pytest.raises(ValueError, match="return the same structure for every chunk"):
        snn.unroll(Growing(), quarters(STEPS, BATCH, WIDTH), checkpoint=4)


@pytest.mark.parametrize(
    ("checkpoint", "error", "sentence"),
    [
        (0, ValueError, "checkpoint is 0; pass a number >= 1"),
        (-3, ValueError, "checkpoint is -3"),
        (2.0, TypeError, "checkpoint is 2.0; pass a whole number"),
        (True, TypeError, "checkpoint is True"),
    ],
)
def test_lengths_that_are_none(checkpoint: Any, error: type[Exception], sentence: str):
    with pytest.raises(error, match=sentence):
        snn.unroll(leaky(), quarters(STEPS, BATCH, WIDTH), checkpoint=checkpoint)


def test_no_steps():
    spk = snn.unroll(leaky(), torch.zeros(0, BATCH, WIDTH), checkpoint=4)
    assert spk.shape == (0, BATCH, WIDTH)


def test_check_compares_with_the_steps():
    net, x = two_layers()
    snn.unroll(net, x, check=True, checkpoint=4)
    with pytest.raises(RuntimeError, match="step"):
        snn.unroll(nn.Sequential(leaky(), nn.Softmax(dim=0)), x, check=True, checkpoint=4)
