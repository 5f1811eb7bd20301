"""All-to-all recurrence as one of Triton's kernels agrees with the loop over the same layer."""

from dataclasses import replace

import pytest
import torch

import spikeloom as snn
from spikeloom import surrogate

from ...oracle import assert_close, assert_same
from ..cpu.test_recurrent import KINDS, RESETS, Case, closest, layer_of, outcome, run, tensors_of
from ..running import NEAR

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.triton,
    pytest.mark.usefixtures("quiet"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the cases live on the CPU, where Triton interprets"),
]


CASES = [
    *(replace(case, steps=4) for case in RESETS),
    *(Case(kind, static=True, learn=learn, steps=4) for kind in KINDS for learn in (None, ("x",))),
    *(Case(shape=shape, steps=3) for shape in ((7,), (1, 1), (17, 65), (2, 3, 5))),
    *(Case("RSynaptic", learn=learn, traced=traced, steps=4) for traced in (True, False) for learn in (
        (), ("x",), ("spk",), ("mem",), ("beta",), ("recurrent.weight",), ("recurrent.bias",))),
    Case(bias=False, steps=4),
    Case(steps=1),
    Case(options=(("spike_grad", surrogate.triangular()),), steps=4),
]  # fmt: skip


def ran_fused(layer, x):
    with snn.backend("triton"):
        return snn.explain(layer, x).rows[0].backend == "triton"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_sums_give_the_bits_of_the_loop(case):
    layer = layer_of(case)
    assert ran_fused(layer, torch.zeros(case.steps, *case.shape, dtype=case.dtype))
    assert_same(outcome("triton", case), outcome("loop", case), exact_states=True)


@pytest.mark.parametrize("kind", KINDS)
def test_other_sums_agree_to_rounding(kind):
    case = Case(kind, exact=False, shape=(20, 70), steps=5)
    case = next(drawn for drawn in (replace(case, seed=s) for s in range(1000)) if closest(drawn) > NEAR / 10)
    assert_same(outcome("triton", case), outcome("loop", case))


@pytest.mark.parametrize("where", ["weight", "input", "gradient"])
def test_infinity_flows_as_in_the_loop(where):
    results = []
    for backend in ("triton", "loop"):
        layer = layer_of(Case(steps=6))
        x = tensors_of(Case(steps=6), layer)["x"].detach()
        with torch.no_grad():
            if where == "weight":
                layer.recurrent.weight[2, 3] = float("inf")
            if where == "input":
                x[4, 1, 2] = float("inf")
        spk, *states = run(backend, layer, x.requires_grad_(), 6)
        cotangent = torch.ones_like(spk)
        if where == "gradient":
            cotangent[5, 2, 1] = float("inf")
        results.append([spk, *states, *torch.autograd.grad(spk, [x, *layer.recurrent.parameters()], cotangent)])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours.isfinite(), theirs.isfinite())
        assert_close(torch.nan_to_num(ours, 0, 0, 0), torch.nan_to_num(theirs, 0, 0, 0), where)


def test_half_precision_is_read_as_it_is():
    results = []
    for backend in ("triton", "loop"):
        layer = layer_of(Case(steps=4))
        x = tensors_of(Case(steps=4), layer)["x"].detach().half().requires_grad_()
        spk, mem = run(backend, layer, x, 4)
        assert (spk.dtype, mem.dtype) == (torch.float16, torch.float32)
        results.append((spk, mem, *torch.autograd.grad(spk.float().sum() + mem.sum(), [x, *layer.parameters()])))
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, "a result", exact=ours.dtype == torch.float32 and ours.dim() == 3)


def test_too_many_neurons_go_another_way_and_are_reported(tuned):
    tuned(gpu_recurrent_most=6)
    with snn.backend("triton"):
        message = str(snn.explain(layer_of(Case()), torch.zeros(2, 5, 7)))
    assert "triton, recorded" in message
    assert "takes up to 6 neurons, whose weights stay in the cache, got 7" in message
