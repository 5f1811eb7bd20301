"""One thread, two threads, another library's threads, a forked child: always the same bits."""

import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.engine import tuning
from spikeloom.engine.cpu import launch
from spikeloom.engine.jit import openmp
from spikeloom.engine.sparse import conv, csr

from ...cases import CELLS
from ...oracle import Outcome
from ..running import Job, call_of, leaves, outcome, run

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
    assert openmp.team_size(20 * 5 * 4099) == 2
    assert openmp.team_size(tuning.limits.serial_below) == 1


def test_without_an_openmp_runtime_a_pool_gives_the_same_bits(thread_count, monkeypatch):
    thread_count(2)
    wanted = outcome("numba", LARGE)
    monkeypatch.setattr(openmp, "openmp", lambda: None)
    launch.kernel.cache_clear()
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
    launch.kernel.cache_clear()
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


COUNTED = ["openmp.py", "csr.py"]
"""Files that may ask torch for its number of threads: to size scratch memory, and then to run with as many."""


def test_the_number_of_threads_is_asked_for_in_few_places():
    folder = Path(openmp.__file__).parents[1]
    asking = [path.name for path in folder.rglob("*.py") if "torch.get_num_threads" in path.read_text()]
    assert sorted(asking) == sorted(COUNTED)


def scratch_of_every_kind() -> list[Callable[[], Sequence[Tensor]]]:
    """Calls of all kernels that have scratch memory, large enough for several threads; each gives its results."""
    g = torch.Generator().manual_seed(0)
    dense, weight = torch.rand(3000, 300, generator=g), torch.rand(90, 300, generator=g)
    spikes = (dense > 0.9).float()
    lists = csr.listed(spikes)
    few = torch.rand(8, 300, generator=g)
    images, kernel = (torch.rand(24, 16, 16, 16, generator=g) > 0.9).float(), torch.rand(64, 16, 3, 3, generator=g)
    patch = conv.Patch((3, 3), (1, 1), (1, 1), (0, 0))
    back = torch.rand(conv.Patch.result(patch, images, kernel), generator=g)
    leaky, x = snn.Leaky(0.9, learn_beta=True), torch.rand(1, 5, 20_003, generator=g)
    grads = torch.rand(3000, 90, generator=g), torch.rand(3000, 8, generator=g)
    matrix = snn.AssociativeLeaky(in_dim=16, d_value=16, d_key=16, num_spiking_neurons=256)
    series = torch.rand(40, 16, 16, generator=g)

    def static() -> Sequence[Tensor]:
        snn.utils.reset(leaky)
        held = x.clone().requires_grad_()
        with snn.backend("numba"):
            spk, mem = snn.unroll(leaky, held[0], steps=60)
        return spk, mem, *torch.autograd.grad(mem.sum(), [held, leaky.beta])

    def whole(neuron: nn.Module, given: Tensor) -> Sequence[Tensor]:
        with snn.backend("numba"):
            out = neuron(given)
        out = out if isinstance(out, tuple) else (out,)
        loss = sum(o.sum() for o in out)
        return *out, *torch.autograd.grad(loss, [p for p in neuron.parameters() if p.requires_grad], allow_unused=True)

    return [
        static,
        lambda: whole(matrix, series),
        lambda: [csr.product(lists, csr.pack_panels(weight.t()), None)],
        lambda: csr.outer((lists, grads[0])),
        lambda: [csr.narrow_product(dense, few, None), csr.narrow_input_gradient(grads[1], few)],
        lambda: [
            conv.convolution(images, kernel, None, patch)[0],
            conv.weight_gradient(images, back, patch),
        ],
        lambda: [conv.input_gradient(back, kernel, images, patch)],
    ]


@pytest.mark.parametrize("number", range(7))
def test_scratch_memory_is_for_the_threads_that_use_it(number, thread_count, monkeypatch, tuned):
    """Another thread of Python calls `torch.set_num_threads` between any two looks at it."""
    thread_count(2)
    call = scratch_of_every_kind()[number]
    tuned(serial_below=0)
    torch.manual_seed(0)
    wanted = call()
    real, asked = torch.get_num_threads, itertools.count()

    monkeypatch.setattr(torch, "get_num_threads", lambda: (1, 8, 2, 5)[next(asked) % 4])
    for _ in range(4):
        for ours, theirs in zip(call(), wanted, strict=True):
            if ours is not None:
                torch.testing.assert_close(ours, theirs)
    assert real() == 2
