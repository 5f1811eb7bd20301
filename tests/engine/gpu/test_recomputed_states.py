"""States that nobody asks for: Triton's kernels keep those of one step in a span, and rebuild the others."""

from dataclasses import replace

import pytest
import torch

import spikeloom as snn
from spikeloom.engine.gpu.source import SPAN
from spikeloom.engine.graph import State, Target
from spikeloom.engine.run.call import variant_of

from ...cases import CELLS, DTYPES
from ..running import Job, call_of, leaves, outcome
from .test_triton import DEVICE, UNREQUESTED, assert_equals_reference

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("quiet", "no_numba")]


@pytest.mark.parametrize(
    ("steps", "static", "learn", "dtype"),
    [
        (5, False, (), "float32"),
        (5, False, None, "float64"),
        (SPAN, True, None, "float32"),
        (2 * SPAN + 3, False, None, "float32"),
        (2 * SPAN + 3, False, ("x",), "float64"),
        (2 * SPAN + 3, True, None, "float64"),
    ],
)
@pytest.mark.parametrize("cell", ["leaky subtract delayed", "rleaky zero immediate", "two states", "exponential"])
def test_without_a_trace_of_the_states(cell, steps, static, learn, dtype):
    assert_equals_reference(Job(CELLS[cell], steps, (7,), DTYPES[dtype], static=static, learn=learn, **UNREQUESTED))


@pytest.mark.parametrize("cell", ["alpha zero immediate", "exponential_if", "izhikevich"])
def test_states_that_are_rebuilt_are_those_that_were_kept_bit_for_bit(cell):
    job = Job(CELLS[cell], 2 * SPAN + 3, (7,), device=DEVICE, **UNREQUESTED)
    rebuilt, kept = outcome("triton", job).gradients, outcome("triton", replace(job, traced=True)).gradients
    assert all(torch.equal(rebuilt[name], kept[name]) for name in kept)


@pytest.mark.parametrize(
    ("cell", "saved"), [("exponential_if", State.SPANS), ("state_leaky", State.SAVED), ("polyglot", State.SAVED)]
)
def test_states_are_rebuilt_unless_steps_can_be_joined_or_take_long_to_compile(cell, saved):
    job = Job(CELLS[cell], 5, (7,), **UNREQUESTED)
    call = call_of(job, leaves(job))
    assert set(variant_of(call, call.hoisted(), Target.TRITON).states) == {saved}


def test_of_the_states_one_in_a_span_is_saved_and_the_input_by_reference():
    """So torch itself says so where that was changed before the backward."""
    x, saved = torch.rand(2 * SPAN + 3, 7, device=DEVICE, requires_grad=True), []
    layer = snn.Leaky(beta=0.8, init_hidden=True).to(DEVICE)
    with snn.backend("triton"), torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        snn.unroll(layer, x)
    assert sorted(t.numel() // 7 for t in saved if t.dim() and t.data_ptr() != x.data_ptr()) == [1, 2]
    assert [t.shape for t in saved if t.data_ptr() == x.data_ptr()] == [x.shape]
    layer.reset_mem()
    with snn.backend("triton"):
        spk = snn.unroll(layer, written := x * 2)
    written.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spk.sum().backward()
