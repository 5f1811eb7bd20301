"""Kernels on disk: generated sources, next to Numba's machine code, named by a hash of their content.

Only source that this process generated is executed, never the text of a file. Machine code is loaded from a directory
that only this user, or root, can write to. Its index is a pickle: the checksum next to it detects damage, not an
attack.

Safe if several processes start at once (one compiles a kernel; others that need it wait and load it), if files are
damaged or deleted (they are recompiled), and if nothing can be written for lack of permissions or space (kernels are
then compiled in memory, with one warning).
"""

import contextlib
import errno
import hashlib
import linecache
import os
import shutil
import stat
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from ...caller import warn_caller
from ...forks import in_child
from .. import tuning

ENVIRONMENT = "SPIKELOOM_CACHE_DIR"

LIMIT = "SPIKELOOM_CACHE_MB"
"""The variable that bounds the files of all kernels, in megabytes; `cache_megabytes` of `Tuning` without it."""


NUMBA, TRITON = "spikeloom_kernel_", "spikeloom_triton_"
"""Prefixes of the names of modules, which are also the names of their files."""

_lock = threading.RLock()
_compilations = 0
_warned: set[Path] = set()
_left: dict[Path, int] = {}
"""The bytes that this process may write to a directory before it checks the size of all files again."""


@in_child
def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


def compilations() -> int:
    """The number of kernels that this process has compiled, without those found on disk."""
    return _compilations


def made_ready() -> int:
    """The number of kernels that this process has compiled or loaded from disk; for Triton, one for each argument
    specialization."""
    modules = list(sys.modules.items())
    by_numba = sum(name.startswith(NUMBA) for name, _ in modules)
    by_triton = [getattr(module, "kernel", None) for name, module in modules if name.startswith(TRITON)]
    ways = [known for kernel in by_triton for known, *_ in getattr(kernel, "device_caches", {}).values()]
    return by_numba + sum(map(len, ways))


def cache_dir() -> Path:
    """The directory of the kernels: $SPIKELOOM_CACHE_DIR, else spikeloom/ in the user's cache directory."""
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "spikeloom"


def cache_limit() -> int:
    """The maximum total size of the kernel files in bytes: $SPIKELOOM_CACHE_MB megabytes, by default 512.

    Raises:
        ValueError: if the variable is no number from 0 on.
    """
    given = os.environ.get(LIMIT) or str(tuning.limits.cache_megabytes)
    with contextlib.suppress(ValueError, OverflowError):
        if (limit := int(float(given) * 1e6)) >= 0:
            return limit
    raise ValueError(f"{LIMIT} must be a number of megabytes from 0 on, got {given!r}")


def cache_size() -> tuple[int, int]:
    """The number of kernels on disk, and the total size of their files in bytes."""
    kernels = _kernels(cache_dir())
    return len(kernels), sum(size for _, size in kernels.values())


CALLED = ("tuning.py", "jit/*.py", "sparse/*.py")
"""The files of the engine that kernels import from."""


@cache
def _version() -> str:
    """A hash of the files that determine the machine code, in addition to the generated source."""
    import numba

    here = Path(__file__).parents[1]
    parts = [file.read_bytes() for files in CALLED for file in sorted(here.glob(files))]
    return hashlib.sha256(b"".join(parts) + numba.__version__.encode()).hexdigest()


def load(make_source: Callable[[bool], str]) -> types.ModuleType:
    """The module of a generated source, compiled, from disk if it is there.

    Args:
        make_source: returns the source; its argument is whether the machine code is stored on disk.
    """
    global _compilations
    source = make_source(True)
    name = NUMBA + hashlib.sha256((source + _version()).encode()).hexdigest()[:24]
    directory = cache_dir()
    with _lock:
        for last in (False, True):
            try:
                return _from_disk(directory / f"{name}.py", source)
            except OSError as why:
                deleted = isinstance(why, FileNotFoundError) and not last  # by another process: recompiled
                if not deleted:
                    _warn(directory, why)
                    break
        module = _executed(name, f"<{name}>", make_source(False))
        _compilations += 1
        return module


def load_source(source: str) -> types.ModuleType:
    """The module of a generated source for Triton, which reads it by `inspect` and caches the machine code itself."""
    name = TRITON + hashlib.sha256(source.encode()).hexdigest()[:24]
    filename = f"<{name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    return _executed(name, filename, source)


def _from_disk(path: Path, source: str) -> types.ModuleType:
    """A kernel from disk, compiled and written there if necessary.

    Raises:
        OSError: if the directory cannot be used, or nothing can be written there and the kernel is not there.
    """
    global _compilations
    if not usable(path.parent):
        if not _sound(path, source):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return _read_only(path, source)
    with _one_process(path):
        if not _sound(path, source):
            _discard(path)
            _write(path, source)
        before = _machine_code(path)
        try:
            module = _executed(path.stem, path, source)
        except OSError:
            raise
        except Exception:  # a file that Numba cannot read may raise anything; compiled again, a real fault raises again
            _discard(path)
            _write(path, source)
            before, module = [], _executed(path.stem, path, source)
        if _machine_code(path) == before and before:
            with contextlib.suppress(OSError):
                os.utime(_seal(path))  # the time of the last use, for `_shrink`
            return module
        _compilations += 1
        try:
            _stored(path)
        except OSError as why:  # the kernel is compiled anyway
            _warn(path.parent, why)
    _shrink(path)
    return module


def _stored(path: Path) -> None:
    """Write the checksum of a kernel that Numba has stored, and remove permissions of other users."""
    for place in (path.parent, path.parent / "__pycache__"):  # made by Numba if they were deleted meanwhile
        if place.stat().st_mode & OTHERS_WRITE:
            place.chmod(0o700)
    for file in _machine_code(path):
        file.chmod(0o600)
    _write(_seal(path), _digest(path))


def _executed(name: str, filename: str | Path, source: str) -> types.ModuleType:
    """The module of a source that this process generated; `inspect` finds its text under that file name."""
    module = types.ModuleType(name)
    module.__file__ = str(filename)
    sys.modules[name] = module  # Numba's stored machine code imports its module by name
    try:
        exec(compile(source, module.__file__, "exec"), module.__dict__)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _read_only(path: Path, source: str) -> types.ModuleType:
    """The module of an existing kernel, from a copy: Numba does not read from a directory that it cannot write to."""
    with tempfile.TemporaryDirectory(prefix="spikeloom-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "__pycache__").mkdir()
        for file in (path, *_machine_code(path)):
            shutil.copy2(file, folder / file.relative_to(path.parent))  # the time too, which Numba compares
        return _executed(path.stem, folder / path.name, source)


def _warn(directory: Path, why: OSError) -> None:
    """Warn, once for a directory, that kernels are compiled in memory."""
    if directory in _warned:
        return
    _warned.add(directory)
    refused = "is not used" if isinstance(why, Untrusted) else "cannot be written"
    warn_caller(
        f"the kernel cache {directory} {refused} ({why.strerror or why}); kernels are compiled again in every process. "
        f"Set {ENVIRONMENT} to a directory of your own that can be written."
    )


# -- the directory ----------------------------------------------------------------------------------------------------


OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Untrusted(PermissionError):
    """Another user could have written files in the cache directory."""


def usable(directory: Path) -> bool:
    """Whether kernels can be written to a directory, which is created if necessary; if not, they can only be read.

    Raises:
        Untrusted: if it is another user's, or others can write to it.
        OSError: if it cannot be made.
    """
    places = (directory, directory / "__pycache__")
    for place in places:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for status in (place.lstat(), place.stat()):  # a link, too
            _trust(place, status)
    return all(os.access(place, os.W_OK | os.X_OK) for place in places)


def _trust(place: Path, status: os.stat_result) -> None:
    """Raise an error if users other than this one and root can write to a path."""
    if not hasattr(os, "geteuid"):
        return
    if status.st_uid not in (os.geteuid(), 0):
        raise Untrusted(errno.EPERM, f"{place} belongs to another user")
    if not stat.S_ISLNK(status.st_mode) and status.st_mode & OTHERS_WRITE:
        raise Untrusted(errno.EPERM, f"other users can write to {place}: delete it, or move it and chmod go-w")


# -- files ------------------------------------------------------------------------------------------------------------


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _machine_code(path: Path) -> list[Path]:
    """Numba's files of a kernel (an index and the code)."""
    return sorted(path.parent.joinpath("__pycache__").glob(f"{path.stem}.*.nb?"))


def _digest(path: Path) -> str:
    return hashlib.sha256(b"".join(f.read_bytes() for f in (path, *_machine_code(path)))).hexdigest()


def _sound(path: Path, source: str) -> bool:
    """Whether all files of a kernel match their checksum: damaged machine code could crash or be wrong."""
    try:
        for file in (path, _seal(path), *_machine_code(path)):
            status = file.lstat()
            _trust(file, status)
            if not stat.S_ISREG(status.st_mode):
                return False
        return path.read_bytes() == source.encode() and _seal(path).read_text() == _digest(path)
    except (OSError, UnicodeDecodeError):
        return False


def _discard(path: Path) -> None:
    for folder in (path.parent, path.parent / "__pycache__"):
        for file in folder.glob(f"{path.stem}.*"):
            file.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    """Write a file atomically, readable by this user only."""
    draft = path.with_suffix(f".{os.getpid()}.draft")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _one_process(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a kernel's lock, if the system has file locks; otherwise equal files may be written twice.

    The lock is one byte of a file in the directory, so that other kernels can be compiled at the same time.

    Raises:
        BlockingIOError: if another process holds it and this one is not to wait.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(os.open(path.with_name(".lock"), os.O_RDWR | os.O_CREAT, 0o600), "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, int(path.stem[-7:], 16))
        except OSError as error:
            if not wait and error.errno in (errno.EACCES, errno.EAGAIN):
                raise BlockingIOError(error.errno, error.strerror) from error
            # else a file system without locks
        yield  # closing the file releases the lock; a child that was forked meanwhile does not hold it


# -- the size ---------------------------------------------------------------------------------------------------------


def _kernels(directory: Path) -> dict[str, tuple[float, int]]:
    """The kernels in a directory, by name: when each was used last, and the bytes of its files."""
    found: dict[str, tuple[float, int]] = {}
    for folder in (directory, directory / "__pycache__"):
        with contextlib.suppress(OSError):  # others delete meanwhile
            for name, status in _statuses(os.scandir(folder)):
                used, size = found.get(name, (0.0, 0))
                found[name] = max(used, status.st_mtime), size + status.st_size
    return found


def _statuses(entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[str, os.stat_result]]:
    for entry in entries:
        name = entry.name.partition(".")[0]
        if name.startswith((NUMBA, TRITON)):
            with contextlib.suppress(OSError):
                yield name, entry.stat(follow_symlinks=False)


def _shrink(written: Path) -> None:
    """Delete the least recently used kernels until the total size is within the limit.

    The total size is measured after a kernel is written, unless the last measurement plus what this process has written
    since then is within the limit.
    """
    directory = written.parent
    sizes = (file.stat().st_size for file in (written, _seal(written), *_machine_code(written)))
    with contextlib.suppress(OSError):
        _left[directory] = _left.get(directory, 0) - sum(sizes)
    if _left.get(directory, 0) > 0:
        return
    kernels = _kernels(directory)
    total, limit = sum(size for _, size in kernels.values()), cache_limit()
    for name, (_, size) in sorted(kernels.items(), key=lambda kernel: kernel[1]):
        if total > limit and name != written.stem:
            path = directory / f"{name}.py"
            with contextlib.suppress(OSError), _one_process(path, wait=False):  # not one that is being loaded
                _discard(path)
                total -= size
    _left[directory] = limit - total
