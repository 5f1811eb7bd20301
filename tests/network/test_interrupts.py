"""Ctrl-C at any line, and at any moment: the process and the network stay usable."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import spikeloom as snn

from .interrupting import ACTIONS, Reference

PACKAGE = Path(snn.__file__).parent
INTERRUPTED = (
    "scoped.py",
    "network",
    "neurons/_time.py",
    "neurons/_keeping.py",
    "linear/accelerating.py",
    "scan/select.py",
)

Where = tuple[str, int]


def traced(run: Callable[[], Any], at: int = -1) -> list[Where]:
    """Run it, and raise KeyboardInterrupt at that line of those that it goes through; return all lines so far."""
    lines: list[Where] = []
    known: dict[Any, bool] = {}

    def each_line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(lines) - 1 == at:
                raise KeyboardInterrupt
        return each_line

    def each_call(frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in known:
            known[name] = any(name.startswith(str(PACKAGE / part)) for part in INTERRUPTED)
        return each_line if known[name] else None

    before = sys.gettrace()
    sys.settrace(each_call)
    try:
        run()
    finally:
        sys.settrace(before)
    return lines


def places(lines: list[Where]) -> list[int]:
    """The first and the last time that each line is reached."""
    first: dict[Where, int] = {}
    last: dict[Where, int] = {}
    for i, line in enumerate(lines):
        first.setdefault(line, i)
        last[line] = i
    return sorted({*first.values(), *last.values()})


@pytest.mark.parametrize("name", ACTIONS)
def test_an_interrupt_at_any_line_leaves_the_process_usable(name: str):
    reference = Reference(ACTIONS[name])
    with reference.started() as (net, given):
        lines = traced(lambda: reference.action.run(net, given))
    assert len(lines) > 10
    for at in places(lines):
        with reference.started() as (net, given):
            try:
                traced(lambda net=net, given=given: reference.action.run(net, given), at)
            except KeyboardInterrupt as error:
                where = [*_lines_of(error)][-1]
                try:
                    reference.assert_usable(net, given)  # while the traceback holds every frame
                except (AssertionError, RuntimeError, TypeError, AttributeError, KeyError) as fault:
                    raise AssertionError(f"interrupted at {where}, {lines[at]}") from fault


def _lines_of(error: BaseException) -> Any:
    at = error.__traceback__
    while at is not None:
        yield at.tb_frame.f_code.co_filename, at.tb_lineno
        at = at.tb_next
