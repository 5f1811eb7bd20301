"""How long it takes until the first result: the import, and the first call without and with kernels on disk."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .case import Case, Contestant, NotInstalled, Outcome, Run, Shape
from .machine import version_of

HEAVY = ("numba", "llvmlite", "triton", "matplotlib", "pandas", "nir", "scipy", "sklearn", "torch._dynamo")

IMPORT = """
import json, sys, time, torch, numpy
before = set(sys.modules)
begun = time.perf_counter()
import {library}
seconds = time.perf_counter() - begun
new = set(sys.modules) - before
print(json.dumps({{"seconds": seconds, "heavy": [name for name in {heavy!r} if name in new]}}))
"""

FIRST_CALL = """
import json, time, torch
import spikeloom as snn
x = torch.full((20, 4, 32), 0.3, requires_grad=True)
begun = time.perf_counter()
spk, mem = snn.unroll(snn.Leaky(beta=0.9), x)
spk.sum().backward()
print(json.dumps({"seconds": time.perf_counter() - begun, "spikes": int(spk.sum())}))
"""

FIRST_EMPTY, FIRST_FILLED = "first call, no kernels on disk", "first call, kernels on disk"


@dataclass(frozen=True)
class Inputs:
    """A kernel cache that the first run fills and later runs find filled."""

    filled: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="spikeloom-bench-", ignore_cleanup_errors=True)
    )


def make_inputs(shape: Shape) -> Inputs:
    """A cache directory of the bench's own: the user's kernels are neither used nor touched."""
    return Inputs()


def in_fresh_process(code: str, cache: str) -> dict[str, Any]:
    """What a new interpreter prints as JSON, with its kernels in `cache`."""
    place = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (place, os.environ.get("PYTHONPATH"))))
    env = os.environ | {"SPIKELOOM_CACHE_DIR": cache, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(f"a fresh interpreter failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def importing(library: str, inputs: Inputs) -> Run:
    """Import a library into a process that has torch and NumPy already."""
    if library != "spikeloom" and version_of(library) is None:
        raise NotInstalled(f"not installed; pip install {library}")
    code = IMPORT.format(library=library, heavy=HEAVY)
    return lambda: {"seconds": torch.tensor(in_fresh_process(code, inputs.filled.name)["seconds"])}


def first_call(inputs: Inputs) -> Run:
    """Forward and backward of a Leaky in a process that has done nothing yet, its kernels compiled by another."""
    in_fresh_process(FIRST_CALL, inputs.filled.name)
    return lambda: numbers(in_fresh_process(FIRST_CALL, inputs.filled.name))


def very_first_call(inputs: Inputs) -> Run:
    """The same with an empty kernel cache."""

    def run() -> Outcome:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
            return numbers(in_fresh_process(FIRST_CALL, empty))

    return run


def numbers(found: dict[str, Any]) -> Outcome:
    """As the results of a run."""
    return {name: torch.tensor(value) for name, value in found.items()}


def as_many_spikes(got: Outcome, reference: Outcome) -> list[str]:
    """Kernels from the disk must fire as freshly compiled ones do."""
    same = bool(got["spikes"] == reference["spikes"])
    return [] if same else [f"{int(got['spikes'])} spikes, the reference has {int(reference['spikes'])}"]


def its_own_clock(run: Run) -> float:
    """The seconds that the fresh process measured inside itself: starting Python and torch is not counted."""
    return float(run()["seconds"])


def loaded(inputs: Inputs) -> list[str]:
    """Which heavy packages the import alone loads; there should be none."""
    heavy = in_fresh_process(IMPORT.format(library="spikeloom", heavy=HEAVY), inputs.filled.name)["heavy"]
    return [f"import spikeloom loads, beyond torch and NumPy: {', '.join(heavy) or 'nothing heavy'}"]


START = Case(
    name="start",
    title="Until the first result, each in a fresh process, after torch is imported",
    axes=(),
    shapes=((),),
    inputs=make_inputs,
    contestants={
        "import spikeloom": Contestant(partial(importing, "spikeloom"), agrees=False, seconds=its_own_clock),
        "import snntorch": Contestant(partial(importing, "snntorch"), agrees=False, seconds=its_own_clock),
        FIRST_EMPTY: Contestant(very_first_call, seconds=its_own_clock),
        FIRST_FILLED: Contestant(first_call, seconds=its_own_clock),
    },
    reference=FIRST_EMPTY,
    compare=as_many_spikes,
    remarks=loaded,
    standard=False,
    least_rounds=1,
)
