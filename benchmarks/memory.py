"""Peak memory of contestants, each measured in a separate process."""

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from spikeloom.engine.jit import cache_dir

from .result import Result, Shape
from .runner import Case, Prepare
from .start import in_fresh_process

MEASURE = """
import json
from benchmarks import CASES
from benchmarks.memory import extra
print(json.dumps({{"bytes": extra(CASES[{case!r}], {shape!r}, {name!r})}}))
"""


AT_A_TIME = 2
"""The number of processes that run at a time; they do not affect each other's memory."""


def peaks(case: Case, result: Result) -> dict[str, list[int]]:
    """The peaks of all timed contestants except the floor; empty if the system does not report them.

    Every process is one sample, because the start address of the C heap determines which free blocks are reused.
    """
    if sys.platform != "linux":
        return {}
    shape, kernels = tuple(result.sizes.values()), str(cache_dir())

    def peak(name: str) -> int:
        return int(in_fresh_process(MEASURE.format(case=case.name, shape=shape, name=name), kernels)["bytes"])

    names = [name for name in result.seconds if name not in case.unchecked]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        samples = [pool.map(peak, [name] * case.processes.get(name, 1)) for name in names]
        return {name: list(found) for name, found in zip(names, samples, strict=True)}


def extra(case: Case, shape: Shape, name: str) -> int:
    """Peak resident memory of one run minus that before it, in bytes.

    A run at the small shape comes first, to load modules and compile kernels.
    """
    prepare: Prepare = case.contestants[name] if name in case.contestants else case.peers[name].prepare
    prepare(case.inputs(case.small))()
    run = prepare(case.inputs(shape))
    gc.collect()
    return peak_of(run)


def peak_of(action: Callable[[], object]) -> int:
    """Increase of the peak resident memory during a call, in bytes, on Linux."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before = resident("VmRSS")
    action()
    return max(0, resident("VmHWM") - before)


def resident(name: str) -> int:
    """A field of the process status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
