"""The names that an equation gives to its values, for source that people read."""

import sys
from types import FrameType
from typing import Any

from ...cells.cell import Cell
from .trace import GRAPH, Symbol, trace

NAMELESS = tuple(f"spikeloom/{place}" for place in ("ops.py", "cells/cell.py"))
"""Files whose variables are not names of an equation."""


def names_in(cell: Cell) -> dict[int, str]:
    """The first name of each value in the equation of a cell, by the index of its node.

    The equation is traced while its local variables are watched. Equal cells have equal graphs, so the indices hold for
    every graph of the cell.

    Raises:
        Untraceable: if the cell cannot be traced.
    """
    names: dict[int, str] = {}

    def watch(frame: FrameType, event: str, arg: Any) -> Any:
        file = frame.f_code.co_filename.replace("\\", "/")
        if file.endswith(NAMELESS) or GRAPH in file:
            return None
        for name, value in frame.f_locals.items():
            if type(value) is Symbol:
                names.setdefault(value.index, name)
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        trace(cell)
    finally:
        sys.settrace(before)
    return names
