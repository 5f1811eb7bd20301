"""Startup time: the import, and the first call with and without cached kernels."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

from spikeloom.machine import PEERS, version_of

from .result import Shape
from .runner import Case, NotInstalled, Outcome, Run

IMPORT = """
import json, time, torch, numpy
begun = time.perf_counter()
import {library}
print(json.dumps({{"seconds": time.perf_counter() - begun}}))
"""

CALLS = """
import json, time, torch
import spikeloom as snn
from spikeloom.engine.jit.kernel_cache import made_ready

def call(steps):
    x = torch.full((steps, 4, 32), 0.3, requires_grad=True, device="{device}")
    lif = snn.Leaky(beta=0.9).to(x.device)
    float(x.sum())
    ready, begun = made_ready(), time.perf_counter()
    spk, mem = snn.unroll(lif, x)
    spk.sum().backward()
    float(x.grad.sum())
    seconds = time.perf_counter() - begun
    return {{"seconds": seconds, "kernels": made_ready() - ready, "spikes": int(spk[:20].sum())}}

calls = [call(20 + more) for more in range({more} + 1)]
total = {{name: sum(call[name] for call in calls[{more} > 0:]) for name in ("seconds", "kernels")}}
print(json.dumps(total | {{"spikes": calls[0]["spikes"]}}))
"""

OURS, THEIRS = "import spikeloom", "import snntorch"
FIRST_EMPTY, FIRST_FILLED = "first call, no kernels on disk", "first call, kernels on disk"
TEN_MORE = "ten further calls, of other lengths"


def own_cache(shape: Shape) -> str:
    """A temporary kernel cache, deleted at exit; the user's cache is not used."""
    folder = tempfile.mkdtemp(prefix="spikeloom-bench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def in_fresh_process(code: str, cache: str) -> Outcome:
    """The JSON output of a new interpreter with kernel cache `cache`. Starting Python and PyTorch is not timed."""
    place = str(Path(__file__).parents[1])
    paths = os.pathsep.join(filter(None, (place, os.environ.get("PYTHONPATH"))))
    env = os.environ | {"SPIKELOOM_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(f"a fresh interpreter failed:\n{done.stderr}")
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in json.loads(done.stdout).items()}


def importing(library: str, cache: str) -> Run:
    """Import a library into a process that has already imported PyTorch and NumPy."""
    if library != "spikeloom" and version_of(library) is None:
        raise NotInstalled(f"not installed; pip install {library}=={PEERS[library]}")
    return partial(in_fresh_process, IMPORT.format(library=library), cache)


def calls(more: int = 0) -> str:
    """Forward and backward of a Leaky on the device of the run: once, or more times after that."""
    return CALLS.format(device=torch.get_default_device().type, more=more)


def first_call(cache: str) -> Run:
    """First call in a new process, with kernels compiled by another process."""
    in_fresh_process(calls(), cache)
    return partial(in_fresh_process, calls(), cache)


def ten_more(cache: str) -> Run:
    """Later calls in such a process, without compilation."""
    return partial(in_fresh_process, calls(more=10), cache)


def very_first_call(cache: str) -> Run:
    """First call in a new process, with an empty kernel cache."""
    code = calls()

    def run() -> Outcome:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
            return in_fresh_process(code, empty)

    return run


START = Case(
    name="start",
    title="Startup, each in a new process, after importing PyTorch",
    axes=(),
    shapes=((),),
    small=(),
    inputs=own_cache,
    contestants={
        OURS: partial(importing, "spikeloom"),
        THEIRS: partial(importing, "snntorch"),
        FIRST_EMPTY: very_first_call,
        FIRST_FILLED: first_call,
        TEN_MORE: ten_more,
    },
    reference=FIRST_EMPTY,
    ours=FIRST_FILLED,
    unchecked=(OURS, THEIRS),
    least_rounds=1,
)
