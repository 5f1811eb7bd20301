"""What a case is: contestants that do the same work on the same inputs, and what it means that they agree."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]
Outcome = Mapping[str, Tensor]
Run = Callable[[], Outcome]


class NotInstalled(Exception):
    """A contestant is of a library that is not here; the message names it and how to get it."""


class CannotRun(Exception):
    """A command was asked for what it cannot do here; the message says what is wrong and what to do."""


def wall_clock(run: Run) -> float:
    """Seconds that one run takes."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


@dataclass(frozen=True)
class Contestant:
    """One way to do a case's work.

    Args:
        prepare: from the inputs to what is timed, a function without arguments that returns its results by name; what
            happens in `prepare` is not timed. A library that only this contestant needs is imported here, and
            `NotInstalled` raised where it is missing.
        agrees: whether the results are compared with the reference; False for a floor, which does other work.
        seconds: how long one run takes; for a run that measures itself, what it has measured.
    """

    prepare: Callable[[Any], Run]
    agrees: bool = True
    seconds: Callable[[Run], float] = wall_clock


@dataclass(frozen=True)
class Case:
    """One piece of work, done by several contestants.

    Args:
        name: what ``--case`` takes.
        title: one line that says what is timed.
        axes: names of the axes of a shape, such as ("T", "B", "N").
        shapes: those that are timed unless others are asked for.
        inputs: makes the inputs of one shape, the same ones every time.
        contestants: by name, in the order in which they run and are shown.
        reference: the contestant that all others are compared with.
        compare: the differences of an outcome from the reference's, in sentences; empty if they agree.
        ratios: the columns of the report that set every contestant against one of them.
        remarks: what else is worth telling, found out beside the timing.
        standard: whether the case runs without being asked for.
        least_rounds: at least so many rounds, whatever they cost.
    """

    name: str
    title: str
    axes: tuple[str, ...]
    shapes: tuple[Shape, ...]
    inputs: Callable[[Shape], Any]
    contestants: Mapping[str, Contestant]
    reference: str
    compare: Callable[[Outcome, Outcome], list[str]]
    ratios: tuple["Ratio", ...] = ()
    remarks: Callable[[Any], list[str]] = lambda inputs: []
    standard: bool = True
    least_rounds: int = 3


@dataclass(frozen=True)
class Ratio:
    """A column of the report: every contestant against one of them.

    Args:
        to: that contestant.
        heading: of the column.
        gain: True: how many times faster than it a row is; False: how many times longer than it a row takes.
    """

    to: str
    heading: str
    gain: bool


def equal_spikes_close_gradients(got: Outcome, reference: Outcome) -> list[str]:
    """Spikes must be the same, every one; every other result close to the reference's."""
    found = []
    for name, wanted in reference.items():
        value = got.get(name)
        if value is None or value.shape != wanted.shape:
            shape = None if value is None else tuple(value.shape)
            found.append(f"{name}: shape {shape}, the reference has {tuple(wanted.shape)}")
        elif name == "spikes":
            differing = int((value != wanted).sum())
            if differing:
                found.append(f"{name}: {differing} of {wanted.numel()} differ from the reference")
        elif not torch.allclose(value, wanted, rtol=1e-4, atol=1e-6):
            largest = float((value - wanted).abs().max())
            found.append(f"{name}: differs from the reference by up to {largest:.2g}")
    return found
