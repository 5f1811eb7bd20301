"""Kernels on disk: generated source files, with Numba's machine code beside them, under names made of their content.

Safe when several processes start at once (one compiles a kernel, who wants the same waits and loads it), when the
directory cannot be written (kernels then live in memory, with one warning), and when a file is damaged (it is made
again).
"""

import atexit
import contextlib
import hashlib
import importlib.util
import os
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ENVIRONMENT = "SPIKELOOM_CACHE_DIR"

NUMBA, TRITON = "spikeloom_kernel_", "spikeloom_triton_"
"""How the names of modules begin, which are those of their files."""

_lock = threading.RLock()
_compilations = 0


def compilations() -> int:
    """How many kernels this process has compiled, those found on disk not counted."""
    return _compilations


def made_ready() -> int:
    """How many kernels this process has compiled, or found compiled on disk: of Triton's, one for each kind of argument
    that it has compiled them for."""
    modules = list(sys.modules.items())
    by_numba = sum(name.startswith(NUMBA) for name, _ in modules)
    by_triton = [getattr(module, "kernel", None) for name, module in modules if name.startswith(TRITON)]
    ways = [known for kernel in by_triton for known, *_ in getattr(kernel, "device_caches", {}).values()]
    return by_numba + sum(map(len, ways))


def cache_dir() -> Path:
    """Where kernels are kept: $SPIKELOOM_CACHE_DIR, else spikeloom/ in the user's cache directory."""
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "spikeloom"


def cache_size() -> tuple[int, int]:
    """How many kernels are kept, and how many bytes all their files take."""
    files = [f for f in cache_dir().rglob("*") if f.is_file()]
    return sum(f.suffix == ".py" for f in files), sum(f.stat().st_size for f in files)


CALLED = ("elementary", "flow", "memory", "products", "team", "threads", "tiles", "tiling")
"""The files that kernels import, and those that these do."""


@cache
def _version() -> str:
    """What changes the machine code besides the source: the files that kernels are made of."""
    import numba

    here = Path(__file__).parent
    parts = [(here / f"{name}.py").read_bytes() for name in CALLED]
    return hashlib.sha256(b"".join(parts) + numba.__version__.encode()).hexdigest()


def load(make_source: Callable[[bool], str]) -> types.ModuleType:
    """The module of a generated source, compiled, from disk if it is there.

    Args:
        make_source: gives the source; its argument says whether the machine code is to be kept on disk.
    """
    source = make_source(True)
    name = NUMBA + hashlib.sha256((_untitled(source) + _version()).encode()).hexdigest()[:24]
    with _lock:
        directory = _writable(cache_dir())
        if directory is None:
            return _compile(types.ModuleType(name), make_source(False), name)
        path = directory / f"{name}.py"
        with _one_process(path):
            return _from_disk(path, source)


def _untitled(source: str) -> str:
    """A source without its docstring, in which kernels of equal lines differ: a forward knows no surrogate."""
    return source.split('"""', 2)[-1]


def load_source(source: str) -> types.ModuleType:
    """The module of a generated source that must be a file: Triton reads it there, and keeps the machine code itself.

    Where the directory cannot be written, the file lies in one that goes with the process.
    """
    with _lock:
        directory = _writable(cache_dir()) or _for_this_process()
        path = directory / f"{TRITON}{hashlib.sha256(source.encode()).hexdigest()[:24]}.py"
        with _one_process(path):
            if not path.is_file() or path.read_bytes() != source.encode():
                _write(path, source)
            return _import(path)


@cache
def _for_this_process() -> Path:
    directory = tempfile.TemporaryDirectory(prefix="spikeloom-", ignore_cleanup_errors=True)
    atexit.register(directory.cleanup)
    return Path(directory.name)


def _from_disk(path: Path, source: str) -> types.ModuleType:
    global _compilations
    if not _sound(path, source):
        _discard(path)
        _write(path, source)
    before = _machine_code(path)
    try:
        module = _import(path)
    except Exception:  # a file that Numba cannot read may raise anything; made afresh, a true fault raises again
        _discard(path)
        _write(path, source)
        before, module = [], _import(path)
    if _machine_code(path) != before or not before:
        _compilations += 1
        _write(_seal(path), _digest(path))
    return module


def _import(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # Numba's stored machine code asks for its module by name
    spec.loader.exec_module(module)
    return module


def _compile(module: types.ModuleType, source: str, name: str) -> types.ModuleType:
    global _compilations
    _compilations += 1
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)  # the source is our own
    return module


# -- files --------------------------------------------------------------------------------------------------------


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _machine_code(path: Path) -> list[Path]:
    """Numba's files of a kernel (an index and the code)."""
    return sorted(path.parent.joinpath("__pycache__").glob(f"{path.stem}.*.nb?"))


def _digest(path: Path) -> str:
    return hashlib.sha256(b"".join(f.read_bytes() for f in (path, *_machine_code(path)))).hexdigest()


def _sound(path: Path, source: str) -> bool:
    """Whether all files of a kernel are as they were written: damaged machine code would crash, or be wrong."""
    try:
        return _untitled(path.read_text()) == _untitled(source) and _seal(path).read_text() == _digest(path)
    except (OSError, UnicodeDecodeError):
        return False


def _discard(path: Path) -> None:
    for file in (path, _seal(path), *path.parent.joinpath("__pycache__").glob(f"{path.stem}.*")):
        file.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    """Write so that no reader ever sees half a file."""
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_text(text)
    os.replace(draft, path)


@cache
def _writable(directory: Path) -> Path | None:
    """The directory, made if need be; None, with one warning, if it cannot be written."""
    probe = directory / f".probe-{os.getpid()}"
    try:
        (directory / "__pycache__").mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        (directory / "__pycache__" / probe.name).write_text("")
    except OSError as why:
        warnings.warn(
            f"the kernel cache {directory} cannot be written ({why.strerror}); kernels are compiled anew in every "
            f"process. Set {ENVIRONMENT} to a directory that can be written.",
            stacklevel=2,
        )
        return None
    finally:
        for file in (probe, directory / "__pycache__" / probe.name):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
    return directory


@contextlib.contextmanager
def _one_process(path: Path) -> Iterator[None]:
    """Hold a kernel's lock, where the system has file locks; without them, equal files are written twice.

    It is one byte of a file of the directory, so that others can be compiled meanwhile.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path.with_name(".lock"), "w") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.lockf(file, fcntl.LOCK_EX, 1, int(path.stem[-7:], 16))
        yield  # closing the file gives the lock back; a child forked meanwhile does not have it
