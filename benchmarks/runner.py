"""The runner: checks that the contestants of a case agree, then times those that do, in turn."""

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
"""Results by name: "spikes" are compared for equality, the rest is close, but for what is `OF_ITSELF`."""
OF_ITSELF = ("seconds", "kernels")
"""What a run tells of itself: its time by its own clock, and how many kernels it has compiled or loaded."""
Run = Callable[[], Outcome]
Prepare = Callable[[Any], Run]
"""Makes of the inputs what is timed, or raises `NotInstalled`. What it does before it returns is not timed."""

BUDGET = 10.0
"""Seconds that the timed rounds of a case may take, over all its shapes."""

TURN = 0.05
"""Seconds that a turn lasts, unless one run takes longer. A short run is repeated in it, as in a training. Another such
turn goes before, not timed: after another contestant the first runs find the threads asleep, the caches full of other
things and the memory given back, and take up to half as long again."""

MOST_ROUNDS = 200

CLOSE = 1e-4
"""How far numbers may differ, in parts of the one compared with: sums are added up in an order of each one's own."""
SMALL = 1e-5
"""The same in parts of the largest number of their tensor, for those that are nearly zero."""
FLIPPED = 1e-4
"""The share of a library's numbers that may differ where its dynamics round otherwise: a membrane that comes to within
rounding of the threshold fires in the one and not in the other, and what hangs on that spike follows it."""


class NotInstalled(Exception):
    """A contestant is of a library that is not here; the message says how to get it."""


def installed(module: str) -> ModuleType:
    """A module of one of the libraries that are compared, if it is installed; else raises `NotInstalled`."""
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
    """A contestant of another library, whose neurons are not quite ours.

    Args:
        prepare: makes of the inputs what is timed.
        twin: this library's plain loop with the dynamics of that library: what its outcome must be.
        note: in what those differ from the dynamics of the other contestants.
    """

    prepare: Prepare
    twin: Prepare
    note: str


@dataclass(frozen=True)
class Case:
    """One piece of work, done by several contestants on the same inputs.

    Args:
        name: what ``--case`` takes.
        title: one line that says what is timed.
        axes: names of the axes of a shape, such as ("T", "B", "N").
        shapes: those that are timed unless others are asked for.
        small: a shape at which a run takes no time, and shows all that it shows at others.
        inputs: makes the inputs of one shape, the same ones every time.
        contestants: by name, in the order in which they run and are shown.
        reference: the contestant that all others are compared with.
        ours: the contestant by whose time that of each row is divided: a column of the report.
        floor: the contestant by whose time that of each row is divided: another column.
        unchecked: contestants that do other work, and so are not compared.
        peers: further libraries' contestants, with ``--peers``, each compared with its twin.
        sweeps: by axis, the shapes that differ along it alone, for ``--sweep``.
        remarks: what else is worth telling.
        label: a few words for a row of a summary, with the sizes by axis in braces, such as "Leaky [{T}, {B}, {N}]".
        standard: whether the case runs without being asked for.
        memory: whether ``--memory`` measures it.
        processes: in how many processes, by contestant, where one sample of memory does not tell enough.
        least_rounds: at least so many rounds, whatever they cost.
        close: how far numbers may differ, in parts of the one compared with.
        flipped: the share of a library's numbers that may differ by more.
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
    """Who may be timed, ready to run, and what it tells of its kernels; and why the others may not."""

    runs: dict[str, Run] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    disagreeing: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, prepare: Prepare, inputs: object, differences: Callable[[Outcome], str]) -> None:
        """Run a contestant once, and take it or leave it."""
        try:
            run = prepare(inputs)
        except NotInstalled as absent:
            self.missing[name] = str(absent)
            return
        got = run()
        if told := differences(got):
            self.disagreeing[name] = told
            return
        self.runs[name] = run
        if "kernels" in got:
            self.kernels[name] = int(got["kernels"])


def bar(rounds: range, label: str) -> Iterable[int]:
    """The rounds, under a progress bar that goes away when they are done; bare where tqdm is not installed."""
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
        repeats: rounds; None takes as many as fit the budget.
        budget: seconds for the timed rounds.
        peers: which of the case's `peers` take part.
        device: where all of it lies.

    Raises:
        CannotRun: if the shape has not one positive size per axis, or torch sees no such device.
    """
    if len(shape) != len(case.axes) or any(size < 1 for size in shape):
        wanted = f"give {','.join(case.axes)}, each at least 1" if case.axes else "it takes none"
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
    """Let every contestant run once, and compare what it gives."""
    found = Admitted()
    wanted = case.contestants[case.reference](inputs)()

    def from_reference(got: Outcome) -> str:
        told = "; ".join(disagreements(got, wanted, close=case.close))
        return f"not timed, because it disagrees with {case.reference!r}: {told}" if told else ""

    for name, prepare in case.contestants.items():
        found.add(name, prepare, inputs, (lambda got: "") if name in case.unchecked else from_reference)
    for name, peer in case.peers.items():
        if name in peers:
            found.add(name, peer.prepare, inputs, from_twin(case, peer, inputs))
    return found


def from_twin(case: Case, peer: Peer, inputs: object) -> Callable[[Outcome], str]:
    """In what a peer differs from the plain loop of its own dynamics."""

    def differences(got: Outcome) -> str:
        told = "; ".join(disagreements(got, peer.twin(inputs)(), close=case.close, flipped=case.flipped))
        return f"not timed, because it disagrees with the plain loop of its equation: {told}" if told else ""

    return differences


def disagreements(got: Outcome, wanted: Outcome, *, close: float = CLOSE, flipped: float = 0.0) -> list[str]:
    """In what results differ, in sentences: spikes in any single one, others beyond rounding.

    Args:
        got: the results of a contestant.
        wanted: those of the reference.
        close: how far numbers may differ, in parts of the one compared with.
        flipped: the share of numbers that may differ by more.
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
    """Seconds that something takes."""
    wait()
    begun = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - begun


def timed(run: Run) -> float:
    """Seconds that one run takes, by its own clock if it has one."""
    begun = time.perf_counter()
    outcome = run()
    wait()
    seconds = time.perf_counter() - begun
    return float(outcome["seconds"]) if "seconds" in outcome else seconds


def turn_size(seconds: float) -> int:
    """How many runs of so many seconds make a turn."""
    return max(1, round(TURN / max(seconds, 1e-6)))


def in_turn(
    runs: Mapping[str, Run], rounds: Iterable[int], sizes: Mapping[str, int] | None = None
) -> dict[str, list[float]]:
    """Time the runs A B C A B C ..., so that what else the machine does falls on all of them alike.

    Args:
        runs: what is timed, by name.
        rounds: one turn of each in every round.
        sizes: how many runs make a turn, 1 if not given; a sample is their mean. Before several go as many that are
            not timed.
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
    """Within this context the garbage collector does not interrupt; what it would find is collected before."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
