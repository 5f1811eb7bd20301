"""One thread, two threads, another library's threads, a forked child: always the same bits."""

import multiprocessing
import os
import threading

import pytest
import torch

from spikeloom.scan import kernels, threads

from ..cases import CELLS
from ..oracle import Outcome
from .running import Job, call_of, leaves, outcome, run

LARGE = Job(CELLS["leaky subtract delayed"], 20, (5, 4099))
"""Enough work for several threads, in shares that no block divides."""


@pytest.fixture
def thread_count():
    """Sets torch's number of threads; puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def assert_same_bits(got: Outcome, wanted: Outcome) -> None:
    for ours, theirs in ((got.spikes, wanted.spikes), (got.states, wanted.states), (got.gradients, wanted.gradients)):
        for name in theirs:
            assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("cell", ["leaky subtract delayed", "leaky zero immediate", "two states", "to rest"])
def test_one_two_and_five_threads_give_the_same_bits(cell, thread_count):
    job = Job(CELLS[cell], 20, (5, 4099))
    results = []
    for count in (1, 2, 5):
        thread_count(count)
        results.append(outcome("numba", job))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


def test_the_work_of_this_module_is_shared_among_threads(thread_count):
    thread_count(2)
    assert threads.team_size(20 * 5 * 4099) == 2
    assert threads.team_size(threads.SERIAL_BELOW) == 1


def test_without_an_openmp_runtime_a_pool_gives_the_same_bits(thread_count, monkeypatch):
    thread_count(2)
    wanted = outcome("numba", LARGE)
    monkeypatch.setattr(threads, "openmp", lambda: None)
    monkeypatch.setattr(kernels, "_kernels", {})
    assert_same_bits(outcome("numba", LARGE), wanted)


def test_many_python_threads_run_kernels_at_once(thread_count):
    thread_count(2)
    jobs = [Job(CELLS["leaky subtract delayed"], 20, (5, 4099), seed=seed) for seed in range(4)]
    wanted = [outcome("numba", job) for job in jobs]
    got: dict[int, Outcome] = {}

    def work(k: int) -> None:
        for _ in range(5):
            got[k] = outcome("numba", jobs[k])

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for k in range(4):
        assert_same_bits(got[k], wanted[k])


def test_many_python_threads_ask_for_one_new_kernel_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKELOOM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernels, "_kernels", {})
    got: list[Outcome] = []
    workers = [threading.Thread(target=lambda: got.append(outcome("numba", LARGE))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(got) == 4
    for other in got[1:]:
        assert_same_bits(other, got[0])


def _in_child(call, upstream, connection) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False  # which torch does with its threads
    spk = run("numba", call).spk
    (gradient,) = torch.autograd.grad(spk, call.x, upstream)
    connection.send((spk.detach().numpy(), gradient.numpy()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_computes_the_same_though_its_parent_used_threads(thread_count):
    """The child does nothing large with torch itself, whose own threads do not survive a fork."""
    thread_count(2)
    call = call_of(LARGE, leaves(LARGE))
    upstream = torch.ones(20, 5, 4099)
    wanted = run("numba", call).spk
    (gradient,) = torch.autograd.grad(wanted, call.x, upstream)
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    child = fork.Process(target=_in_child, args=(call, upstream, theirs))
    child.start()
    assert ours.poll(60), "the child hangs"
    for got, expected in zip(ours.recv(), (wanted.detach(), gradient), strict=True):
        assert torch.equal(torch.from_numpy(got), expected)
    child.join(10)
    assert child.exitcode == 0
