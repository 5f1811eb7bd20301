"""How much memory a contestant needs at its peak: measured in processes of its own, which do nothing else."""

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
"""So many processes: none of them changes what another one needs."""


def peaks(case: Case, result: Result) -> dict[str, list[int]]:
    """The peaks of all that were timed, the floor apart; none where the system does not tell.

    Every process is one sample: where the heap of the C library happens to begin decides which holes it fills again.
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
    """The bytes of resident memory that one run needs at its peak, beyond what was there before it.

    A run at the small shape comes first: modules are loaded and kernels compiled by it.
    """
    prepare: Prepare = case.contestants[name] if name in case.contestants else case.peers[name].prepare
    prepare(case.inputs(case.small))()
    run = prepare(case.inputs(shape))
    gc.collect()
    return peak_of(run)


def peak_of(action: Callable[[], object]) -> int:
    """The bytes by which resident memory rose while something ran, on Linux."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before = resident("VmRSS")
    action()
    return max(0, resident("VmHWM") - before)


def resident(name: str) -> int:
    """A line of the process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
