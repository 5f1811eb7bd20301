"""What may befall the kernel cache: other users, planted files, a full disk, deletion, interrupts, too many kernels."""

import builtins
import contextlib
import errno
import os
import py_compile
import shutil
import stat
import threading
import warnings
from pathlib import Path

import pytest
import torch
from numba.core import caching

import spikeloom as snn
from spikeloom.engine.cpu import launch
from spikeloom.engine.jit import kernel_cache

from .test_kernel_cache import SCRIPT, compiled_here, expected_gradient, start

posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX rights")

ARITHMETIC = (
    '"""A title."""\nfrom numba import cfunc, types\n@cfunc(types.int64(types.int64), cache={cached})\ndef kernel(x):\n'
)
"""The head of a module that compiles soon."""


def source(number: int):
    return lambda cached: ARITHMETIC.format(cached=cached) + f"    return x + {number}\n"


def value(number: int) -> int:
    """That of a kernel, found or compiled."""
    return kernel_cache.load(source(number)).kernel.ctypes(0)


def compilations_of(*numbers: int) -> int:
    before = kernel_cache.compilations()
    for number in numbers:
        assert value(number) == number
    return kernel_cache.compilations() - before


@pytest.fixture
def place(tmp_path, monkeypatch):
    directory = tmp_path / "kernels"
    monkeypatch.setenv(kernel_cache.ENVIRONMENT, str(directory))
    return directory


@pytest.fixture
def issued():
    """The warnings of the test."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def the_warning(issued) -> str:
    (warning,) = issued
    return str(warning.message)


def modes(directory: Path) -> dict[str, int]:
    return {str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*")}


@posix
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_only_the_user_can_read_and_write(place, umask):
    before = os.umask(umask)
    try:
        assert compilations_of(1) == 1
        assert compilations_of(1) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {mode for name, mode in modes(place).items() if name != "__pycache__"} == {0o600}
    assert modes(place)["__pycache__"] == 0o700


@posix
@pytest.mark.parametrize(
    ("mode", "below"), [(0o720, "."), (0o702, "."), (0o777, "__pycache__"), (0o1777, "__pycache__")]
)
def test_a_directory_that_others_can_write_to_is_not_used(place, issued, mode, below):
    assert compilations_of(1) == 1
    (place / below).chmod(mode)
    before = sorted(place.rglob("*"))
    assert compilations_of(1, 2) == 2
    assert sorted(place.rglob("*")) == before
    assert "is not used (other users can write to" in the_warning(issued)
    (place / below).chmod(0o700)
    assert compilations_of(1, 2) == 1


@posix
@pytest.mark.parametrize("below", [".", "__pycache__"])
def test_a_directory_of_another_user_is_not_used(place, issued, below, monkeypatch):
    assert compilations_of(1) == 1
    theirs, real = place / below, Path.stat
    another = os.geteuid() + 1

    def status(path, *args, **more):
        found = real(path, *args, **more)
        return os.stat_result((*found[:4], another, *found[5:])) if path == theirs else found

    monkeypatch.setattr(Path, "stat", status)
    assert compilations_of(1) == 1
    assert "belongs to another user" in the_warning(issued)
    assert kernel_cache.ENVIRONMENT in the_warning(issued)


@posix
def test_a_link_is_followed_if_it_is_the_users_own(place, tmp_path, issued):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    place.symlink_to(tmp_path / "elsewhere")
    assert compilations_of(1) == 1
    assert compilations_of(1) == 0
    assert not issued


PLANTED = "import builtins\nbuiltins.planted = True\n"


@pytest.mark.parametrize("how", ["ahead", "behind", "instead", "link", "bytecode"])
def test_what_lies_in_a_file_is_never_executed(place, tmp_path, how, issued):
    assert compilations_of(1) == 1
    (file,) = place.glob("*.py")
    text, status = file.read_text(), file.stat()
    if how == "bytecode":
        file.write_text(PLANTED.ljust(len(text)))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        py_compile.compile(str(file))
        file.write_text(text)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif how == "link":
        (tmp_path / "other.py").write_text(text)
        file.unlink()
        file.symlink_to(tmp_path / "other.py")
    else:
        file.write_text({"ahead": PLANTED + text, "behind": text + PLANTED, "instead": PLANTED}[how])
    seal = file.with_suffix(".sha256")
    seal.write_text(kernel_cache._digest(file))
    assert compilations_of(1) == (0 if how == "bytecode" else 1)
    assert not hasattr(builtins, "planted")
    assert file.read_text() == text
    assert not file.is_symlink()


PLANTING = 'a"""\nimport builtins; builtins.planted = True\n"""'
NAMES = [PLANTING, "back\\slash\\", "a\nb", "'''", "\\N{no}", "\x00", "{x}", "é"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("machine", ["numba", "triton"])
def test_a_users_text_is_no_part_of_a_source(name, machine, place):
    if machine == "triton":
        pytest.importorskip("triton")
    spike = snn.surrogate.Spike(name, lambda u: 1 / (1 + u * u))
    results = []
    for backend in (machine, "loop"):
        x = torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with snn.backend(backend):
            spk, _ = snn.unroll(snn.Leaky(0.9, spike_grad=spike), 2 * x)
        results += [spk, *torch.autograd.grad(spk.sum(), x)]
    assert not hasattr(builtins, "planted")
    torch.testing.assert_close(results[0], results[2], rtol=0, atol=0)
    torch.testing.assert_close(results[1], results[3])


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink], ids=["cut", "flipped", "deleted"])
@pytest.mark.parametrize("pattern", ["*.py", "*.sha256", "*.nbi", "*.nbc"])
def test_a_damaged_file_is_made_again(place, pattern, damage):
    assert compilations_of(1, 2) == 2
    for file in place.rglob(pattern):
        damage(file)
    assert compilations_of(1, 2) == 2
    assert compilations_of(1, 2) == 0


# -- the disk ---------------------------------------------------------------------------------------------------------


def fail_at(monkeypatch, number: int, error: int) -> list[str]:
    """Have the write of that number raise, and all after it; the list grows by each that is tried."""
    tried: list[str] = []

    def guarded(name, write):
        def instead(*args, **more):
            tried.append(name)
            if len(tried) > number:
                raise OSError(error, os.strerror(error))
            return write(*args, **more)

        return instead

    monkeypatch.setattr(kernel_cache, "_write", guarded("ours", kernel_cache._write))
    kind = caching.IndexDataCacheFile
    for name in ("_save_index", "_save_data"):
        monkeypatch.setattr(kind, name, guarded(name, getattr(kind, name)))
    return tried


ERRORS = (errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@pytest.mark.parametrize(("number", "error"), [*((n, errno.ENOSPC) for n in range(4)), *enumerate(ERRORS)])
def test_a_full_disk_means_kernels_in_memory_and_one_warning(place, issued, monkeypatch, number, error):
    with monkeypatch.context() as patch:
        tried = fail_at(patch, number, error)
        assert compilations_of(1, 2) == 2
    assert len(tried) > number
    assert f"cannot be written ({os.strerror(error)})" in the_warning(issued)
    assert compilations_of(1, 2) == 2  # not left as it is, half written
    assert compilations_of(1, 2) == 0


def test_without_a_place_to_write_kernels_live_in_memory_with_one_warning(place, issued):
    place.write_text("a file, where a directory would have to be")
    assert compilations_of(1, 2) == 2
    assert "cannot be written" in the_warning(issued)
    assert kernel_cache.ENVIRONMENT in the_warning(issued)


LIMITED = """
import os, resource, signal, sys
from spikeloom.engine.cpu import launch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in (0, 3000, 20_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    os.environ["SPIKELOOM_CACHE_DIR"] = os.path.join(sys.argv[1], str(limit))
    launch.kernel.cache_clear()
    exec(sys.argv[2])
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX limits")
def test_a_real_limit_of_the_system(tmp_path):
    """One process meets three limits, each in a directory of its own."""
    process = start(tmp_path, LIMITED, str(tmp_path), SCRIPT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    compiled, totals = zip(*(line.split() for line in out.splitlines()), strict=True)
    assert compiled == ("2", "4", "6")  # so far
    assert [float(total) for total in totals] == [pytest.approx(expected_gradient())] * 3
    assert err.count("cannot be written") == 3


def test_a_deleted_directory_is_made_again(place, issued):
    for number in (1, 2):
        assert compilations_of(number) == 1
        shutil.rmtree(place)
    assert compilations_of(1) == 1
    assert compilations_of(1) == 0
    assert not issued


@pytest.mark.parametrize("what", [".", "__pycache__"])
@pytest.mark.parametrize("when", ["_write", "_sound", "_executed", "_save_data", "_save_index"])
def test_a_directory_deleted_in_the_middle(place, issued, monkeypatch, when, what):
    """Once before each of the steps."""
    owner = kernel_cache if hasattr(kernel_cache, when) else caching.IndexDataCacheFile
    real, left = getattr(owner, when), [place / what]

    def deleting(*args, **more):
        if left:
            shutil.rmtree(left.pop(), ignore_errors=True)
        return real(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(owner, when, deleting)
        assert value(1) == 1
    assert not left
    assert value(1) == 1
    assert compilations_of(1) == 0
    assert not issued


def read_only(monkeypatch, place: Path) -> None:
    """As for a user who may only read, root included."""
    real = os.access
    below = lambda path: Path(path) == place or place in Path(path).parents  # noqa: E731
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def write(path, *args):
        raise refused

    monkeypatch.setattr(os, "access", lambda path, mode: not below(path) and real(path, mode))
    monkeypatch.setattr(kernel_cache, "_write", write)
    monkeypatch.setattr(kernel_cache, "_discard", write)
    monkeypatch.setattr(kernel_cache, "_one_process", write)


def test_a_directory_that_can_only_be_read_is_used(place, issued, monkeypatch):
    assert compilations_of(1) == 1
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    read_only(monkeypatch, place)
    assert compilations_of(1) == 0
    assert not issued
    assert compilations_of(2) == 1
    assert "cannot be written (Permission denied)" in the_warning(issued)
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_made_read_only_in_between(place, issued, monkeypatch):
    """Between the look at it and the write."""

    def refuse(path, text):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(kernel_cache, "_write", refuse)
    assert compilations_of(1, 2) == 2
    assert "cannot be written (Permission denied)" in the_warning(issued)


# -- interrupts and threads -------------------------------------------------------------------------------------------


STAGES = ("_write", "_sound", "_discard", "_stored", "_shrink", "_save_data", "_save_index")


@pytest.mark.parametrize("when", STAGES)
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_leaves_a_cache_that_works(place, issued, monkeypatch, when, after):
    """Ctrl-C at one end of each stage, a lack of memory at the other: any two of stage, end and error meet."""
    error = (KeyboardInterrupt, MemoryError)[(STAGES.index(when) + after) % 2]
    owner = kernel_cache if hasattr(kernel_cache, when) else caching.IndexDataCacheFile
    real, left = getattr(owner, when), [1]

    def interrupted(*args, **more):
        if left and not after:
            raise error(left.pop())
        result = real(*args, **more)
        if left:
            raise error(left.pop())
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, when, interrupted)
        with contextlib.suppress(error):
            assert value(1) == 1
    assert not left
    assert value(1) == 1
    assert compilations_of(1) == 0
    assert not list(place.rglob("*.draft"))
    assert not issued


def test_two_threads_ask_for_one_kernel(place, issued):
    before, found = kernel_cache.compilations(), []
    workers = [threading.Thread(target=lambda: found.append(value(1))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [1] * 4
    assert kernel_cache.compilations() - before == 1
    assert not issued


def test_kernels_of_neurons_are_found_by_other_names(place, monkeypatch):
    """Of equal lines one file is kept, whatever the equation and the surrogate are called."""
    assert compiled_here(place, monkeypatch) == 2
    launch.kernel.cache_clear()
    before = kernel_cache.compilations()
    slope = snn.surrogate.atan().derivative
    spike = snn.surrogate.Spike("mine", slope, snn.surrogate.atan().constants)
    x = torch.linspace(0, 1, 60).reshape(10, 2, 3).requires_grad_()
    with snn.backend("numba"):
        _, mem = snn.unroll(snn.Leaky(0.9, spike_grad=spike), x)
    mem.sum().backward()
    assert kernel_cache.compilations() == before
