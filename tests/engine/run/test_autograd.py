"""The scan as torch sees it: an operator for compilers, a function for eager code."""

from dataclasses import replace

import pytest
import torch

from spikeloom.engine.graph import State
from spikeloom.engine.run import autograd
from spikeloom.engine.run.call import variant_of

from ...cases import CELLS
from ...oracle import assert_close
from ..running import Job, call_of, gradients, leaves, run

DROPPED, SAVED = State.DROPPED, State.SAVED
JOBS = {
    "training": Job(CELLS["two states"], 5, (2, 3)),
    "static": Job(CELLS["two states"], 5, (2, 3), static=True),
    "inference": Job(CELLS["two states"], 5, (2, 3), learn=()),
    "reading its input": Job(CELLS["polyglot"], 5, (2, 3), torch.float64),
}


def arguments(job, tensors):
    """What the operator takes for a job."""
    call = call_of(job, tensors)
    params = call.hoisted()
    given = "the test", call.steps, call.x, list(call.states), [p.detach() for p in params]
    return call.program.key, *given, *autograd._encoded(variant_of(call, params))


@pytest.mark.parametrize("name", JOBS)
def test_torch_finds_the_operator_sound(name):
    """Its schema, its fake tensors, its autograd registration, under tracing with dynamic shapes."""
    job = JOBS[name]
    tensors = leaves(job)
    torch.library.opcheck(autograd._operator, arguments(job, tensors))


@pytest.mark.parametrize("name", JOBS)
def test_the_operator_gives_what_the_function_gives(name):
    job = JOBS[name]
    results = []
    for through in ("function", "operator"):
        tensors = leaves(job)
        if through == "function":
            call = call_of(job, tensors)
            trajectory = run("numba", call)
            outs = [trajectory.spk, *trajectory.final_states, *trajectory.traces]
        else:
            call = call_of(job, tensors)
            params = call.hoisted()
            given = call.program.key, "the test", 5, call.x, list(call.states), list(params)
            outs = autograd._operator(*given, *autograd._encoded(variant_of(call, params)))
        results.append((outs, gradients(outs, tensors)))
    for ours, theirs in zip(results[0][0], results[1][0], strict=True):
        assert torch.equal(ours, theirs)
    for leaf, wanted in results[0][1].items():
        assert_close(results[1][1][leaf], wanted, leaf)


@pytest.mark.parametrize("name", ["training", "static", "reading its input"])
def test_the_second_derivative_is_that_of_the_loop(name):
    job, found = replace(JOBS[name], dtype=torch.float64), []
    for machine in ("loop", "numba"):
        tensors = leaves(job)
        out = run(machine, call_of(job, tensors))
        wanted = [t for t in tensors.values() if t.requires_grad]
        value = sum(t.square().sum() for t in (out.spk, *out.final_states, *out.traces))
        first = torch.autograd.grad(value, wanted, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), wanted)
        found.append([*first, *second])
    assert max(float(t.abs().max()) for t in found[0][-len(wanted) :]) > 0
    for ours, theirs in zip(*reversed(found), strict=True):
        assert_close(ours, theirs, "a derivative")


def test_a_second_backward_through_a_freed_graph_names_the_layer_and_the_fix():
    job = JOBS["training"]
    tensors = leaves(job)
    spk = run("numba", call_of(job, tensors)).spk
    spk.sum().backward()
    with pytest.raises(RuntimeError, match=r"the test got a gradient.*already freed.*utils.reset.*utils.detach"):
        spk.sum().backward()


def test_a_retained_graph_gives_the_same_gradient_again():
    job = JOBS["training"]
    tensors = leaves(job)
    spk = run("numba", call_of(job, tensors)).spk
    first, second = (torch.autograd.grad(spk.sum(), tensors["x"], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_every_result_may_be_detached_in_place_and_written():
    for job in (JOBS["training"], Job(CELLS["two states"], None, (2, 3), traced=False)):
        out = run("numba", call_of(job, leaves(job)))
        for result in (out.spk, *out.traces, *out.final_states):
            assert result.detach_().grad_fn is None


def test_a_saved_state_that_is_overwritten_is_noticed():
    job = JOBS["training"]
    tensors = leaves(job)
    out = run("numba", call_of(job, tensors))
    with torch.no_grad():
        out.traces[-1].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.spk.sum().backward()


def test_no_memory_is_shared_between_results_or_with_inputs():
    job = JOBS["training"]
    tensors = leaves(job)
    out = run("numba", call_of(job, tensors))
    seen = [t.untyped_storage().data_ptr() for t in (out.spk, *out.traces, *out.final_states, *tensors.values())]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("cell", "learn", "saved"),
    [
        ("synaptic subtract delayed", ("x",), (DROPPED, SAVED)),
        ("synaptic subtract delayed", ("x", "alpha"), (SAVED, SAVED)),
        ("rleaky subtract delayed", ("x",), (DROPPED, SAVED)),
        ("rleaky subtract delayed", ("x", "V"), (State.SPIKES, SAVED)),
        ("alpha subtract delayed", ("x",), (DROPPED, DROPPED, SAVED)),
        ("delta_leaky", ("x",), (SAVED, DROPPED)),
        ("leaky subtract delayed", ("x",), (SAVED,)),
    ],
)
def test_only_the_states_that_the_backward_reads_are_saved(cell, learn, saved):
    job = Job(CELLS[cell], 5, (2, 3), learn=learn, traced=False, outputs=("spk",))
    call = call_of(job, leaves(job))
    assert variant_of(call, call.hoisted()).states == saved


def test_a_state_that_is_the_spikes_is_no_second_sequence():
    job = Job(CELLS["rleaky subtract delayed"], 5, (2, 3))
    trajectory = run("numba", call_of(job, leaves(job)))
    assert trajectory.traces[0] is trajectory.spk
