"""The files of all kernels stay within a limit, and those that were not used for the longest go."""

import os
from pathlib import Path

import pytest

from spikeloom.engine.jit import kernel_cache

from .test_cache_faults import compilations_of, place, source

__all__ = ["place"]  # a fixture


def stored(place: Path) -> int:
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def test_the_kernels_that_were_not_used_for_the_longest_go(place, monkeypatch):
    compilations_of(1, 2, 3)
    for age, number in enumerate((2, 3, 1)):  # 2 was used the longest ago
        seal = place / f"{kernel_cache.load(source(number)).__name__}.sha256"
        os.utime(seal, (2**31 + age, 2**31 + age))  # not the source's time, by which Numba knows it
    size = stored(place) / 3
    monkeypatch.setenv(kernel_cache.LIMIT, str(3.5 * size / 1e6))
    monkeypatch.setattr(kernel_cache, "_left", {})
    assert compilations_of(4) == 1
    assert 2.5 * size < stored(place) <= 3.5 * size
    assert compilations_of(1, 3, 4) == 0
    assert compilations_of(2) == 1


def test_use_is_noted(place):
    compilations_of(1)
    (seal,) = place.glob("*.sha256")
    os.utime(seal, (1, 1))
    assert compilations_of(1) == 0
    assert seal.stat().st_mtime > 1


@pytest.mark.parametrize("limit", ["0", "0.001", "0.05"])
def test_no_process_goes_beyond_the_limit(place, monkeypatch, limit):
    monkeypatch.setenv(kernel_cache.LIMIT, limit)
    largest = 0
    for number in range(8):
        compilations_of(number)
        largest = max(largest, stored(place) / max(kernel_cache.cache_size()[0], 1))
        assert stored(place) <= max(float(limit) * 1e6, largest)
    assert compilations_of(7) == 0  # the last stays in any case


def test_a_kernel_that_another_process_loads_stays(place, monkeypatch):
    compilations_of(1)
    monkeypatch.setenv(kernel_cache.LIMIT, "0")
    monkeypatch.setattr(kernel_cache, "_left", {})
    path = place / f"{kernel_cache.load(source(1)).__name__}.py"
    ready, done = os.pipe(), os.pipe()
    child = os.fork() if hasattr(os, "fork") else pytest.skip("no fork on this platform")
    if not child:
        with kernel_cache._one_process(path):
            os.write(ready[1], b"1")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        assert compilations_of(2) == 1
        assert path.exists()
    finally:
        os.write(done[1], b"1")
        os.waitpid(child, 0)
    monkeypatch.setattr(kernel_cache, "_left", {})
    assert compilations_of(3) == 1
    assert not path.exists()


@pytest.mark.parametrize("limit", ["many", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(place, monkeypatch, limit):
    monkeypatch.setenv(kernel_cache.LIMIT, limit)
    with pytest.raises(
        ValueError, match=f"{kernel_cache.LIMIT} must be a number of megabytes from 0 on, got '{limit}'"
    ):
        kernel_cache.cache_limit()
