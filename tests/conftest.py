"""What holds for every test: fresh memory is full of NaN, kernels are cached apart, the random seed is known."""

import gc
import os
import sys
import tempfile
from contextlib import ExitStack

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # a process per core: more threads would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # nor spin where a test asks for several

_folder = tempfile.TemporaryDirectory(prefix="spikeloom-test-", ignore_cleanup_errors=True)

# Each worker, and each process that a test starts, would else compile all of torch's sources again: two of the four
# seconds that its start takes.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode, sys.pycache_prefix = False, os.path.join(_folder.name, "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

import torch  # noqa: E402  after what it and its processes read
from hypothesis import settings  # noqa: E402

if not torch.cuda.is_available():  # Triton's kernels are interpreted; read when triton is imported, so set before
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Set before spikeloom is imported: no test reads or fills the user's own kernels. Give a directory to keep them. The
# workers have that of the process that starts them: what one has compiled, the others load.
os.environ.setdefault("SPIKELOOM_CACHE_DIR", os.path.join(_folder.name, "kernels"))
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no processes that each import torch for a few sources
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, deterministic products on CUDA raise

# The first exp of a process, if it is large enough for two threads, is off by 3e-9 in one of them now and then: MKL's
# vector library is still starting. A small one before it runs on one thread and starts it.
torch.exp(torch.zeros(1, dtype=torch.float64))

# The same examples at every run, and no limit on the time of one: the first may compile a kernel.
settings.register_profile("spikeloom", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("spikeloom")

import spikeloom as snn  # noqa: E402  after what it reads from the environment

gc.disable()  # while tests are collected: they all stay


def pytest_collection_finish() -> None:
    gc.freeze()  # no search for garbage looks at them again
    gc.enable()
    gc.set_threshold(50_000)  # compiling a kernel makes many objects and little garbage


def pytest_unconfigure(config: pytest.Config) -> None:
    gc.unfreeze()  # else other libraries say at the end that their objects were leaked
    _folder.cleanup()


@pytest.fixture(autouse=True)
def nan_in_fresh_memory():
    """Fill what `torch.empty` and its like return with NaN: a kernel that forgets to write is then seen."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@pytest.fixture(autouse=True)
def grad_mode_is_left_on():
    """A test that leaves it off fails itself, and not those after it."""
    yield
    on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert on


@pytest.fixture
def fresh_heap() -> None:
    """What was there before a test is not searched for garbage again: in a process that has compiled, a search takes a
    second. It stays so, for the next test would else search all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tuned():
    """Sets tuned limits for the rest of a test, as in `tuned(serial_below=0)`."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(snn.tuning(**changes))


@pytest.fixture(autouse=True)
def seed() -> int:
    """The seed that torch's generators start from in this test."""
    torch.manual_seed(20)
    return 20
