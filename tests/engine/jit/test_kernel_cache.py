"""Kernels on disk: found again, safe with many processes, without a place to write, and with damaged files."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import spikeloom as snn
from spikeloom.engine.cpu import launch
from spikeloom.engine.jit import kernel_cache

SCRIPT = textwrap.dedent("""
    import torch, spikeloom as snn
    from spikeloom.engine.jit import kernel_cache as cache
    x = torch.linspace(0, 1, 60).reshape(10, 2, 3).requires_grad_()
    with snn.backend("numba"):
        spk, mem = snn.unroll(snn.Leaky(beta=0.9), x)
    mem.sum().backward()
    print(cache.compilations(), float(x.grad.sum()))
""")

COUNTS = textwrap.dedent("""
    import sys, torch
    from spikeloom.engine.jit import kernel_cache as cache
    from spikeloom.engine.sparse import csr as sparse
    total = 0.0
    for name in sys.argv[1:]:
        total += float(sparse.pack_panels(torch.ones(3, 70, dtype=getattr(torch, name))).panels.sum())
    print(cache.compilations(), total)
""")


def start(directory: Path, *script: str, **environment: str) -> "subprocess.Popen[str]":
    """A fresh process; it prints how many kernels it compiled, and a number.

    Args:
        directory: where kernels are kept.
        script: what it runs, and its arguments; otherwise a neuron, forward and backward.
        environment: its variables.
    """
    env = os.environ | {"SPIKELOOM_CACHE_DIR": str(directory), "PYTHONWARNINGS": "always"} | environment
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", *(script or (SCRIPT,))], env=env, stdout=pipe, stderr=pipe, text=True
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, float, str]:
    """How many kernels the process compiled, the gradient's sum, and what it wrote to stderr."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    compiled, total = out.split()
    return int(compiled), float(total), err


def expected_gradient() -> float:
    return 6 * sum((10 - k) * 0.9**k for k in range(10))


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A directory with the two kernels of the script, made by processes that started at once."""
    directory = tmp_path_factory.mktemp("kernels")
    results = [finish(process) for process in [start(directory) for _ in range(2)]]
    assert sum(compiled for compiled, _, _ in results) == 2, "each is compiled once"
    assert [total for _, total, _ in results] == [pytest.approx(expected_gradient())] * 2
    assert not any(err for _, _, err in results)
    return directory


def test_a_later_process_compiles_nothing(warm):
    compiled, total, err = finish(start(warm))
    assert (compiled, total, err) == (0, pytest.approx(expected_gradient()), "")


def test_kernels_of_several_processes_do_not_take_each_others_parts(tmp_path):
    """Numba links what is on disk by names, which it numbers anew in every process."""
    for process in [start(tmp_path, COUNTS, dtype) for dtype in ("float32", "float64")]:
        assert finish(process)[:2] == (1, 210)
    assert finish(start(tmp_path, COUNTS, "float32", "float64"))[:2] == (0, 420)


def compiled_here(directory: Path, monkeypatch) -> int:
    """How many kernels this process compiles when it looks for them in `directory`; checks what they compute."""
    monkeypatch.setenv(kernel_cache.ENVIRONMENT, str(directory))
    launch.kernel.cache_clear()
    before = kernel_cache.compilations()
    x = torch.linspace(0, 1, 60).reshape(10, 2, 3).requires_grad_()
    with snn.backend("numba"):
        _, mem = snn.unroll(snn.Leaky(beta=0.9), x)
    mem.sum().backward()
    assert float(x.grad.sum()) == pytest.approx(expected_gradient())
    return kernel_cache.compilations() - before


def test_size_counts_kernels_and_bytes(warm, monkeypatch):
    monkeypatch.setenv(kernel_cache.ENVIRONMENT, str(warm))
    count, size = kernel_cache.cache_size()
    assert count == 2
    assert size == sum(f.stat().st_size for f in warm.rglob("*") if f.is_file())


@pytest.mark.parametrize(
    ("platform", "variables", "wanted"),
    [
        ("linux", {"XDG_CACHE_HOME": "/c"}, "/c/spikeloom"),
        ("linux", {"HOME": "/h"}, "/h/.cache/spikeloom"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Caches/spikeloom"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/spikeloom"),
        ("linux", {"SPIKELOOM_CACHE_DIR": "/own", "XDG_CACHE_HOME": "/c"}, "/own"),
    ],
)
def test_the_place_follows_the_system_and_the_environment(platform, variables, wanted, monkeypatch):
    for name in ("SPIKELOOM_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert kernel_cache.cache_dir() == Path(wanted)


def test_a_change_in_any_file_that_kernels_import_is_another_kernel():
    """Else machine code from before the change would run."""
    folder = Path(kernel_cache.__file__).parents[1]
    sources = "".join(file.read_text() for file in folder.rglob("*.py"))
    folders = set(re.findall(r"from spikeloom\.engine\.(\w+)\.\w+ import \{?\w+", sources))
    known = {name.partition("/")[0].removesuffix(".py") for name in kernel_cache.CALLED}
    assert folders <= known
    called = "".join(file.read_text() for files in kernel_cache.CALLED for file in folder.glob(files))
    assert set(re.findall(r"^from \.\.(\w+)", called, re.M)) <= {*known, "graph"}, "nor do these"
    assert set(re.findall(r"^from \.\. import (.+)", called, re.M)) <= known, "nor do these"


def test_kernels_of_triton_are_counted_by_the_kinds_of_their_arguments(monkeypatch):
    before = kernel_cache.made_ready()
    a_device = {"by floats": object(), "by halves": object()}, "whatever else Triton keeps"
    kernel = SimpleNamespace(device_caches={0: a_device})
    monkeypatch.setitem(sys.modules, "spikeloom_triton_of_this_test", SimpleNamespace(kernel=kernel))
    assert kernel_cache.made_ready() == before + 2


def test_another_source_has_another_name(tmp_path, monkeypatch):
    monkeypatch.setenv(kernel_cache.ENVIRONMENT, str(tmp_path))
    modules = [kernel_cache.load(lambda cached, k=k: f"VALUE = {k}  # {cached}\n") for k in (1, 2)]
    assert [module.VALUE for module in modules] == [1, 2]
    assert len({module.__name__ for module in modules}) == 2


def test_a_forward_is_one_kernel_whatever_the_surrogate(tmp_path, monkeypatch):
    monkeypatch.setenv(kernel_cache.ENVIRONMENT, str(tmp_path))
    launch.kernel.cache_clear()  # another test may have had it compiled
    before = kernel_cache.compilations()
    for slope in (3.25, 4.75):
        with torch.no_grad(), snn.backend("numba"):
            snn.unroll(snn.Leaky(0.9, spike_grad=snn.surrogate.fast_sigmoid(slope), output=True), torch.rand(3, 2, 2))
    assert kernel_cache.compilations() == before + 1


def held(path: Path) -> bool:
    """Whether another process would wait for the lock of that kernel."""
    child = os.fork()  # which has no lock of ours
    if not child:
        signal.alarm(1)  # ends it where it waits
        with kernel_cache._one_process(path):
            os._exit(0)
    return os.waitpid(child, 0)[1] != 0


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_waits_for_a_kernel_that_another_makes_and_for_no_other(tmp_path):
    kernel, other = (tmp_path / f"kernel_{name}.py" for name in ("00000000", "00000001"))
    with kernel_cache._one_process(kernel):
        assert [held(kernel), held(other)] == [True, False]
    assert not held(kernel)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_a_kernel_is_made_does_not_keep_the_lock(tmp_path):
    kernel = tmp_path / "kernel_00000000.py"
    with kernel_cache._one_process(kernel):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        assert not held(kernel)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
