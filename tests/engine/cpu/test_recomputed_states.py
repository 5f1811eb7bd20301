"""Of a static input no states are kept: the backward makes them again, block by block, and gives the same gradients."""

from dataclasses import replace
from itertools import product

import pytest
import torch

import spikeloom as snn
from spikeloom.engine import tuning
from spikeloom.engine.graph import State
from spikeloom.engine.jit import buffer_pool
from spikeloom.engine.run import call

from ...cases import CELLS
from ...oracle import assert_same
from ..running import Job, away_from_thresholds, call_of, leaves, outcome

ORDINARY = ["leaky subtract delayed", "leaky zero immediate", "two states", "to rest"]
ONCE = ["alpha subtract delayed", "resonate_and_fire"]  # whose elementary functions are of parameters alone


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tuned) -> None:
    """Blocks of 64 elements, and no sequence too small."""
    tuned(pool_from=0, recompute_elements=0)
    monkeypatch.setattr(tuning, "shapes", replace(tuning.shapes, block=32))


def states(job: Job) -> set[State]:
    """What the kernel saves."""
    given = call_of(job, leaves(job))
    return set(call.variant_of(given, given.hoisted()).states)


@pytest.mark.parametrize("cell", ONCE)
def test_functions_that_are_taken_once_make_no_step_slow(cell, small):
    assert states(Job(CELLS[cell], 7, (2, 5), static=True, traced=False)) == {State.RECOMPUTED}


@pytest.mark.parametrize(
    ("cell", "learned"), [*((cell, "all") for cell in ORDINARY), *product(ORDINARY[1:3], ("input", "parameters"))]
)
def test_the_gradients_are_those_of_the_loop(cell, learned, small, tuned):
    """Several blocks, the last not full, shared by threads."""
    tuned(serial_below=0)
    learn = {"all": None, "input": ("x",), "parameters": tuple(CELLS[cell].params)}[learned]
    job = Job(CELLS[cell], 7, (3, 67), static=True, traced=False, learn=learn, outputs=("spk", "final_states"))
    job = away_from_thresholds(job)
    assert states(job) == {State.RECOMPUTED}
    assert_same(outcome("numba", job), outcome("loop", job), exact_states=job.case.exact)


def test_each_thread_makes_them_in_memory_of_its_own(small, monkeypatch, tuned):
    """Fresh memory is full of NaN here, and so stays what nobody has written."""
    empty, made = buffer_pool.empty, []
    monkeypatch.setattr(buffer_pool, "empty", lambda shape, like: made.append(empty(shape, like)) or made[-1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    tuned(serial_below=0)
    outcome("numba", Job(CELLS["leaky subtract delayed"], 7, (201,), static=True, traced=False, outputs=("spk",)))
    (each,) = [memory for memory in made if memory.shape == (2, 7, 64)]
    assert not each.isnan().flatten(1).all(1).any()


@pytest.mark.parametrize(
    "other",
    [{"static": False}, {"traced": True}, {"learn": ()}, {"case": CELLS["exponential"]}],
    ids=lambda o: next(iter(o)),
)
def test_states_are_made_again_only_where_that_is_faster(other, small):
    job = Job(CELLS["leaky subtract delayed"], 7, (2, 5), static=True, traced=False)
    assert states(job) == {State.RECOMPUTED}
    assert State.RECOMPUTED not in states(replace(job, **other))


@pytest.mark.parametrize("steps", [2048, 2049, 4000])
def test_states_that_are_too_many_for_the_cache_are_saved_whatever_the_limit(steps, tuned):
    """A block of no elements would have the kernel write out of bounds."""
    tuned(pool_from=0, recompute_elements=0)
    job = Job(CELLS["leaky subtract delayed"], steps, (2, 8), static=True, traced=False, outputs=("spk",))
    assert (State.RECOMPUTED in states(job)) == (steps == 2048)
    assert_same(outcome("numba", job), outcome("loop", job))


def test_small_sequences_and_long_ones_are_kept():
    most = tuning.shapes.recomputed_bytes // (4 * tuning.limits.recompute_elements)
    for steps, width, again in ((100, 4096, True), (100, 512, False), (most, 4096, True), (most + 8, 4096, False)):
        job = Job(CELLS["leaky subtract delayed"], steps, (1, width), static=True, traced=False)
        assert (State.RECOMPUTED in states(job)) == again, (steps, width)


def test_a_network_keeps_no_trace_of_its_static_layer():
    """Channels last, as a convolution leaves them; nothing that is saved has a row for each step."""
    lif = snn.Leaky(beta=0.9, init_hidden=True)
    x = torch.rand(2, 16, 40, 40).contiguous(memory_format=torch.channels_last).requires_grad_()
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        spk = snn.unroll(lif, x, steps=10)
    assert max(t.numel() for t in saved) == x.numel()
    weight = torch.rand_like(spk)
    (ours,) = torch.autograd.grad(spk, x, weight)
    snn.utils.reset(lif)
    with snn.backend("loop"):
        theirs = torch.autograd.grad(snn.unroll(lif, x, steps=10), x, weight)[0]
    assert spk.nbytes > tuning.limits.pool_from
    assert ours.stride() == x.stride()
    torch.testing.assert_close(ours, theirs)
