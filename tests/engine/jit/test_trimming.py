"""Free memory of the C library goes back to the system, and that takes a small share of the time."""

import ctypes
import sys
from pathlib import Path

import pytest

from spikeloom.engine import tuning
from spikeloom.engine.jit import buffer_pool


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux" or buffer_pool._malloc_trim() is None, reason="needs glibc")
def test_holes_between_what_lives_are_given_back():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = (ctypes.c_void_p,)
    size, count = 100_000, 400  # each below what the C library asks the system for by itself
    blocks = [libc.malloc(size) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    before = resident()
    for block in blocks[::2]:
        libc.free(block)
    buffer_pool.trim()
    assert before - resident() > 0.8 * size * count / 2
    for block in blocks[1::2]:
        libc.free(block)


def test_trimming_takes_a_small_share_of_the_time(monkeypatch):
    now, trims = [0.0], []

    def trim():
        trims.append(now[0])
        now[0] += 0.5

    monkeypatch.setattr(buffer_pool, "perf_counter", lambda: now[0])
    monkeypatch.setattr(buffer_pool, "trim", trim)
    monkeypatch.setattr(buffer_pool, "_next", 0.0)
    while now[0] < 100:
        buffer_pool.trim_now_and_then()
        now[0] += 0.25
    assert len(trims) == pytest.approx(100 / (0.5 * (1 + tuning.limits.trim_share)), abs=1)
