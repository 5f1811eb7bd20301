"""The runner: checks that the contestants agree, then times those that do, in turn."""

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from .case import CannotRun, Case, NotInstalled, Run, Shape, wall_clock

BUDGET = 10.0
"""Seconds that the timed rounds of a case may take, over all its shapes."""

MOST_ROUNDS = 200


@dataclass(frozen=True)
class Result:
    """One case at one shape.

    Args:
        case: the name of the case.
        shape: its shape.
        seconds: every sample, by contestant, in the order of the rounds.
        missing: how to get a contestant that is not installed.
        disagreeing: in what a contestant that was therefore not timed differs from the reference.
        remarks: what else the case tells.
    """

    case: str
    shape: Shape
    seconds: Mapping[str, list[float]]
    missing: Mapping[str, str] = field(default_factory=dict)
    disagreeing: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def rounds(self) -> int:
        return max(map(len, self.seconds.values()), default=0)

    def median(self, name: str) -> float:
        """The median of a contestant's samples, in seconds."""
        return statistics.median(self.seconds[name])


def run_case(
    case: Case,
    shape: Shape,
    repeats: int | None = None,
    budget: float = BUDGET,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Result:
    """Check one case at one shape, then time it.

    Args:
        case: the case.
        shape: one size per axis of the case.
        repeats: rounds; None takes as many as fit the budget.
        budget: seconds for the timed rounds.
        progress: called before the first and after each round with the rounds done and those planned.

    Raises:
        CannotRun: if the shape has not one positive size per axis.
    """
    if len(shape) != len(case.axes) or any(size < 1 for size in shape):
        wanted = f"give {','.join(case.axes)}, each at least 1" if case.axes else "it takes none"
        raise CannotRun(f"case {case.name} got the shape {','.join(map(str, shape))}; {wanted}")
    inputs = case.inputs(shape)
    runs, missing, disagreeing = admit(case, inputs)
    clocks = {name: case.contestants[name].seconds for name in runs}
    round_costs = sum(clocks[name](run) for name, run in runs.items())  # also the warm-up
    rounds = repeats or max(case.least_rounds, min(MOST_ROUNDS, int(budget / max(round_costs, 1e-6))))
    seconds = in_turn(runs, rounds, clocks, progress)
    return Result(case.name, shape, seconds, missing, disagreeing, tuple(case.remarks(inputs)))


def admit(case: Case, inputs: object) -> tuple[dict[str, Run], dict[str, str], dict[str, str]]:
    """The contestants that may be timed, ready to run; those that are missing; those that disagree."""
    reference = case.contestants[case.reference].prepare(inputs)
    wanted = reference()
    runs: dict[str, Run] = {}
    missing: dict[str, str] = {}
    disagreeing: dict[str, str] = {}
    for name, contestant in case.contestants.items():
        if name == case.reference:
            runs[name] = reference
            continue
        try:
            run = contestant.prepare(inputs)
        except NotInstalled as absent:
            missing[name] = str(absent)
            continue
        outcome = run()
        differences = case.compare(outcome, wanted) if contestant.agrees else []
        if differences:
            disagreeing[name] = f"not timed, because it disagrees with {case.reference!r}: {'; '.join(differences)}"
        else:
            runs[name] = run
    return runs, missing, disagreeing


def in_turn(
    runs: Mapping[str, Run],
    rounds: int,
    clocks: Mapping[str, Callable[[Run], float]] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[float]]:
    """Time the runs A B C A B C ..., so that what else the machine does falls on all of them alike."""
    clocks = clocks or {}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    progress(0, rounds)
    with no_collector():
        for done in range(1, rounds + 1):
            for name, run in runs.items():
                seconds[name].append(clocks.get(name, wall_clock)(run))
            progress(done, rounds)
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
