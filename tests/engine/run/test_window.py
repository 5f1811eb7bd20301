"""Sums over the last K steps: the law against a convolution in float64, the kernel against the law."""

import pytest
import torch
from torch import Tensor

import spikeloom as snn
from spikeloom import surrogate
from spikeloom.cells import STATE_LEAKY
from spikeloom.cells.firing import Frame
from spikeloom.engine.graph.program import program_for
from spikeloom.engine.run import window
from spikeloom.engine.run.backends import choose
from spikeloom.engine.run.window import WINDOWS, WindowCall

from ...each import for_each
from ...oracle import Outcome, assert_close, assert_same
from ..running import weights

PROGRAM = program_for(STATE_LEAKY.cell(Frame()), surrogate.atan())
BACKENDS = ("loop", "numba")
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


def sums(backend: str, x: Tensor, decay: Tensor, K: int) -> Tensor:
    call = WindowCall(PROGRAM, x, decay, K, "the test")
    with snn.backend(backend):
        machine, _ = choose(call, WINDOWS)
        return machine.run(call)


def convolution(x: Tensor, decay: Tensor, K: int) -> Tensor:
    """The definition, in float64."""
    x, decay = x.double(), decay.double()
    terms = [torch.cat((torch.zeros_like(x[:k]), decay**k * x[: len(x) - k])) for k in range(min(K, len(x)))]
    return torch.stack(terms).sum(0)


def outcome(backend: str, x: Tensor, decay: Tensor, K: int) -> Outcome:
    x, decay = x.clone().requires_grad_(), decay.to(x.dtype).requires_grad_()
    mem = sums(backend, x, decay, K)
    grads = torch.autograd.grad((mem * weights(mem, 0)).sum(), (x, decay))
    return Outcome({}, {"mem": mem.detach()}, dict(zip(("x", "decay"), grads, strict=True)))


@for_each("backend", BACKENDS)
@for_each("decay", DECAYS.values())
@for_each(("T", "K"), SIZES)
def test_they_are_the_convolution(T, K, decay, backend):
    x = torch.randn(T, 3, 5, dtype=torch.float64)
    assert_close(sums(backend, x, decay.double(), K), convolution(x, decay, K), "mem")


@for_each("dtype", [torch.float32, torch.float64])
@for_each("decay", DECAYS.values())
@for_each(("T", "K"), SIZES)
def test_the_kernel_gives_what_the_law_gives(T, K, decay, dtype):
    x = torch.randn(T, 3, 5, dtype=dtype)
    assert_same(outcome("numba", x, decay, K), outcome("loop", x, decay, K), exact_states=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_finite_differences(backend):
    x, decay = torch.randn(9, 2, 3, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, decay: sums(backend, x, decay, 4), (x.requires_grad_(), decay.requires_grad_())
    )


@pytest.mark.parametrize("K", [1, 10, 1000])
@pytest.mark.parametrize("decay", [1.0, 0.999, 0.9, 0.1])
def test_float32_loses_no_more_than_the_terms_of_one_window_round(decay, K):
    """10,000 steps of inputs that add up: the difference of two sums would be off by some 1e-4 of it here."""
    x, decay = torch.rand(10_000, 1, 2), torch.tensor(decay)
    wanted = convolution(x, decay, K)
    assert float(((sums("numba", x, decay, K) - wanted) / wanted).abs().max()) < 2e-7 * (4 + K**0.5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number_leaves_with_its_window(bad, backend):
    x = torch.rand(40, 1, 2)
    x[13, 0, 0] = bad
    spoilt = ~sums(backend, x, torch.tensor(0.9), 7).isfinite()
    assert spoilt[13:20, 0, 0].all()
    assert spoilt.sum() == 7


def test_any_number_of_threads_and_of_elements_gives_the_same_bits(monkeypatch, tuned):
    x, decay = torch.randn(30, 2, 5001), torch.rand(5001)
    alone = outcome("numba", x, decay, 11)
    tuned(serial_below=0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    together = outcome("numba", x, decay, 11)
    assert torch.equal(alone.states["mem"], together.states["mem"])
    assert all(torch.equal(alone.gradients[name], together.gradients[name]) for name in ("x", "decay"))


def test_it_takes_sequences_whose_rows_lie_apart_and_gradients_that_are_one_number():
    x = torch.randn(2, 5, 3).transpose(0, 1)
    every = torch.randn(20, 2, 3)[::4].requires_grad_()
    decay = torch.tensor(0.5)
    assert torch.equal(sums("numba", x, decay, 2), sums("loop", x, decay, 2))
    (grad,) = torch.autograd.grad(sums("numba", every, decay, 2).sum(), every)
    assert torch.equal(grad, torch.tensor([1.5] * 4 + [1.0]).view(5, 1, 1).expand(5, 2, 3))


@pytest.mark.parametrize("learn", [False, True], ids=["decay given", "decay learned"])
def test_torch_finds_the_operator_sound(learn):
    """Its schema, its fake tensors, its autograd registration, under tracing with dynamic shapes."""
    x, decay = torch.randn(9, 2, 3, requires_grad=True), torch.rand(3).requires_grad_(learn)
    torch.library.opcheck(window._operator, (x, decay, 4, "the test"))


def test_a_second_derivative_is_refused_in_a_sentence_and_works_on_the_loop():
    x, decay = torch.randn(6, 1, 2, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(sums("numba", x, decay, 3).sum(), decay, create_graph=True)
    assert torch.autograd.gradgradcheck(lambda decay: sums("loop", x, decay, 3), (decay,))
