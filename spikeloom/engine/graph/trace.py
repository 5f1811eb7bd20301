"""The tracer: calling a cell with symbols records the graph of its operations, in order.

The same operation on the same arguments is one node. Nothing is reassociated or simplified, so a kernel made from the
graph rounds as the cell does on tensors.

A symbol behaves like a tensor in its place. Special rules of torch for numbers, conditions and tensors are either
reproduced or rejected, so no equation is compiled into a different one.
"""

import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from types import FrameType
from typing import Any

from ...cells.cell import Cell
from ...surrogate import Spike

OWN_FILES = tuple(f"spikeloom/{place}" for place in ("ops.py", "cells/cell.py", "cells/firing.py"))
GRAPH = "spikeloom/engine/graph/"

LOGICAL = frozenset({"lt", "le", "gt", "ge", "eq", "ne", "and", "or", "xor", "not"})
"""The operations whose result is a condition, a bool tensor in torch."""

CONNECTIVES: Mapping[str, str] = {"and": "&", "or": "|", "xor": "^", "not": "~"}
"""Operations that accept only conditions, and their symbols."""

OF_CONDITIONS: Mapping[str, str] = {"add": "or", "mul": "and", "ne": "xor"}
"""Equivalents in torch of other operations on two conditions."""

NUMBERS = ("const", "number")
"""Leaves that are numbers, compiled into a kernel or passed as its arguments."""

COUNTING = frozenset({"add", "mul", "div", "where", "lt", "le", "gt", "ge", "eq", "ne"})
"""Operations in which torch converts a condition next to a value to 0 or 1 in the value's dtype."""


class Untraceable(Exception):
    """A cell uses an operation that symbols cannot record; the message names it and its line."""


def _unary(op: str) -> Callable[["Symbol"], "Symbol"]:
    return lambda self: self.record(op, self)


def _binary(op: str) -> Callable[["Symbol", Any], "Symbol"]:
    return lambda self, other: self.record(op, self, other)


def _reflected(op: str) -> Callable[["Symbol", Any], "Symbol"]:
    return lambda self, other: self.record(op, other, self)


class Symbol:
    """A value in the graph of a cell."""

    __slots__ = ("args", "graph", "index", "logical", "op", "value", "varying")

    __hash__ = object.__hash__  # by identity, as for tensors, although == compares values
    __array_ufunc__ = None  # a NumPy number defers the operation to the symbol

    def __init__(self, graph: "Graph", op: str, args: tuple["Symbol", ...], value: Any, index: int):
        self.graph, self.op, self.args, self.value, self.index = graph, op, args, value, index
        # varying: has the shape of the input; False if it depends on parameters and numbers only
        self.varying: bool = op in ("x", "state", "cotangent", "full") or any(a.varying for a in args)
        self.logical: bool = op in LOGICAL

    def record(self, op: str, *args: Any) -> "Symbol":
        return self.graph.node(op, *args)

    def constant(self, value: float) -> "Symbol":
        return self.graph.leaf("const", float(value))

    def full_like(self, value: Any) -> "Symbol":
        """A number in the shape of this value."""
        if isinstance(value, Symbol) or not isinstance(value, (int, float)):
            raise Untraceable("ops.full_like takes a number; write 0 * u + value for another value")
        if self.logical:
            raise Untraceable("ops.full_like got a condition, which has no dtype of numbers; give it a value")
        return self.record("full", value) if self.varying else self.record("full_like", self, value)

    __add__, __radd__ = _binary("add"), _reflected("add")
    __sub__, __rsub__ = _binary("sub"), _reflected("sub")
    __mul__, __rmul__ = _binary("mul"), _reflected("mul")
    __truediv__ = _binary("div")
    __neg__, __abs__, __invert__ = _unary("neg"), _unary("abs"), _unary("not")
    __lt__, __le__, __gt__, __ge__ = _binary("lt"), _binary("le"), _binary("gt"), _binary("ge")
    __eq__, __ne__ = _binary("eq"), _binary("ne")  # type: ignore[assignment]
    __and__, __or__, __xor__ = _binary("and"), _binary("or"), _binary("xor")

    def __rtruediv__(self, other: Any) -> "Symbol":
        # number / tensor is reciprocal * number in torch, and rounds differently from a division
        return self.record("mul", self.record("div", self.constant(1.0), self), other)

    def __pow__(self, exponent: Any) -> "Symbol":
        if type(exponent) is Symbol:
            raise Untraceable(
                "** with a parameter or a state as exponent is not supported in an equation; for a ** b with a > 0 "
                "write ops.exp(b * ops.log(a))"
            )
        if exponent not in (2, 3):
            raise Untraceable(
                f"** {exponent!r} is not supported in an equation; use ** 2, ** 3, ops.sqrt(a) or, with a > 0, "
                f"ops.exp({exponent!r} * ops.log(a))"
            )
        square = self * self
        return square if exponent == 2 else square * self

    def __pos__(self) -> "Symbol":
        return self

    def __bool__(self) -> bool:
        raise Untraceable("a Python branch depends on the data; use ops.where")

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise Untraceable("isinstance reads the type of a value, which is a symbol while a kernel is compiled")

    def __getattr__(self, name: str) -> Any:
        spikes = "; for the spikes of a comparison write ops.spike(mem - threshold)" if self.logical else ""
        raise Untraceable(f".{name} is not supported in an equation; use arithmetic and spikeloom.ops{spikes}")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise Untraceable(f"torch.{getattr(func, '__name__', func)} is not supported in an equation; use spikeloom.ops")


def _refuse(methods: Mapping[str, str], why: str) -> None:
    """Give symbols methods that raise. Otherwise Python would use another operation, or the default one of objects."""
    for name, shown in methods.items():

        def refused(self: Symbol, *_: Any, why: str = why.format(shown)) -> Any:
            raise Untraceable(why)

        setattr(Symbol, f"__{name}__", refused)


_SIGNS = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**", "matmul": "@"}
_BITS = {"and": "&", "or": "|", "xor": "^", "lshift": "<<", "rshift": ">>"}
_refuse(
    {f"i{name}": sign for name, sign in (_SIGNS | _BITS).items()},
    "{0}= changes a tensor in place, and with it what others hold; write a = a {0} b",
)
_refuse(
    {f"{side}{name}": _SIGNS[name] for name in ("floordiv", "mod", "matmul") for side in ("", "r")}
    | {"divmod": "divmod", "lshift": "<<", "rshift": ">>", "round": "round"}
    | {"trunc": "math.trunc", "floor": "math.floor", "ceil": "math.ceil"},
    "{} is not supported in an equation; use arithmetic and spikeloom.ops",
)
_refuse({"rpow": "** of a number"}, "{} is not supported in an equation; for 2 ** a write ops.exp(math.log(2) * a)")
_refuse(
    {"float": "float or a function of math", "int": "int", "complex": "complex", "index": "an index or a range"},
    "{} needs a number, but this value is known only at run time; use arithmetic and spikeloom.ops",
)
_refuse(
    {"len": "len", "iter": "a loop or unpacking", "getitem": "an index", "setitem": "an assignment to elements"},
    "{} needs the elements of a tensor, but an equation computes a single element; use ops.where",
)


class Graph:
    """A list of nodes in topological order.

    The numbers of an equation and of a spike function are leaves without a value, so one kernel serves all values.
    Integers, 0.0 and 1.0 of an equation are constants of the graph, which compilers can exploit, as are the numbers
    that differentiation adds.

    Attributes:
        numbers: the values of these leaves, by place.
    """

    def __init__(self) -> None:
        self.nodes: list[Symbol] = []
        self.numbers: list[float] = []
        self._known: dict[tuple[Any, ...], Symbol] = {}
        self._place: Callable[[float], int | None] = self._in_an_equation

    def leaf(self, op: str, value: Any = None) -> Symbol:
        """An input of the graph: x, state, param, cotangent or const."""
        return self._shared(op, (), value)

    def node(self, op: str, *args: Any) -> Symbol:
        """The operation on symbols and numbers."""
        lifted = tuple(self._lift(a) for a in args)
        if any(a.logical for a in lifted) or op in CONNECTIVES or op == "where":
            return self._of_conditions(op, lifted)
        return self._shared(op, lifted, None)

    def _in_an_equation(self, value: float) -> int | None:
        """The index of a number of the cell; equal numbers share one."""
        if isinstance(value, int) or repr(value) in ("0.0", "1.0"):
            return None
        known = [repr(number) for number in self.numbers]
        if repr(value) not in known:
            self.numbers.append(value)
            return len(known)
        return known.index(repr(value))

    def close(self) -> None:
        """Mark the equation as complete: further numbers are constants of the kernel."""
        self._place = lambda value: None

    def slope(self, spike: Spike, u: Symbol, first: int) -> "Symbol | None":
        """The derivative of a spike function at u; None if it is zero.

        Its numbers have places from `first` on, one per number of the formula, so that equal numbers stay distinct.
        """
        places = count(first)

        def place(value: float) -> int:
            at = next(places)
            self.numbers[at : at + 1] = [value]
            return at

        self._place = place
        try:
            slope = spike.slope_at(u)
            return None if type(slope) is not Symbol and slope == 0 else self._lift(slope)
        finally:
            self.close()

    def _of_conditions(self, op: str, args: tuple[Symbol, ...]) -> Symbol:
        """An operation on conditions, which follows torch's rules or raises an error."""
        logical = [a.logical for a in args]
        if op == "detach":
            return args[0]
        if op in CONNECTIVES and all(logical):
            return self._shared(op, args, None)
        if op in CONNECTIVES:
            raise Untraceable(f"{CONNECTIVES[op]} takes conditions, such as u > 0; compare the values first")
        if op == "where":
            if not logical[0]:
                raise Untraceable("ops.where takes a condition first, such as u > 0; compare the value with a number")
            values = args[1:]
            return self._shared(op, (args[0], *self._counted(op, values)) if any(logical[1:]) else args, None)
        if all(logical) and len(args) == 2:
            if op in OF_CONDITIONS:
                return self._shared(OF_CONDITIONS[op], args, None)
            if op == "eq":
                return self._shared("not", (self._shared("xor", args, None),), None)
        return self._shared(op, self._counted(op, args), None)

    def _counted(self, op: str, args: tuple[Symbol, ...]) -> tuple[Symbol, ...]:
        """Convert conditions next to values to the numbers 0 and 1."""
        if op not in COUNTING or all(a.logical or a.op in NUMBERS for a in args):
            raise Untraceable(
                f"{op} got a condition, which torch computes in another dtype, or not at all; "
                "write ops.where(condition, ops.full_like(u, 1), 0.0) for the number, or ops.spike(u) for spikes"
            )
        return tuple(self._shared("count", (a,), None) if a.logical else a for a in args)

    def _lift(self, value: Any) -> Symbol:
        if type(value) is Symbol:
            return value
        if isinstance(value, (int, float)) and (float(value) == value or value != value):
            place = self._place(value)
            return self.leaf("const", float(value)) if place is None else self.leaf("number", place)
        shape = getattr(value, "shape", None)  # a tensor would print all its values
        given = repr(value) if shape is None else f"of shape {tuple(shape)}"
        raise Untraceable(f"a {type(value).__name__} {given} enters the equation; pass it as a parameter")

    def __str__(self) -> str:
        return "\n".join(f"{n.index} {n.op} {[a.index for a in n.args]} {n.value!r}" for n in self.nodes)

    def _shared(self, op: str, args: tuple[Symbol, ...], value: Any) -> Symbol:
        key = (op, tuple(a.index for a in args), repr(value))
        if key not in self._known:
            self._known[key] = Symbol(self, op, args, value, len(self.nodes))
            self.nodes.append(self._known[key])
        return self._known[key]


@dataclass(frozen=True)
class TracedStep:
    """One step of a cell: its leaves and its results in one graph."""

    graph: Graph
    inputs: tuple[Symbol, ...]
    states: tuple[Symbol, ...]
    params: Mapping[str, Symbol]
    spk: Symbol
    new_states: tuple[Symbol, ...]


def trace(cell: Cell) -> TracedStep:
    """Call the cell with symbols; raises `Untraceable` with the line at fault."""
    step, again = _traced(cell), _traced(cell)
    if (str(step.graph), repr(step.graph.numbers)) != (str(again.graph), repr(again.graph.numbers)):
        raise Untraceable(
            f"{cell.label} cannot be traced: it computes something else when it is called again; it must not draw "
            "random numbers, count its calls or the like"
        )
    return step


def _traced(cell: Cell) -> TracedStep:
    graph = Graph()
    inputs = tuple(graph.leaf("x", k) for k in range(cell.inputs))
    states = tuple(graph.leaf("state", name) for name in cell.states)
    params = {name: graph.leaf("param", name) for name in cell.params}
    x = inputs[0] if cell.inputs == 1 else inputs
    try:
        results = tuple(graph._lift(result) for result in cell(x, *states, **params))
        for name, result in zip(("spikes", *cell.states), results, strict=True):
            _check_result(name, result)
        graph.close()
    except Exception as error:  # an equation that raises any error on a symbol cannot be traced
        raise Untraceable(f"{cell.label} cannot be traced: {error}{line_of(error)}") from error
    return TracedStep(graph, inputs, states, params, results[0], results[1:])


def _check_result(name: str, result: Symbol) -> None:
    if result.logical:
        raise Untraceable(
            "its spikes are a condition, and a comparison has no gradient; write ops.spike(mem - threshold), whose "
            "gradient is the surrogate"
            if name == "spikes"
            else f"its state {name} is a condition; return numbers, ops.where(condition, ops.full_like(x, 1), 0.0)"
        )
    if not result.varying:
        raise Untraceable(
            f"its {'spikes depend' if name == 'spikes' else f'state {name} depends'} neither on x nor on a state, and "
            "would have another shape; write ops.full_like(x, number) for a number, and 0 * x + value for a parameter"
        )


def line_of(error: Exception) -> str:
    """The line of the user's code at which an error was raised, in brackets."""
    frames = traceback.extract_tb(error.__traceback__)
    names = [f.filename.replace("\\", "/") for f in frames]
    outside = [
        f
        for f, name in zip(frames, names, strict=True)
        if not name.endswith(OWN_FILES) and GRAPH not in name and "/torch/" not in name
    ]
    return f" ({outside[-1].filename}:{outside[-1].lineno}: {outside[-1].line})" if outside else ""


def needed(outputs: Iterable[Symbol], given: frozenset[Symbol] = frozenset()) -> dict[Symbol, None]:
    """The nodes that the outputs depend on, in order, stopping at the given ones (which are included).

    Returned as the keys of a dictionary, because `in` on a list would compare symbols and record the comparison.
    """
    found: set[Symbol] = set()
    pending = list(outputs)
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending.extend(() if node in given else node.args)
    return dict.fromkeys(sorted(found, key=lambda node: node.index))


# -- the names of values in an equation, for readable source -----------------------------------------------------------

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
