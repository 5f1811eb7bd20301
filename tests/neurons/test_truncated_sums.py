"""Sums over the last K steps, against their definition in float64."""

import pytest
import torch
from torch import Tensor

from spikeloom.neurons.state_leaky import truncated_sums

from ..each import for_each
from ..oracle import assert_close

SIZES = [(1, 1), (7, 1), (7, 2), (7, 3), (7, 6), (7, 7), (7, 30), (64, 8), (50, 49)]
"""T and K: one block, whole blocks, a last one that is shorter."""
DECAYS = {
    "a number": torch.tensor(0.8),
    "none": torch.tensor(1.0),
    "zero": torch.tensor(0.0),
    "below zero": torch.tensor(-0.6),
    "beyond one": torch.tensor(1.02),
    "per channel": torch.tensor([0.0, 0.5, 0.9, 1.0, -0.3]),
}


def convolution(x: Tensor, decay: Tensor, K: int) -> Tensor:
    """The definition, in float64."""
    x, decay = x.double(), decay.double()
    terms = [torch.cat((torch.zeros_like(x[:k]), decay**k * x[: len(x) - k])) for k in range(min(K, len(x)))]
    return torch.stack(terms).sum(0)


@for_each("decay", DECAYS.values())
@for_each(("T", "K"), SIZES)
def test_they_are_the_convolution(T, K, decay):
    x = torch.randn(T, 3, 5, dtype=torch.float64)
    assert_close(truncated_sums(x, decay.double(), K), convolution(x, decay, K), "mem")


def test_gradients_are_those_of_finite_differences():
    x, decay = torch.randn(9, 2, 3, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    arguments = (x.requires_grad_(), decay.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, decay: truncated_sums(x, decay, 4), arguments)


@pytest.mark.parametrize("K", [1, 10, 1000])
@pytest.mark.parametrize("decay", [1.0, 0.999, 0.9, 0.1])
def test_float32_loses_no_more_than_the_terms_of_one_window_round(decay, K):
    """10,000 steps of inputs that add up: the difference of two sums would be off by some 1e-4 of it here."""
    x, decay = torch.rand(10_000, 1, 2), torch.tensor(decay)
    wanted = convolution(x, decay, K)
    assert float(((truncated_sums(x, decay, K) - wanted) / wanted).abs().max()) < 2e-7 * (4 + K**0.5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number_leaves_with_its_window(bad):
    x = torch.rand(40, 1, 2)
    x[13, 0, 0] = bad
    spoilt = ~truncated_sums(x, torch.tensor(0.9), 7).isfinite()
    assert spoilt[13:20, 0, 0].all()
    assert spoilt.sum() == 7
