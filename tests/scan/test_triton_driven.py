"""Neurons whose membrane comes back into their inputs through a product: Triton takes the rest of each step."""

import numpy as np
import pytest
import torch

import spikeloom as snn

from ..neurons.zoo import made, sequence
from ..oracle import assert_close
from .test_triton import DEVICE


@pytest.fixture(autouse=True)
def quiet():
    """The interpreter's NumPy warns of infinities and NaN, also in lanes that nobody reads."""
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("unrolled", [False, True], ids=["steps", "unrolled"])
@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
@pytest.mark.parametrize("name", ["SLSTM", "SConv2dLSTM"])
def test_a_membrane_that_comes_back_through_a_layer_goes_step_by_step(name, reset, unrolled):
    """Outputs and all gradients, by the same layer's product and one kernel a step for the rest."""
    layer = made(name, init_hidden=True, output=True, reset_mechanism=reset, learn_threshold=True).to(DEVICE)
    x, found = sequence(name, 4).to(DEVICE).requires_grad_(), []
    for machine in ("triton", "loop"):
        snn.utils.reset(layer)
        with snn.backend(machine):
            outs = snn.unroll(layer, x) if unrolled else [torch.stack(out) for out in zip(*map(layer, x), strict=True)]
        pull = [torch.linspace(-1, 1, out.numel(), device=DEVICE).view_as(out) for out in outs]
        found.append([*outs, *torch.autograd.grad(outs, [x, *layer.parameters()], pull)])
    (spk, *ours), (wanted, *theirs) = found
    assert torch.equal(spk, wanted)
    assert wanted.any()
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, name)


def test_explain_tells_that_such_a_membrane_goes_step_by_step():
    layer = made("SLSTM", init_hidden=True).to(DEVICE)
    with snn.backend("triton"):
        (row,) = snn.explain(layer, sequence("SLSTM").to(DEVICE)).rows
    assert row.backend == "triton, step by step"
    assert any("the membrane comes back through a layer of weights" in why for why in row.refusals)
