"""The runner: check that the contestants of a case agree, then time them in interleaved rounds."""

import gc
import importlib
import statistics
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from torch import Tensor

from spikeloom.machine import PEERS

from .device import on, wait
from .result import CannotRun, Result, Shape

Outcome = Mapping[str, Tensor]
"""Results by name: "spikes" are compared for equality, the others within a tolerance, except `OF_ITSELF`."""
OF_ITSELF = ("seconds", "kernels")
"""Information that is not compared: the time by the run's own clock, and the number of kernels compiled or loaded."""
Run = Callable[[], Outcome]
Prepare = Callable[[Any], Run]
"""Returns the timed call for given inputs, or raises `NotInstalled`. The preparation itself is not timed."""

BUDGET = 10.0
"""Time limit for the timed rounds of a case, over all its shapes, in seconds."""

TURN = 0.05
"""Length of a turn in seconds, unless one run takes longer; a short run is repeated. A warmup turn comes first.
After another contestant threads are asleep, caches are cold and memory has been released, so the first runs take up to
1.5 times as long."""

MOST_ROUNDS = 200

CLOSE = 1e-4
"""The relative tolerance of numbers, since the contestants add up sums in different orders."""
SMALL = 1e-5
"""The tolerance relative to the largest number of the tensor, for numbers close to zero."""
FLIPPED = 1e-4
"""The share of a library's numbers that may differ because its dynamics round differently: a membrane within rounding
of the threshold may fire in one and not in the other, which affects all values that depend on this spike."""


class NotInstalled(Exception):
    """A contestant requires a library that is not installed; the message says how to install it."""


def installed(module: str) -> ModuleType:
    """Import a module of another library; raise `NotInstalled` if it is not installed."""
    package = module.partition(".")[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library says of itself while it loads
            return importlib.import_module(module)
    except ImportError as error:
        wanted = f"{package}=={PEERS[package]}" if package in PEERS else package
        raise NotInstalled(f"not installed ({error}); pip install {wanted}") from error


@dataclass(frozen=True)
class Peer:
    """A contestant of another library, whose neurons differ slightly from spikeloom's.

    Args:
        prepare: returns the timed call for given inputs.
        twin: spikeloom's plain loop with the dynamics of that library, its reference.
        note: how the dynamics differ from those of the other contestants.
    """

    prepare: Prepare
    twin: Prepare
    note: str


@dataclass(frozen=True)
class Case:
    """One computation, done by several contestants on the same inputs.

    Args:
        name: the name for ``--case``.
        title: one line that describes what is timed.
        axes: names of the axes of a shape, such as ("T", "B", "N").
        shapes: the default shapes.
        small: a shape at which a run is fast, with the same behavior.
        inputs: creates the inputs of one shape, from a fixed seed.
        contestants: by name, in the order in which they run and are shown.
        reference: the contestant with which all others are compared.
        ours: the contestant whose time is the unit of a column of the report.
        floor: the contestant whose time is the unit of another column.
        unchecked: contestants that do other work, and are not compared.
        peers: contestants of other libraries (``--peers``), each compared with its twin.
        sweeps: by axis, the shapes of its sweep (``--sweep``).
        remarks: returns further information.
        label: the row name in a summary, with the axes in braces, such as "Leaky [{T}, {B}, {N}]".
        standard: whether the case runs by default.
        memory: whether ``--memory`` measures it.
        processes: by contestant, the number of processes (samples) for the memory. Default: 1.
        least_rounds: minimum number of rounds.
        close: relative tolerance of numbers.
        flipped: the share of a library's numbers that may exceed the tolerance.
    """

    name: str
    title: str
    axes: tuple[str, ...]
    shapes: tuple[Shape, ...]
    small: Shape
    inputs: Callable[[Shape], Any]
    contestants: Mapping[str, Prepare]
    reference: str
    ours: str
    floor: str | None = None
    unchecked: tuple[str, ...] = ()
    peers: Mapping[str, Peer] = field(default_factory=dict)
    sweeps: Mapping[str, tuple[Shape, ...]] = field(default_factory=dict)
    remarks: Callable[[Any], str] = lambda inputs: ""
    label: str = ""
    standard: bool = False
    memory: bool = False
    processes: Mapping[str, int] = field(default_factory=dict)
    least_rounds: int = 3
    close: float = CLOSE
    flipped: float = FLIPPED


@dataclass(frozen=True)
class Admitted:
    """The contestants to be timed, with their numbers of kernels, and why the others are not."""

    runs: dict[str, Run] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    disagreeing: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, prepare: Prepare, inputs: object, differences: Callable[[Outcome], str]) -> None:
        """Run a contestant once, and admit or reject it."""
        try:
            run = prepare(inputs)
        except NotInstalled as absent:
            self.missing[name] = str(absent)
            return
        got = run()
        if unlike := differences(got):
            self.disagreeing[name] = unlike
            return
        self.runs[name] = run
        if "kernels" in got:
            self.kernels[name] = int(got["kernels"])


def bar(rounds: range, label: str) -> Iterable[int]:
    """The rounds, with a progress bar that is removed at the end; without one if tqdm is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return rounds
    shown: Iterable[int] = tqdm(rounds, desc=label, unit="round", leave=False, disable=None)
    return shown


def run_case(
    case: Case,
    shape: Shape,
    repeats: int | None = None,
    budget: float = BUDGET,
    *,
    peers: Collection[str] = (),
    device: str = "cpu",
) -> Result:
    """Check one case at one shape, then time it.

    Args:
        case: the case.
        shape: one size per axis of the case.
        repeats: number of rounds; None for as many as fit the budget.
        budget: time limit for the timed rounds, in seconds.
        peers: names of the case's `peers` to include.
        device: the device of all tensors.

    Raises:
        CannotRun: if the shape does not have one positive size per axis, or the device does not exist.
    """
    if len(shape) != len(case.axes) or any(size < 1 for size in shape):
        wanted = f"pass {','.join(case.axes)}, each at least 1" if case.axes else "it has no shape"
        raise CannotRun(f"case {case.name} got the shape {','.join(map(str, shape))}; {wanted}")
    with on(device):
        inputs = case.inputs(shape)
        found = admit(case, inputs, peers)
        remarks = case.remarks(inputs)
    took = {name: elapsed(run) for name, run in found.runs.items()}  # the second run of each, and so the warm-up
    sizes = {name: turn_size(seconds) for name, seconds in took.items()}
    cost = sum((2 * sizes[name] - 1) * seconds for name, seconds in took.items())
    rounds = repeats or max(case.least_rounds, min(MOST_ROUNDS, int(budget / cost)))
    by_axis = dict(zip(case.axes, shape, strict=True))
    return Result(
        case=case.name,
        title=case.title,
        label=case.label.format(**by_axis),
        sizes=by_axis,
        ours=case.ours,
        floor=case.floor,
        seconds=in_turn(found.runs, bar(range(rounds), f"{case.name} {list(shape)}"), sizes),
        missing=found.missing,
        disagreeing=found.disagreeing,
        notes={name: peer.note for name, peer in case.peers.items() if name in found.runs},
        remarks=remarks,
        kernels=found.kernels,
        device=device,
    )


def admit(case: Case, inputs: object, peers: Collection[str] = ()) -> Admitted:
    """Run every contestant once, and compare its results."""
    found = Admitted()
    wanted = case.contestants[case.reference](inputs)()

    def from_reference(got: Outcome) -> str:
        unlike = "; ".join(disagreements(got, wanted, close=case.close))
        return f"not timed, because it disagrees with {case.reference!r}: {unlike}" if unlike else ""

    for name, prepare in case.contestants.items():
        found.add(name, prepare, inputs, (lambda got: "") if name in case.unchecked else from_reference)
    for name, peer in case.peers.items():
        if name in peers:
            found.add(name, peer.prepare, inputs, from_twin(case, peer, inputs))
    return found


def from_twin(case: Case, peer: Peer, inputs: object) -> Callable[[Outcome], str]:
    """How a peer differs from the plain loop over its own dynamics."""

    def differences(got: Outcome) -> str:
        unlike = "; ".join(disagreements(got, peer.twin(inputs)(), close=case.close, flipped=case.flipped))
        return f"not timed, because it disagrees with the plain loop of its equation: {unlike}" if unlike else ""

    return differences


def disagreements(got: Outcome, wanted: Outcome, *, close: float = CLOSE, flipped: float = 0.0) -> list[str]:
    """How results differ, in sentences: spikes in any value, other numbers beyond the tolerance.

    Args:
        got: results of a contestant.
        wanted: results of the reference.
        close: relative tolerance of numbers.
        flipped: the share of numbers that may exceed the tolerance.
    """
    found = []
    for name, right in wanted.items():
        value = got.get(name)
        if name in OF_ITSELF:
            continue
        if value is None or value.shape != right.shape:
            shape = None if value is None else list(value.shape)
            found.append(f"{name} have the shape {shape}, the reference's have {list(right.shape)}")
            continue
        near = SMALL * right.abs().max().item() if right.numel() else 0.0
        same = value == right if name == "spikes" else value.isclose(right, rtol=close, atol=near)
        differing = int((~same).sum())
        if differing > flipped * right.numel():
            apart = f", by up to {float((value - right).abs().max()):.2g}" if name != "spikes" else ""
            found.append(f"{differing} of {right.numel()} {name} differ{apart}")
    return found


def elapsed(action: Callable[[], object]) -> float:
    """Time of a call, in seconds."""
    wait()
    begun = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - begun


def timed(run: Run) -> float:
    """Time of one run in seconds, by its own clock if it has one."""
    begun = time.perf_counter()
    outcome = run()
    wait()
    seconds = time.perf_counter() - begun
    return float(outcome["seconds"]) if "seconds" in outcome else seconds


def turn_size(seconds: float) -> int:
    """Number of runs per turn, given the time of one run."""
    return max(1, round(TURN / max(seconds, 1e-6)))


def in_turn(
    runs: Mapping[str, Run], rounds: Iterable[int], sizes: Mapping[str, int] | None = None
) -> dict[str, list[float]]:
    """Time the runs in the order A B C A B C ..., so that other load on the machine affects all of them.

    Args:
        runs: the timed calls, by name.
        rounds: number of rounds; each has one turn of every run.
        sizes: number of runs per turn; a sample is their mean. If more than 1, as many warmup runs precede them.
            Default: 1.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with no_collector():
        for _ in rounds:
            for name, run in runs.items():
                size = (sizes or {}).get(name, 1)
                for _ in range(size if size > 1 else 0):
                    run()
                wait()
                seconds[name].append(statistics.fmean(timed(run) for _ in range(size)))
    return seconds


@contextmanager
def no_collector() -> Iterator[None]:
    """Disable the garbage collector within this context, after a collection."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
