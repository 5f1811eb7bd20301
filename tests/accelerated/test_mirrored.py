"""Of a mirrored tensor torch keeps the sign aside, where no kernel looks: accelerated layers read it all the same."""

import copy

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn

from ..oracle import assert_close
from .conftest import routes
from .test_accelerate import spikes

LAST = torch.channels_last
torch.manual_seed(0)  # of the weights and inputs below
CONVOLUTION = nn.Conv2d(3, 8, 3, padding=1)
CASES: dict[str, tuple[nn.Module, Tensor, float]] = {  # the layer, its input, the share of gradients that are not zero
    "linear": (nn.Linear(70, 33), spikes(30, 70, density=0.05), 1.0),
    "linear, few outputs": (nn.Linear(70, 8), torch.rand(30, 70), 1.0),
    "linear, few gradients": (nn.Linear(70, 33), spikes(30, 70, density=0.05), 0.05),
    "convolution": (CONVOLUTION, spikes(2, 3, 8, 8, density=0.05).contiguous(memory_format=LAST), 1.0),
    "convolution in chunks, pooled": (nn.Sequential(CONVOLUTION, nn.MaxPool2d(2)), torch.ones(2, 3, 8, 8), 1.0),
    "maximum": (nn.MaxPool2d(2), torch.rand(2, 3, 8, 8), 1.0),
    "average": (nn.AvgPool2d(2), torch.rand(2, 3, 8, 8), 1.0),
}


def mirrored(x: Tensor) -> Tensor:
    """The same values, the sign of each aside."""
    return torch._neg_view(-x)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_read_with_their_sign(case: str, every_size: None, tuned) -> None:
    tuned(chunk_images_from=0)
    tuned(narrow_from=0)
    layer, x, share = CASES[case]
    layer, x = snn.accelerate(copy.deepcopy(layer)), x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = layer(x)
    cotangent = (torch.rand_like(out) - 0.3) * (torch.rand_like(out) < share)
    wanted, got = (
        torch.autograd.grad(out, [x, *layer.parameters()], p, retain_graph=True)
        for p in (cotangent, mirrored(cotangent))
    )
    for ours, theirs in zip(got, wanted, strict=True):
        assert_close(ours, theirs, "a gradient", exact=True)


def test_a_weight_that_is_mirrored_is_torchs(every_size: None) -> None:
    layer = snn.accelerate(nn.Linear(70, 33))
    layer.weight = nn.Parameter(mirrored(layer.weight.detach()))
    assert routes(layer, spikes(30, 70, density=0.05)) == ["dense"]
