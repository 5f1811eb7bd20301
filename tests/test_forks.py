"""A forked child hangs at no lock that another thread of its parent held."""

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import spikeloom as snn
from spikeloom import forks, scoped
from spikeloom.engine.cpu import launch
from spikeloom.engine.gpu import cuda_graphs
from spikeloom.engine.jit import kernel_cache

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@contextmanager
def held(lock: Any) -> Iterator[None]:
    """Another thread holds the lock."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()


def status_of_child(work: Callable[[], object], seconds: int = 60) -> int:
    """0 if a forked child has done the work in time."""
    child = os.fork()
    if not child:
        try:
            signal.alarm(seconds)
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1]


def train(layers: int = 1) -> None:
    """A first kernel is compiled, another context is entered."""
    x = torch.rand(6, 2, 3, requires_grad=True)
    with snn.backend("numba"):
        for _ in range(layers):
            _, mem = snn.unroll(snn.Leaky(0.9), x)
            mem.sum().backward()


def locks() -> dict[str, Any]:
    import llvmlite.binding
    from numba.core import registry
    from numba.core.compiler_lock import global_compiler_lock

    return {
        "the cache": kernel_cache._lock,
        "numba's compiler": global_compiler_lock,
        "numba's types": registry.cpu_target.typing_context.callstack._lock,
        "llvm": llvmlite.binding.ffi.lib._lock,
        "the recorder": cuda_graphs._lock,
    }


NAMES = ("the cache", "numba's compiler", "numba's types", "llvm", "the recorder")


@pytest.mark.parametrize("name", NAMES)
def test_a_child_compiles_while_a_thread_of_its_parent_holds(name, monkeypatch, tmp_path):
    train()  # numba is loaded
    monkeypatch.setenv(kernel_cache.ENVIRONMENT, str(tmp_path))

    def work() -> None:
        launch.kernel.cache_clear()
        train()
        assert kernel_cache.cache_size()[0] == 2

    with held(locks()[name]):
        assert status_of_child(work) == 0
    launch.kernel.cache_clear()
    train()  # and so does the parent, which has its own lock still


@pytest.mark.parametrize("name", NAMES)
def test_each_lock_is_free_in_the_child(name):
    train()
    with held(locks()[name]):
        assert status_of_child(lambda: locks()[name].__enter__(), 10) == 0


def test_every_lock_of_the_package_is_in_one_of_these_tests():
    package = Path(snn.__file__).parent
    makers = ("Lock()", "RLock()", "Condition(", "Semaphore(", "from functools import cached_property", "Queue(")
    texts = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
    found = {name for name, text in texts.items() if any(maker in text for maker in makers)}
    assert found == {
        "engine/jit/kernel_cache.py",
        "engine/jit/numba_jit.py",
        "engine/gpu/cuda_graphs.py",
    }


def test_who_forks_within_a_lock_leaves_it():
    """As a thread that starts a process while it compiles."""
    context = scoped.Scoped("a context of this test", 0, outer=True)

    def work() -> None:
        with context.set(2):
            assert context.get() == 2

    with kernel_cache._lock, cuda_graphs._lock, context.set(1):
        child = os.fork()
        if not child:
            signal.alarm(30)
    if not child:
        work()
        with kernel_cache._lock, cuda_graphs._lock:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_children_forked_while_threads_compile(monkeypatch, tmp_path):
    """At moments that nobody chooses. LLVM's own state is then what it is: the child loads what is on disk."""
    monkeypatch.setenv(kernel_cache.ENVIRONMENT, str(tmp_path))
    train()

    def work() -> None:
        launch.kernel.cache_clear()
        train()

    stop = threading.Event()

    def compile_again() -> None:
        numbers = itertools.count()
        while not stop.is_set():
            source = f"VALUE = {next(numbers)}\n"
            kernel_cache.load(lambda cached, source=source: source)

    thread = threading.Thread(target=compile_again)
    thread.start()
    try:
        for _ in range(10):
            assert status_of_child(work) == 0
            time.sleep(0.01)
    finally:
        stop.set()
        thread.join()


def test_a_cached_property_has_no_lock():
    """That of functools holds one while it computes, before Python 3.12: for all objects of the class."""
    computing, done = threading.Event(), threading.Event()

    class Slow:
        calls = 0

        @forks.cached_property
        def value(self) -> int:
            self.calls += 1
            if threading.current_thread() is not threading.main_thread():
                computing.set()
                done.wait(60)
            return 3

    thread = threading.Thread(target=lambda: Slow().value)
    thread.start()
    assert computing.wait(60)
    try:
        assert status_of_child(lambda: Slow().value, 10) == 0
    finally:
        done.set()
        thread.join()
    slow = Slow()
    assert (slow.value, slow.value, slow.calls) == (3, 3, 1)
    assert isinstance(Slow.value, forks.cached_property)
