"""An equation as a list of assignments, with the names of its author, and as the text of a comment.

The graph of an equation has one node per operation. A person would write it in a few assignments: one per result, per
value that is used twice, and per value to which the equation gives a name; all other operations stand inside them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...cells.firing import FRAME_PARAMS
from ...engine.graph import NUMBERS, Program, Symbol, names_in, needed
from .identifiers import LOCAL, Names, identifier

PRECEDENCE = {
    "where": 1,
    "or": 2,
    "and": 3,
    "eq": 4,
    "ne": 4,
    "xor": 4,
    "lt": 5,
    "le": 5,
    "gt": 5,
    "ge": 5,
    "add": 6,
    "sub": 6,
    "mul": 7,
    "div": 7,
    "neg": 8,
    "not": 8,
}
"""How tightly C's operators bind; calls and names bind tightest."""

TIGHTEST = 9

SIGNS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "&&",
    "or": "||",
    "xor": "!=",
}


@dataclass(frozen=True)
class Equation:
    """One step of a neuron, or of a function without states.

    Args:
        label: the neuron's name in messages.
        inputs: the leaves of the input.
        states: the leaves of the states, by name.
        starts: the value of each state before the first step.
        spk: the output.
        news: the new states, in order.
        values: the values made of parameters alone, each one number or a tensor that broadcasts to a step.
        numbers: the value of each number of the equation.
        names: the author's names, by the index of a node.
        results: the output and the new states, resolved.
        nodes: what a step computes, in order, resolved; with its leaves.
        own_names: the author's name of each resolved node; a state's name for its new value.
        assignments: the step as assignments, in order.
    """

    label: str
    inputs: tuple[Symbol, ...]
    states: Mapping[str, Symbol]
    starts: Mapping[str, float]
    spk: Symbol
    news: tuple[Symbol, ...]
    values: Mapping[Symbol, Tensor]
    numbers: Mapping[Symbol, float]
    names: Mapping[int, str] = field(repr=False)
    results: tuple[Symbol, ...] = field(init=False, repr=False)
    nodes: list[Symbol] = field(init=False, repr=False)
    own_names: dict[Symbol, str] = field(init=False, repr=False)
    assignments: "list[Assignment]" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "results", tuple(self.resolved(node) for node in (self.spk, *self.news)))
        object.__setattr__(self, "nodes", self._nodes())
        object.__setattr__(self, "own_names", self._own_names())
        object.__setattr__(self, "assignments", list(_assignments(self)))

    def resolved(self, node: Symbol) -> Symbol:
        """The node without operations that change nothing: detach, and a graded factor of 1."""
        while node.op == "detach" or (node.op in ("mul", "div") and self._is_no_factor(node.args[1])):
            node = node.args[0]
        return node

    def _is_no_factor(self, node: Symbol) -> bool:
        return node.op == "param" and node.value == FRAME_PARAMS[1] and self.number(node) == 1.0

    def number(self, node: Symbol) -> float | None:
        """The value of a node that is one number; None if it is not."""
        if node.op == "const":
            return float(node.value)
        if node.op == "number":
            return self.numbers[node]
        value = self.values.get(node)
        if value is None or not value.numel():
            return None
        first = value.flatten()[0]
        return float(first) if bool((value == first).all()) or bool(value.isnan().all()) else None

    def is_value(self, node: Symbol) -> bool:
        """Whether a node is a constant of the program."""
        return node.op in NUMBERS or node in self.values

    def _nodes(self) -> list[Symbol]:
        given = frozenset(self.values)
        pending, found = list(self.results), set[Symbol]()
        while pending:
            node = pending.pop()
            if node not in found:
                found.add(node)
                pending.extend(() if node in given else self.arguments(node))
        return sorted(found, key=lambda node: node.index)

    def arguments(self, node: Symbol) -> list[Symbol]:
        """The arguments of a node, resolved."""
        return [self.resolved(arg) for arg in node.args]

    def _own_names(self) -> dict[Symbol, str]:
        found: dict[Symbol, str] = {}
        for node in needed((self.spk, *self.news)):
            if node.index in self.names:
                found.setdefault(self.resolved(node), self.names[node.index])
        for name, node in zip(self.states, self.news, strict=True):
            found.setdefault(self.resolved(node), name)
        found.setdefault(self.results[0], "spk" if self.states else "y")
        return found

    @property
    def input_names(self) -> list[str]:
        """The author's names of the inputs."""
        several = len(self.inputs) > 1
        return [self.names.get(x.index, f"x{k}") if several else "x" for k, x in enumerate(self.inputs)]

    def value_name(self, node: Symbol) -> str:
        """The variable of a value that is made of parameters."""
        name = identifier(self.own_names.get(node, f"c{node.index}"))
        return f"{name}_" if name in LOCAL else name

    @property
    def comment(self) -> list[str]:
        """The equation in mathematical notation; a new value of a state has a prime."""
        written = _Mathematics(self)
        lines = [(written.names[a.node], written.inside(a.node)) for a in self.assignments]
        for name, node in zip(self.states, self.results[1:], strict=True):
            if written(node).rstrip("'") != name:
                lines.append((f"{name}'", written(node)))
        if self.results[0] not in {a.node for a in self.assignments}:
            lines.append(("spk" if self.states else "y", written(self.results[0])))
        width = max(len(name) for name, _ in lines)
        return [f"{name:<{width}} = {text}" for name, text in lines]


def equation_of(
    what: str, program: Program, params: Mapping[str, Tensor], like: Tensor, starts: Mapping[str, float]
) -> Equation:
    """The equation of a program with its parameters as numbers."""
    derivation = program.derivation
    assert derivation is not None
    with torch.no_grad():
        hoisted = dict(zip(derivation.hoisted, program.hoist(params, like), strict=True))
    inner = [node for node in needed(derivation.forward) if node.op == "number"]  # also within the parameters
    numbers = {node: program.numbers[node.value] for node in inner}
    return Equation(
        label=what,
        inputs=derivation.step.inputs,
        states=dict(zip(program.cell.states, derivation.step.states, strict=True)),
        starts=starts,
        spk=derivation.forward[0],
        news=derivation.forward[1:],
        values={node: value for node, value in hoisted.items() if node.op != "number"},
        numbers=numbers | {node: float(value) for node, value in hoisted.items() if node.op == "number"},
        names=names_in(program.cell),
    )


@dataclass(frozen=True)
class Assignment:
    """An assignment of a step.

    Args:
        node: what is computed.
        name: the variable.
        declares: whether the variable is new; otherwise its former value is no longer needed.
        constant: whether the variable keeps this value.
        stored: whether the value is needed only as a result, and so has no variable.
    """

    node: Symbol
    name: str
    declares: bool
    constant: bool
    stored: bool


def _assignments(equation: Equation) -> Iterator[Assignment]:
    nodes = [node for node in equation.nodes if node.args and node not in equation.values]
    uses = Counter(arg for node in nodes for arg in set(equation.arguments(node)))
    results = Counter(equation.results)
    stated = [n for n in nodes if uses[n] > 1 or n in results or (n in equation.own_names and n.op != "full")]
    stated = [
        n for n in stated if uses[n] != 1 or n in results or not _continues(equation, n, nodes, frozenset(stated))
    ]
    last = {node: place for place, n in enumerate(stated) for node in variables(equation, n, frozenset(stated))}
    last |= dict.fromkeys(results, len(stated))
    free = Names(LOCAL)
    free.taken |= {equation.value_name(node) for node in equation.values}
    free.taken |= set(map(identifier, equation.input_names))
    holder = {
        name: (leaf, free.new(identifier(name), f"{identifier(name)}_")) for name, leaf in equation.states.items()
    }
    chosen: list[tuple[Symbol, str, bool]] = []
    for place, node in enumerate(stated):
        wish = equation.own_names.get(node, "u")
        before, variable = holder.get(wish, (None, ""))
        unread = before is not None and before not in last
        declares = before is None or unread or last[before] > place
        if declares and not unread:
            variable = free.new(identifier(wish), f"{identifier(wish)}_new")
        chosen.append((node, variable, declares))
        holder[wish] = node, variable
    changed = {variable for _, variable, declares in chosen if not declares}
    for node, variable, declares in chosen:
        stored = results[node] == 1 and not uses[node]
        yield Assignment(node, variable, declares, variable not in changed, stored)


def _continues(equation: Equation, node: Symbol, nodes: list[Symbol], stated: frozenset[Symbol]) -> bool:
    """Whether the only assignment that uses a node gives its result the same name."""
    user = node
    while user is node or user not in stated:
        user = next(n for n in nodes if any(arg is user for arg in equation.arguments(n)))
    return equation.own_names.get(user) == equation.own_names.get(node, "")


def variables(equation: Equation, node: Symbol, stated: frozenset[Symbol]) -> set[Symbol]:
    """The leaves and assigned values that the text of a node contains."""
    found, pending = set(), equation.arguments(node)
    while pending:
        arg = pending.pop()
        if arg in stated or arg.op in ("x", "state") or arg in equation.values:
            found.add(arg)
        else:
            pending.extend(equation.arguments(arg))
    return found


class Text:
    """An expression of a graph as text.

    Args:
        equation: whose graph.
        names: nodes that have a name.
    """

    calls: Mapping[str, str] = {}

    def __init__(self, equation: Equation, names: Mapping[Symbol, str]):
        self.equation, self.names = equation, dict(names)

    def mathematics(self, node: Symbol) -> str:
        """A value that is made of parameters, as a formula of their names."""
        return _Mathematics(self.equation).inside(node)

    def once(self, leaf: Symbol) -> bool:
        """Whether a leaf is an argument of one operation."""
        uses = [
            arg
            for node in self.equation.nodes
            if node not in self.equation.values
            for arg in self.equation.arguments(node)
        ]
        return sum(arg is leaf for arg in uses) == 1

    def __call__(self, node: Symbol) -> str:
        """The name of a node, or its expression."""
        node = self.equation.resolved(node)
        return self.names.get(node) or self.inside(node)

    def inside(self, node: Symbol) -> str:
        """The expression of a node."""
        if node.op in NUMBERS:
            return self.literal(self.equation.number(node) or 0.0)
        if node.op == "param":
            return str(node.value)
        args = self.equation.arguments(node)
        if node.op in ("full", "full_like"):
            return self(args[-1])
        if node.op == "neg":
            return f"-{self.within(args[0], TIGHTEST)}"
        if node.op == "not":
            return f"!{self.within(args[0], TIGHTEST)}"
        if node.op == "where":
            return f"{self.within(args[0], 2)} ? {self.within(args[1], 2)} : {self.within(args[2], 1)}"
        if node.op in SIGNS:
            own = PRECEDENCE[node.op]
            return f"{self.within(args[0], own)} {SIGNS[node.op]} {self.within(args[1], own + 1)}"
        return self.call(node.op, [self(arg) for arg in args])

    def result(self, k: int, inline: bool) -> str:
        """The output, 0, or a new state; its expression, or its name."""
        node = self.equation.results[k]
        return self.inside(node) if inline else self(node)

    def within(self, node: Symbol, least: int) -> str:
        """The text of a node as an operand; in parentheses if it binds less tightly than `least`."""
        text, node = self(node), self.equation.resolved(node)
        binds = TIGHTEST if node in self.names else PRECEDENCE.get(node.op, TIGHTEST)
        if text.startswith("-"):
            binds = min(binds, PRECEDENCE["neg"])
        return text if binds >= least else f"({text})"

    def call(self, op: str, args: list[str]) -> str:
        """An operation that is no operator."""
        return f"{self.calls.get(op, op)}({', '.join(args)})"

    def literal(self, value: float) -> str:
        """A number."""
        return shortest(value)


class _Mathematics(Text):
    """The notation of comments: H is the step function, and a prime marks a new value."""

    calls: Mapping[str, str] = {"spike": "H", "count": ""}

    def __init__(self, equation: Equation):
        names = dict(zip(equation.inputs, equation.input_names, strict=True))
        names |= {leaf: name for name, leaf in equation.states.items()}
        names |= {
            node: name
            for node, name in equation.own_names.items()
            if node in equation.values and node.op not in NUMBERS
        }
        used = set(names.values())
        for node in [a.node for a in equation.assignments]:
            name = equation.own_names.get(node, "u")
            while name in used:
                name += "'"
            used.add(name)
            names[node] = name
        super().__init__(equation, names)

    def call(self, op: str, args: list[str]) -> str:
        return f"|{args[0]}|" if op == "abs" else super().call(op, args)


def shortest(value: float, dtype: torch.dtype = torch.float32) -> str:
    """The shortest decimal number that is rounded to a value of the dtype."""
    import numpy as np

    number: Any = np.float32(value) if dtype == torch.float32 else np.float64(value)
    plain = number == 0 or 1e-4 <= abs(number) < 1e7
    return np.format_float_positional(number, trim="-") if plain else str(number)
