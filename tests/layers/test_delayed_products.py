"""Products with a delay for each connection: kernels compute what the convolution over time computes."""

import pytest
import torch

import spikeloom as snn
from spikeloom.layers import _delayed_products

from ..oracle import assert_close

CASES = {
    # T, B, I, O, max_delay, share of spikes
    "full lines": (32, 4, 6, 32, 9, 0.1),
    "partial lines": (21, 3, 7, 19, 5, 0.1),
    "a band of lags and one more": (20, 2, 5, 3, 32, 0.1),
    "delays longer than the sequence": (3, 2, 5, 4, 12, 0.2),
    "no delay": (20, 2, 5, 4, 0, 0.01),
    "no spikes": (20, 2, 5, 4, 3, 0.0),
    "a single neuron": (40, 1, 1, 1, 3, 0.1),
}

WAYS = {
    "learned through a window": {"learn_delay": True},
    "learned through an interpolation": {"learn_delay": True, "sigma": 0.0},
    "fixed": {},
}


@pytest.fixture
def taken(monkeypatch):
    """How many products the kernels computed; they compute small ones, too."""
    found = []
    places = _delayed_products._places
    monkeypatch.setattr(_delayed_products, "_places", lambda *args: found.append(places(*args)) or found[-1])
    with snn.tuning(linear_least_work=0):
        yield found


def drawn(case, dtype=torch.float32, graded=False, **way):
    steps, batch, inputs, outputs, longest, share = CASES[case]
    torch.manual_seed(0)
    fc = snn.DelayedLinear(inputs, outputs, longest, **way).to(dtype)
    with torch.no_grad():  # beyond both bounds
        fc.delay[0, 0], fc.delay[-1, -1] = -1.0, longest + 2.0
    x = (torch.rand(steps, batch, inputs) < share).to(dtype)
    return fc, (x * torch.rand_like(x) if graded else x).requires_grad_(), torch.randn(steps, batch, outputs).to(dtype)


def trained(fc, x, pull, calls=2):
    """The outputs of several calls, which pass their last inputs on, and all gradients."""
    snn.reset(fc)
    outs = [snn.unroll(fc, x) for _ in range(calls)]
    leaves = [leaf for leaf in (x, *fc.parameters()) if leaf.requires_grad]
    return [*outs, *torch.autograd.grad(sum((out * pull).sum() for out in outs), leaves)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_kernels_compute_what_the_convolution_computes(case, way, taken):
    for dtype, graded in ((torch.float32, False), (torch.float32, True), (torch.float64, True)):
        layer = drawn(case, dtype, graded, **WAYS[way])
        got = trained(*layer)
        assert len(taken) == 2
        assert all(taken)
        with snn.backend("loop"):
            wanted = trained(*layer)
        taken.clear()
        for a, b in zip(got, wanted, strict=True):
            assert_close(a, b, f"{case}, {dtype}")


def test_an_interpolation_learns_from_the_two_steps_around_the_delay(taken):
    fc = snn.DelayedLinear(1, 1, 4, delay=1.75, learn_delay=True, sigma=0, bias=False)
    x, pull = torch.zeros(9, 1, 1), torch.arange(9.0).square().view(9, 1, 1)
    x[3] = 1.0
    out = snn.unroll(fc, x)
    assert out.flatten().nonzero().item() == 5  # the nearest step
    (out * pull).sum().backward()
    assert_close(fc.weight.grad, torch.tensor([[25.0]]), "weight")
    assert_close(fc.delay.grad, fc.weight.detach() * (25.0 - 16.0), "delay")


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_spreads_as_in_the_convolution(value, taken):
    fc, x, pull = drawn("partial lines", learn_delay=True)
    pull[4, 1, 2] = value
    got = trained(fc, x, pull)
    with snn.backend("loop"):
        wanted = trained(fc, x, pull)
    for a, b in zip(got[3:], wanted[3:], strict=True):  # not that of x, to which a convolution adds zeros of its kernel
        assert torch.equal(a.isfinite(), b.isfinite())


def test_a_weight_that_is_not_finite_and_a_dense_input_are_left_to_the_convolution(taken):
    fc, x, _ = drawn("full lines")
    snn.unroll(fc, x.detach() + 1)
    with torch.no_grad():
        fc.weight[0, 0] = float("inf")
    snn.unroll(fc, x)
    assert taken == [None, None]


def test_only_the_nonzeros_are_saved(taken):
    fc, x, _ = drawn("full lines", learn_delay=True)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        fc.over_time(x.detach())
    assert taken[0]
    assert max(sizes) < x.numel()


def test_delays_of_another_dtype_run_on_kernels_too(taken):
    fc = snn.DelayedLinear(5, 4, 3, delay=torch.linspace(0, 3, 20, dtype=torch.float64).view(4, 5))
    snn.unroll(fc, torch.eye(5).view(5, 1, 5))
    assert fc.delay.dtype is torch.float32
    assert all(taken)
