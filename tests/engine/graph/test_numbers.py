"""Numbers are arguments of a kernel: other numbers are no other kernel, and nothing grows with them."""

import math

import pytest
import torch

import spikeloom as snn
from spikeloom import ops, surrogate
from spikeloom.engine import tuning
from spikeloom.engine.graph import program
from spikeloom.engine.jit import kernel_cache

from ...oracle import Outcome, assert_same

X = 2 * torch.rand(7, 3, 4, generator=torch.Generator().manual_seed(5))


def hill(u, height, power):
    return height / (1 + ops.abs(u)) ** 2 + math.exp(-power) * ops.clamp(u, -height, height)


def constant(u, height):
    return height


ANNEALED = {
    "atan": surrogate.atan,
    "fast_sigmoid": surrogate.fast_sigmoid,
    "sigmoid": surrogate.sigmoid,
    "triangular": surrogate.triangular,
    "spike_rate_escape": lambda k: surrogate.spike_rate_escape(beta=k, slope=2 * k),
    "LSO": surrogate.LSO,
    "SFS": lambda k: surrogate.SFS(slope=k, B=k / 2),
    "gaussian": surrogate.gaussian,
    "boxcar": surrogate.boxcar,
    "triangle": surrogate.triangle,
    "exponential": surrogate.exponential,
    "hill": lambda k: surrogate.Spike("hill", hill, {"height": k, "power": 2}),
    "constant": lambda k: surrogate.Spike("constant", constant, {"height": k}),
}
VALUES = (2, 1, 1.0, 0.5, 3.7, 25, 1e-3)


STEPPED = ("fast_sigmoid", "hill")
"""Those that also take a step by itself, which has a kernel of its own."""


def taken(lif, x, stepped):
    lif.zero_grad()
    snn.utils.reset(lif)
    x = x.clone().requires_grad_()
    spk, mem = snn.unroll(lif, x)
    fired, last = lif(x[0]) if stepped else (spk[-1], mem[-1])
    (spk.sum() + mem.square().sum() + (fired + last).sum()).backward()
    return Outcome({"spk": spk, "fired": fired}, {"mem": mem}, {"x": x.grad, "beta": lif.beta.grad})


@pytest.mark.parametrize("name", ANNEALED)
def test_a_slope_that_is_annealed_compiles_nothing(name):
    lif = snn.Leaky(beta=0.8, learn_beta=True, spike_grad=ANNEALED[name](2))
    twin = snn.Leaky(beta=0.8, learn_beta=True)
    stepped = name in STEPPED
    taken(lif, X, stepped)
    before, kept = kernel_cache.compilations(), len(program._by_key)
    for value in VALUES:
        lif.spike_grad = twin.spike_grad = ANNEALED[name](value)
        with snn.backend("loop"):
            wanted = taken(twin, X, stepped)
        assert_same(taken(lif, X, stepped), wanted)
    assert kernel_cache.compilations() == before
    assert len(program._by_key) == kept


def test_values_that_are_assigned_at_every_step_compile_nothing_and_are_not_kept():
    lif, twin = (snn.Leaky(beta=0.8, init_hidden=True, output=True) for _ in range(2))
    lif(X[0])
    snn.utils.reset(lif)
    before = kernel_cache.compilations()
    for step in range(200):
        for each in (lif, twin):
            each.beta, each.threshold = torch.tensor(0.5 + step / 500), torch.tensor(1 - step / 300)
        with snn.backend("loop"):
            wanted = twin(X[step % 7])
        for ours, theirs in zip(lif(X[step % 7]), wanted, strict=True):
            assert torch.equal(ours, theirs)
    assert kernel_cache.compilations() == before
    assert len(lif._program._constants) <= tuning.limits.constants_most


def test_equations_that_differ_in_their_numbers_share_their_kernels():
    def neuron_with(gain, rest):
        @snn.cell
        def neuron(x, mem, *, beta=0.5):
            mem = beta * mem + gain * x + ops.full_like(x, rest) * 3 + ops.where(x > rest, x, gain)
            return ops.spike(mem - 1), mem

        return neuron()

    snn.unroll(neuron_with(0.25, 0.3), X)
    before = kernel_cache.compilations()
    for gain, rest in ((0.3, 0.1), (-0.0, 1e-40), (1e30, math.inf), (1.5, 1.5)):
        ours, theirs = snn.unroll(neuron_with(gain, rest), X), None
        with snn.backend("loop"):
            theirs = snn.unroll(neuron_with(gain, rest), X)
        for got, wanted in zip(ours, theirs, strict=True):
            assert torch.equal(got, wanted) or (got.isnan() == wanted.isnan()).all()
    assert kernel_cache.compilations() <= before + 1  # (1.5, 1.5) is one number


@pytest.mark.compile
@pytest.mark.parametrize("learn_beta", [True, False])
def test_slopes_are_annealed_under_torch_compile_without_another_kernel(learn_beta):
    lif = snn.Leaky(beta=0.8, learn_beta=learn_beta, init_hidden=True)
    run = torch.compile(lambda x: snn.unroll(lif, x), backend="aot_eager")
    kernels, slopes = [], []
    for k in (2.0, 5.0, 9.0):
        lif.spike_grad = surrogate.fast_sigmoid(slope=k)
        gradients = []
        for forward in (run, lambda x: snn.unroll(lif, x)):
            snn.utils.reset(lif)
            x = X.clone().requires_grad_()
            forward(x).sum().backward()
            gradients.append(x.grad)
        assert torch.allclose(*gradients)
        slopes.append(gradients[0].norm().item())
        kernels.append(kernel_cache.compilations())
    assert len(set(slopes)) == 3
    assert kernels[1] == kernels[2]
