"""Recurrence of neurons made from an equation: their spikes are fed back as in RLeaky."""

import copy
import pickle

import pytest
import torch

import spikeloom as snn
from spikeloom import ops

XS = torch.rand(12, 3, 4, generator=torch.Generator().manual_seed(1)) * 2 - 0.5


def leaky_charge(x, mem, *, beta=0.8):
    return (beta * mem + x,)


def leaky_cell(x, mem, *, beta=0.8, threshold=1.0):
    mem = beta * mem + x
    spk = ops.spike(mem - threshold)
    return spk, mem - ops.detach(spk) * threshold


@snn.cell(charge=True, recurrent=True, decays="beta")
def Charged(x, mem, *, beta=0.8):
    return leaky_charge(x, mem, beta=beta)


FedBack = snn.cell(recurrent=True)(leaky_cell)
KINDS = {
    "one-to-one": {"V": torch.tensor([-0.4, 0.3, 0.5, -0.2]), "all_to_all": False},
    "Linear": {"linear_features": 4},
    "Conv2d": {"conv2d_channels": 2, "kernel_size": 3},
}


def run_back(lif, xs, backend):
    """Outputs and gradients of a sequence."""
    xs = xs.clone().requires_grad_()
    snn.reset(lif)
    with snn.backend(backend):
        outs = snn.unroll(lif, xs)
    sum((out * torch.linspace(-0.5, 1.0, out.numel()).view_as(out)).sum() for out in outs).backward()
    return [*outs, xs.grad, *[p.grad for p in lif.parameters()]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_recurrent_charge_is_a_recurrent_leaky(kind):
    xs = XS if kind != "Conv2d" else torch.rand(6, 2, 2, 3, 4) * 2 - 0.5
    torch.manual_seed(0)
    wanted = run_back(snn.RLeaky(0.8, **KINDS[kind]), xs, "loop")
    for backend in ("loop", "numba"):
        torch.manual_seed(0)
        for got, right in zip(run_back(Charged(0.8, **KINDS[kind]), xs, backend), wanted, strict=True):
            torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["one-to-one", "Linear"])
def test_a_recurrent_cell_is_fused_and_follows_the_loop_over_its_equation(kind):
    torch.manual_seed(0)
    lif = FedBack(0.8, learn="beta", **KINDS[kind])
    twin, plain = copy.deepcopy(lif), snn.cell(leaky_cell)(0.8)
    spk, outs = torch.zeros_like(XS[0]), []
    for x in XS:
        spk, _ = plain(x + lif.recurrent(spk))
        outs.append(spk)
    assert torch.equal(torch.stack(outs), snn.unroll(lif, XS)[0])
    assert snn.explain(lif, XS).rows[0].backend == "numba"
    for got, right in zip(run_back(lif, XS, "numba"), run_back(twin, XS, "loop"), strict=True):
        torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-5)


def test_a_recurrent_cell_returns_its_spikes_once_and_has_the_arguments_of_a_recurrent_leaky():
    lif = FedBack(linear_features=4, init_hidden=True, output=True)
    assert [out.shape for out in lif(XS[0])] == [(3, 4), (3, 4)]
    assert lif._state_names() == ("spk", "mem")
    assert set(lif.state_dict()) == {"beta", "threshold", "recurrent.weight", "recurrent.bias"}
    assert [name for name, _ in FedBack(all_to_all=False, learn="beta").named_parameters()] == ["beta", "V"]
    assert isinstance(lif, snn.EquationNeuron)
    assert pickle.loads(pickle.dumps(Charged(all_to_all=False))).all_to_all is False
