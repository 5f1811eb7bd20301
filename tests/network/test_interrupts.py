"""Ctrl-C at any line, and at any moment: the process and the network stay usable.

``INTERRUPTS=30000 pytest tests/network/test_interrupts.py`` raises at all lines of all actions, and sends so many
signals.
"""

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

import spikeloom as snn

from .interrupting import ACTIONS, Reference, assert_nothing_is_set, same, structure

PACKAGE = Path(snn.__file__).parent
OURS = tuple(
    str(PACKAGE / part)
    for part in (
        *("scoped.py", "network", "neurons/_unrolled_run.py", "neurons/_state.py"),
        *("accelerated/__init__.py", "engine/run/backends.py"),
    )
)
assert all(map(os.path.exists, OURS))
CONTEXTS = (
    contextlib.__file__,
    *(str(Path(torch.__file__).parent / part) for part in ("overrides.py", "autograd/grad_mode.py")),
)
"""Python's and torch's files in which context managers are entered and left."""
MANY = int(os.environ.get("INTERRUPTS", "0"))

Where = tuple[str, int]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def traced(run: Callable[[], Any], at: int = -1, files: tuple[str, ...] = OURS) -> list[Where]:
    """Run it, and raise KeyboardInterrupt at that line of those that it goes through; return all lines so far."""
    lines: list[Where] = []
    known: dict[str, bool] = {}

    def each_line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(lines) - 1 == at:
                raise KeyboardInterrupt
        return each_line

    def each_call(frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in known:
            known[name] = name.startswith(files)
        # Python prints what is raised in a __del__, and goes on
        return each_line if known[name] and frame.f_code.co_name not in ("__del__", "_close") else None

    before = sys.gettrace()
    sys.settrace(each_call)
    try:
        run()
    finally:
        sys.settrace(before)
    return lines


def places(lines: list[Where]) -> list[tuple[Where, int, int]]:
    """Each line, with the first and the last time that it is reached."""
    first: dict[Where, int] = {}
    last: dict[Where, int] = {}
    for i, line in enumerate(lines):
        first.setdefault(line, i)
        last[line] = i
    return [(line, first[line], last[line]) for line in sorted(first)]


@pytest.fixture(scope="module")
def shared() -> dict[str, list[list[int]]]:
    """At which of its lines each action is interrupted, in three parts.

    Actions share most of their lines, so each line is interrupted in one of the actions that reach it, in turns. With
    INTERRUPTS, it is interrupted in all of them, the first and the last time.
    """
    reached: dict[Where, list[tuple[str, int, int]]] = {}
    for name, action in ACTIONS.items():
        reference = Reference(action)
        with reference.started() as (net, given):
            lines = traced(lambda net=net, given=given, run=action.run: run(net, given))
        for line, first, last in places(lines):
            reached.setdefault(line, []).append((name, first, last))
    chosen: dict[str, list[list[int]]] = {name: [[], [], []] for name in ACTIONS}
    for number, line in enumerate(sorted(reached)):
        at = reached[line]
        for name, first, last in at if MANY else [at[number // 6 % len(at)]]:
            times = {first, last} if MANY else {(first, last)[number // 3 % 2]}
            chosen[name][number % 3] += times
    return chosen


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2))])
@pytest.mark.parametrize("name", ACTIONS)
def test_an_interrupt_at_any_line_leaves_the_process_usable(name: str, part: int, shared: dict[str, list[list[int]]]):
    reference = Reference(ACTIONS[name])
    run = reference.action.run
    for at in shared[name][part]:
        with reference.started() as (net, given):
            try:
                traced(lambda net=net, given=given: run(net, given), at)
            except KeyboardInterrupt as error:
                held = (
                    None if name == "tap" else error
                )  # a tap ends where nobody holds it; else a traceback may live on
            reference_usable(reference, net, given, at)
            del held


def reference_usable(reference: Reference, net: Any, given: Any, at: int) -> None:
    try:
        reference.assert_usable(net, given)
    except Exception as fault:
        with reference.started() as (net, given):
            lines = traced(lambda: reference.action.run(net, given))
        raise AssertionError(f"interrupted at {lines[at]}") from fault


@pytest.mark.parametrize(
    "name",
    [
        "unroll, static",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("unroll, random", "explain", "checkpoint, backward")),
    ],
)
def test_an_interrupt_within_a_context_manager_of_torch_leaves_nothing_set(name: str):
    """torch takes modes off their stack for a while, and puts gradients off; nobody catches an interrupt there."""
    reference = Reference(ACTIONS[name])
    run = reference.action.run
    with reference.started() as (net, given):
        lines = traced(lambda: run(net, given), files=CONTEXTS)
    for _, first, last in places(lines):
        for at in {first, last}:
            with reference.started() as (net, given):
                with pytest.raises(KeyboardInterrupt):
                    traced(lambda net=net, given=given: run(net, given), at, CONTEXTS)
                assert_nothing_is_set()
                assert structure(net) in (reference.structure, reference.structure_after)


SIGNALED = (
    "unroll",
    "unroll, random",
    "unroll, compared before",
    "unroll, static",
    "checkpoint",
    "checkpoint, backward",
    "stream",
    "explain",
    "diagnose",
    "steps",
)


@pytest.mark.skipif(
    not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread(),
    reason="signals with a timer",
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # within a weakref's callback it is lost
@pytest.mark.parametrize("name", SIGNALED)
def test_a_signal_at_any_moment_leaves_the_process_usable(name: str):
    reference = Reference(ACTIONS[name])
    chance, hits, tries = random.Random(0), 0, MANY // len(SIGNALED) if MANY else 25
    times = []
    for _ in range(5):
        with reference.started() as (net, given):
            began = time.perf_counter()
            reference.action.run(net, given)
            times.append(time.perf_counter() - began)
    longest = sorted(times)[1]

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for i in range(tries):
            with reference.started() as (net, given):
                held = None
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, longest))
                    reference.action.run(net, given)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt as error:
                    held, hits = error, hits + 1
                assert_nothing_is_set()
                assert structure(net) in (reference.structure, reference.structure_after)
                if i % 10 == 0:
                    reference.assert_usable(net, given)
                del held
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert hits


def test_states_of_a_neuron_change_all_at_once():
    """Ctrl-C between two states of a step would leave one of this step and one of the step before."""
    lif = snn.Synaptic(alpha=0.5, beta=0.5, init_hidden=True)
    x = torch.ones(1, 2)
    lif(x)
    before = [lif.syn.clone(), lif.mem.clone()]
    lines = traced(lambda: lif(x))
    after = [lif.syn.clone(), lif.mem.clone()]
    for at in range(len(lines)):
        lif.syn, lif.mem = before
        with pytest.raises(KeyboardInterrupt):
            traced(lambda: lif(x), at)
        assert same([lif.syn, lif.mem], before) or same([lif.syn, lif.mem], after)


def test_autocast_that_a_forward_leaves_on_is_put_back():
    class Entering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lif = snn.Leaky(beta=0.5, init_hidden=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.autocast("cpu").__enter__()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        snn.unroll(Entering(), torch.rand(5, 2, 3))
    assert not torch.is_autocast_enabled("cpu")
