"""Memory of large results is used again, and never while anyone can still see it."""

import gc
import os
import threading
import weakref

import pytest
import torch

import spikeloom as snn
from spikeloom.engine import tuning
from spikeloom.engine.jit import buffer_pool

LARGE = (tuning.limits.pool_from // 4,)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(buffer_pool, "_unused", {})


def take(shape=LARGE, dtype=torch.float32):
    return buffer_pool.empty(shape, torch.empty(0, dtype=dtype))


def test_the_memory_of_a_dead_result_is_used_again():
    first = take()
    address = first.data_ptr()
    del first
    assert take().data_ptr() == address


@pytest.mark.parametrize(
    "keep",
    [
        lambda t: t,
        lambda t: t[5:6],
        lambda t: t.detach(),
        lambda t: t.numpy(),
        lambda t: t.view(torch.int32),
        lambda t: t.untyped_storage(),
    ],
    ids=["tensor", "view", "detached", "array", "other dtype", "storage"],
)
def test_memory_that_is_still_seen_is_not_given_away(keep):
    first = take().fill_(3)
    address, kept = first.data_ptr(), keep(first)
    del first
    gc.collect()
    others = [take().fill_(7) for _ in range(3)]
    assert address not in [other.data_ptr() for other in others]
    del kept
    assert take().data_ptr() == address


def test_memory_saved_for_a_backward_is_kept():
    first = take().fill_(3)
    leaf = torch.ones(LARGE, requires_grad=True)
    product = leaf * first
    del first
    take().fill_(7)
    product.sum().backward()
    assert torch.equal(leaf.grad, torch.full(LARGE, 3.0))


def test_only_a_block_of_the_same_size_fits():
    first = take()
    address = first.data_ptr()
    del first
    assert take((LARGE[0] + 16,)).data_ptr() != address
    assert take((LARGE[0] // 2,), torch.float64).data_ptr() == address


def test_no_more_is_kept_than_agreed_and_the_oldest_goes_first(tuned):
    tuned(pool_most=3 * tuning.limits.pool_from)
    blocks = [take() for _ in range(5)]
    addresses = [b.data_ptr() for b in blocks]
    while blocks:
        del blocks[0]
    assert list(buffer_pool._unused) == addresses[-3:]


def test_small_memory_is_left_to_torch():
    take((10,))
    assert not buffer_pool._unused


def test_threads_never_get_the_same_memory():
    clashes = []

    def work(number: float) -> None:
        for _ in range(200):
            mine = take().fill_(number)
            if not bool((mine == number).all()):
                clashes.append(number)

    workers = [threading.Thread(target=work, args=(float(k),)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not clashes


def test_the_caller_may_resize_pickle_and_share_it(tmp_path):
    memory = take().fill_(2)
    torch.save(memory, tmp_path / "memory.pt")
    assert torch.equal(torch.load(tmp_path / "memory.pt"), memory)
    assert memory.share_memory_().is_shared()


def test_results_of_ever_new_sizes_do_not_pile_up(tuned):
    """All blocks together are what was in use at once, and the spare ones."""
    tuned(pool_spare=3 * tuning.limits.pool_from)
    for extra in range(20):
        take((LARGE[0] + 16 * extra,))
        assert sum(map(len, buffer_pool._unused.values())) < 5 * tuning.limits.pool_from
    assert len(buffer_pool._unused) > 1


def test_unused_memory_is_given_back_when_asked():
    blocks = [take() for _ in range(3)]
    in_use = blocks.pop().fill_(3)
    blocks.clear()
    kept = [weakref.ref(block) for block in buffer_pool._unused.values()]
    assert len(kept) == 2
    snn.utils.free_memory()
    assert [ref() for ref in kept] == [None, None]
    assert torch.equal(in_use, torch.full(LARGE, 3.0))


def test_memory_that_the_system_lacks_is_reported():
    with pytest.raises(MemoryError, match="the system has no 562949953421312 bytes of memory"):
        take((1 << 47,))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_to_memory_of_its_own():
    mine = take().fill_(3)
    child = torch.multiprocessing.get_context("fork").Process(target=mine.numpy().fill, args=(7.0,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert torch.equal(mine, torch.full(LARGE, 3.0))


def test_fresh_bytes_are_filled_as_torch_fills_them():
    like = torch.empty(0, dtype=torch.uint8)
    assert torch.equal(
        buffer_pool.empty((tuning.limits.pool_from,), like), torch.empty(tuning.limits.pool_from, dtype=torch.uint8)
    )
