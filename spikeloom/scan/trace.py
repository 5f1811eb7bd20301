"""The tracer: a cell called with symbols yields the graph of its operations, in their order.

Nodes are shared where the same operation meets the same arguments; nothing is reassociated or simplified, so that a
kernel made from the graph rounds as the cell does on tensors.
"""

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..cells.cell import Cell

OWN_FILES = ("spikeloom/ops.py", "spikeloom/cells/cell.py", "spikeloom/scan/trace.py")


class Untraceable(Exception):
    """A cell does something that symbols cannot record; the message says what and where."""


class Symbol:
    """A value in the graph of a cell."""

    __slots__ = ("args", "graph", "index", "op", "value", "varying")

    def __init__(self, graph: "Graph", op: str, args: tuple["Symbol", ...], value: Any, index: int):
        self.graph, self.op, self.args, self.value, self.index = graph, op, args, value, index
        # varying: differs from step to step, unlike what is made of parameters and numbers alone
        self.varying: bool = op in ("x", "state", "cotangent") or any(a.varying for a in args)

    def record(self, op: str, *args: Any) -> "Symbol":
        return self.graph.node(op, *args)

    def constant(self, value: float) -> "Symbol":
        return self.graph.leaf("const", float(value))

    def __add__(self, other: Any) -> "Symbol":
        return self.record("add", self, other)

    def __radd__(self, other: Any) -> "Symbol":
        return self.record("add", other, self)

    def __sub__(self, other: Any) -> "Symbol":
        return self.record("sub", self, other)

    def __rsub__(self, other: Any) -> "Symbol":
        return self.record("sub", other, self)

    def __mul__(self, other: Any) -> "Symbol":
        return self.record("mul", self, other)

    def __rmul__(self, other: Any) -> "Symbol":
        return self.record("mul", other, self)

    def __truediv__(self, other: Any) -> "Symbol":
        return self.record("div", self, other)

    def __rtruediv__(self, other: Any) -> "Symbol":
        # number / tensor is reciprocal * number in torch, and rounds differently from a division
        return self.record("mul", self.record("div", 1.0, self), other)

    def __pow__(self, exponent: Any) -> "Symbol":
        if exponent not in (2, 3):
            raise Untraceable(
                f"** {exponent!r} is not in the vocabulary; use ** 2, ** 3, ops.sqrt, or ops.exp and ops.log"
            )
        square = self * self
        return square if exponent == 2 else square * self

    def __neg__(self) -> "Symbol":
        return self.record("neg", self)

    def __abs__(self) -> "Symbol":
        return self.record("abs", self)

    def __lt__(self, other: Any) -> "Symbol":
        return self.record("lt", self, other)

    def __le__(self, other: Any) -> "Symbol":
        return self.record("le", self, other)

    def __gt__(self, other: Any) -> "Symbol":
        return self.record("gt", self, other)

    def __ge__(self, other: Any) -> "Symbol":
        return self.record("ge", self, other)

    def __bool__(self) -> bool:
        raise Untraceable("a Python branch depends on the data; use ops.where")

    def __getattr__(self, name: str) -> Any:
        raise Untraceable(f".{name} is not in the vocabulary; use arithmetic and spikeloom.ops")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise Untraceable(f"torch.{getattr(func, '__name__', func)} is not in the vocabulary; use spikeloom.ops")


class Graph:
    """A growing list of nodes, arguments before their users."""

    def __init__(self) -> None:
        self.nodes: list[Symbol] = []
        self._known: dict[tuple[Any, ...], Symbol] = {}

    def leaf(self, op: str, value: Any = None) -> Symbol:
        """An input of the graph: x, state, param, cotangent or const."""
        return self._shared(op, (), value)

    def node(self, op: str, *args: Any) -> Symbol:
        """The operation on symbols and numbers."""
        return self._shared(op, tuple(self._lift(a) for a in args), None)

    def _lift(self, value: Any) -> Symbol:
        if isinstance(value, Symbol):
            return value
        if isinstance(value, (int, float)):
            return self.leaf("const", float(value))
        shape = getattr(value, "shape", None)  # of a tensor, whose values would fill the screen
        told = repr(value) if shape is None else f"of shape {tuple(shape)}"
        raise Untraceable(f"a {type(value).__name__} {told} enters the equation; pass it as a parameter")

    def _shared(self, op: str, args: tuple[Symbol, ...], value: Any) -> Symbol:
        key = (op, tuple(a.index for a in args), repr(value))
        if key not in self._known:
            self._known[key] = Symbol(self, op, args, value, len(self.nodes))
            self.nodes.append(self._known[key])
        return self._known[key]


@dataclass(frozen=True)
class Trace:
    """One step of a cell: its leaves and its results in one graph."""

    graph: Graph
    inputs: tuple[Symbol, ...]
    states: tuple[Symbol, ...]
    params: Mapping[str, Symbol]
    spk: Symbol
    new_states: tuple[Symbol, ...]


def trace(cell: Cell) -> Trace:
    """Call the cell with symbols; raises `Untraceable` with the line at fault."""
    graph = Graph()
    inputs = tuple(graph.leaf("x", k) for k in range(cell.inputs))
    states = tuple(graph.leaf("state", name) for name in cell.states)
    params = {name: graph.leaf("param", name) for name in cell.params}
    x = inputs[0] if cell.inputs == 1 else inputs
    try:
        results = tuple(graph._lift(result) for result in cell(x, *states, **params))
    except Exception as error:  # whatever the user's equation raises on a symbol, it cannot be traced
        raise Untraceable(f"{cell.name} cannot be traced: {error}{_line_of(error)}") from error
    return Trace(graph, inputs, states, params, results[0], results[1:])


def _line_of(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if not f.filename.replace("\\", "/").endswith(OWN_FILES)]
    return f" ({outside[-1].filename}:{outside[-1].lineno}: {outside[-1].line})" if outside else ""


def needed(outputs: Iterable[Symbol], given: frozenset[Symbol] = frozenset()) -> list[Symbol]:
    """The nodes that the outputs depend on, in order, stopping at the given ones (which are included)."""
    found: set[Symbol] = set()
    pending = list(outputs)
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending.extend(() if node in given else node.args)
    return sorted(found, key=lambda node: node.index)
