"""The runner: checks that the contestants of a case agree, then times those that do, in turn."""

import gc
import importlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]
Outcome = Mapping[str, Tensor]
"""Results by name: "spikes" are compared for equality, "seconds" is what a run has timed itself, the rest is close."""
Run = Callable[[], Outcome]

BUDGET = 10.0
"""Seconds that the timed rounds of a case may take, over all its shapes."""

TURN = 0.05
"""Seconds that a turn lasts at least. A short run is repeated in it, as in a training: the first one after another
contestant's turn finds the threads asleep and the caches full of other things, and would measure that alone."""

MOST_ROUNDS = 200


class NotInstalled(Exception):
    """A contestant is of a library that is not here; the message says how to get it."""


class CannotRun(Exception):
    """A command was asked for what it cannot do here; the message says what is wrong and what to do."""


def installed(module: str) -> ModuleType:
    """A module of one of the libraries that are compared, if it is installed; else raises `NotInstalled`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotInstalled(f"not installed ({error}); pip install {module.partition('.')[0]}==1.0.0") from error


@dataclass(frozen=True)
class Case:
    """One piece of work, done by several contestants on the same inputs.

    Args:
        name: what ``--case`` takes.
        title: one line that says what is timed.
        axes: names of the axes of a shape, such as ("T", "B", "N").
        shapes: those that are timed unless others are asked for.
        inputs: makes the inputs of one shape, the same ones every time.
        contestants: by name, in the order in which they run and are shown; each makes of the inputs what is timed, or
            raises `NotInstalled`. What it does before it returns is not timed.
        reference: the contestant that all others are compared with.
        peer: the contestant whose time is divided by that of each row: a column of the report.
        floor: the contestant by whose time that of each row is divided: another column.
        unchecked: contestants that do other work, and so are not compared.
        remarks: what else is worth telling.
        standard: whether the case runs without being asked for.
        least_rounds: at least so many rounds, whatever they cost.
    """

    name: str
    title: str
    axes: tuple[str, ...]
    shapes: tuple[Shape, ...]
    inputs: Callable[[Shape], Any]
    contestants: Mapping[str, Callable[[Any], Run]]
    reference: str
    peer: str | None = None
    floor: str | None = None
    unchecked: tuple[str, ...] = ()
    remarks: Callable[[Any], str] = lambda inputs: ""
    standard: bool = True
    least_rounds: int = 3


@dataclass(frozen=True)
class Result:
    """One case at one shape.

    Args:
        case: the case.
        shape: its shape.
        seconds: every sample, by contestant, in the order of the rounds.
        missing: how to get a contestant that is not installed.
        disagreeing: in what a contestant that was therefore not timed differs from the reference.
        remarks: what else the case tells.
    """

    case: Case
    shape: Shape
    seconds: Mapping[str, list[float]]
    missing: Mapping[str, str]
    disagreeing: Mapping[str, str]
    remarks: str

    def median(self, name: str) -> float:
        """The median of a contestant's samples, in seconds."""
        return statistics.median(self.seconds[name])

    def speed_up(self, name: str) -> float | None:
        """How many times faster than the peer a contestant is; None without a peer."""
        peer = self.case.peer
        return self.median(peer) / self.median(name) if peer is not None and peer in self.seconds else None

    def times_floor(self, name: str) -> float | None:
        """How many times as long as the floor a contestant takes; None without a floor."""
        floor = self.case.floor
        return self.median(name) / self.median(floor) if floor is not None and floor in self.seconds else None


def bar(rounds: range, label: str) -> Iterable[int]:
    """The rounds, under a progress bar that goes away when they are done; bare where tqdm is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return rounds
    shown: Iterable[int] = tqdm(rounds, desc=label, unit="round", leave=False, disable=None)
    return shown


def run_case(case: Case, shape: Shape, repeats: int | None = None, budget: float = BUDGET) -> Result:
    """Check one case at one shape, then time it.

    Args:
        case: the case.
        shape: one size per axis of the case.
        repeats: rounds; None takes as many as fit the budget.
        budget: seconds for the timed rounds.

    Raises:
        CannotRun: if the shape has not one positive size per axis.
    """
    if len(shape) != len(case.axes) or any(size < 1 for size in shape):
        wanted = f"give {','.join(case.axes)}, each at least 1" if case.axes else "it takes none"
        raise CannotRun(f"case {case.name} got the shape {','.join(map(str, shape))}; {wanted}")
    inputs = case.inputs(shape)
    runs, missing, disagreeing = admit(case, inputs)
    sizes = {name: turn_size(elapsed(run)) for name, run in runs.items()}
    cost = elapsed(lambda: in_turn(runs, range(1), sizes))  # also the warm-up
    rounds = repeats or max(case.least_rounds, min(MOST_ROUNDS, int(budget / cost)))
    seconds = in_turn(runs, bar(range(rounds), f"{case.name} {list(shape)}"), sizes)
    return Result(case, shape, seconds, missing, disagreeing, case.remarks(inputs))


def admit(case: Case, inputs: object) -> tuple[dict[str, Run], dict[str, str], dict[str, str]]:
    """The contestants that may be timed, ready to run; those that are missing; those that disagree."""
    runs: dict[str, Run] = {}
    missing: dict[str, str] = {}
    disagreeing: dict[str, str] = {}
    wanted = case.contestants[case.reference](inputs)()
    for name, prepare in case.contestants.items():
        try:
            run = prepare(inputs)
        except NotInstalled as absent:
            missing[name] = str(absent)
            continue
        found = run()
        differences = [] if name in case.unchecked else disagreements(found, wanted)
        if differences:
            disagreeing[name] = f"not timed, because it disagrees with {case.reference!r}: {'; '.join(differences)}"
        else:
            runs[name] = run
    return runs, missing, disagreeing


def disagreements(got: Outcome, wanted: Outcome) -> list[str]:
    """In what results differ from the reference's, in sentences: spikes in any single one, others beyond rounding."""
    found = []
    for name, right in wanted.items():
        value = got.get(name)
        if name == "seconds":
            continue
        if value is None or value.shape != right.shape:
            shape = None if value is None else list(value.shape)
            found.append(f"{name} have the shape {shape}, the reference's have {list(right.shape)}")
        elif name == "spikes":
            if differing := int((value != right).sum()):
                found.append(f"{differing} of {right.numel()} spikes differ")
        elif not torch.allclose(value, right, rtol=1e-4, atol=1e-6):
            found.append(f"{name} differ by up to {float((value - right).abs().max()):.2g}")
    return found


def elapsed(action: Callable[[], object]) -> float:
    """Seconds that something takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def timed(run: Run) -> float:
    """Seconds that one run takes, by its own clock if it has one."""
    begun = time.perf_counter()
    outcome = run()
    seconds = time.perf_counter() - begun
    return float(outcome["seconds"]) if "seconds" in outcome else seconds


def turn_size(seconds: float) -> int:
    """How many runs of so many seconds make a turn."""
    return max(1, int(TURN / max(seconds, 1e-6)))


def in_turn(
    runs: Mapping[str, Run], rounds: Iterable[int], sizes: Mapping[str, int] | None = None
) -> dict[str, list[float]]:
    """Time the runs A B C A B C ..., so that what else the machine does falls on all of them alike.

    Args:
        runs: what is timed, by name.
        rounds: one turn of each in every round.
        sizes: how many runs make a turn, 1 if not given; a sample is their mean.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with no_collector():
        for _ in rounds:
            for name, run in runs.items():
                seconds[name].append(statistics.fmean(timed(run) for _ in range((sizes or {}).get(name, 1))))
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
