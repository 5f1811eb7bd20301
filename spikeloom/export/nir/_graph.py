"""A NIR graph, flat and checked: its nodes, what each gets, in which order they run, and where it has cycles.

NIR's time is continuous, so a spike may come back to its neuron in the same instant. In steps it comes back one step
later: within a cycle, an edge out of a neuron carries the output of the previous step, if the neuron could not run
before the reader of that edge. A Delay in the cycle is that step, or as many as it has.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._package import Node, nir_package

Edge = tuple[str, str]
Shape = tuple[int, ...]
NEURONS = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF")
STATEFUL = (*NEURONS, "Delay")


class BadGraph(ValueError):
    """A graph that cannot be run; the message names the node and says why."""


@dataclass(frozen=True)
class Whole:
    """A neuron that is several nodes.

    Args:
        name: of the one node that replaces them.
        entry, leave: the node that gets its input, and the one that gives its spikes.
        parts: all of its nodes.
        layer: the neuron.
    """

    name: str
    entry: str
    leave: str
    parts: Sequence[str]
    layer: Any


class Flat:
    """A graph without subgraphs.

    Args:
        nodes: by name; those of a subgraph have its name before theirs.
        edges: in their order, in which sums are computed.
    """

    def __init__(self, nodes: dict[str, Node], edges: list[Edge]):
        self.shapes: dict[str, Shape | None] = {}
        self.wholes = dict[str, Whole]()
        self._set(nodes, edges)

    def _set(self, nodes: dict[str, Node], edges: list[Edge]) -> None:
        self.nodes, self.edges = nodes, edges
        self._sources: dict[str, list[str]] = {name: [] for name in nodes}
        self._targets: dict[str, list[str]] = {name: [] for name in nodes}
        for a, b in edges:
            self._sources[b].append(a)
            self._targets[a].append(b)

    def fold(self, wholes: Iterable[Whole]) -> None:
        """Replace the nodes of neurons by one node each, with the fields of its entry."""
        entered, left, inner = dict[str, str](), dict[str, str](), set[str]()
        for whole in wholes:
            self.wholes[whole.name], self.shapes[whole.name] = whole, self.shapes[whole.leave]
            entered[whole.entry], left[whole.leave] = whole.name, whole.name
            inner |= {*whole.parts}
        nodes = {entered.get(n, n): node for n, node in self.nodes.items() if n in entered or n not in inner}
        edges = [
            (left.get(a, a), entered.get(b, b))
            for a, b in self.edges
            if (a in left or a not in inner) and (b in entered or b not in inner)
        ]
        self._set(nodes, edges)

    def has_state(self, name: str) -> bool:
        """Whether a node stores a state from step to step: a neuron or a Delay."""
        return name in self.wholes or kind_of(self.nodes[name]) in STATEFUL

    def sources(self, name: str) -> list[str]:
        """The nodes whose outputs a node gets the sum of."""
        return self._sources[name]

    def targets(self, name: str) -> list[str]:
        """The nodes that get the output of a node."""
        return self._targets[name]

    def of_kind(self, kind: str) -> list[str]:
        """The names of the nodes of a kind, by the numbers in them."""
        return sorted((name for name, node in self.nodes.items() if kind_of(node) == kind), key=_natural)


def kind_of(node: Node) -> str:
    """The name of a node's primitive."""
    return type(node).__name__


def listed(names: Iterable[str]) -> str:
    """The first of some names, for a message."""
    names = sorted(names)
    more = f" and {len(names) - 10} others" if len(names) > 10 else ""
    return ", ".join(map(repr, names[:10])) + more


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def flattened(graph: Any) -> Flat:
    """The graph without subgraphs; raises `BadGraph` if it is not a graph."""
    nodes, edges = _inlined(graph, "", 0)
    for kind in ("Input", "Output"):
        if not any(kind_of(node) == kind for node in nodes.values()):
            raise BadGraph(f"the graph has no {kind} node")
    flat = Flat(nodes, edges)
    left = {a for a, _ in edges}
    for name, node in nodes.items():
        if (kind_of(node) == "Input") == bool(flat.sources(name)):
            problem = "gets an edge" if flat.sources(name) else "has no input"
            raise BadGraph(f"the node {name!r} ({kind_of(node)}) {problem}")
        if kind_of(node) == "Output" and name in left:
            raise BadGraph(f"an edge leaves the node {name!r} (Output)")
    fed = _fed(flat)
    for name in nodes:
        if name not in fed:
            raise BadGraph(f"the node {name!r} ({kind_of(nodes[name])}) gets nothing that comes from an Input")
    return flat


def _fed(flat: Flat) -> set[str]:
    """The nodes that an Input reaches."""
    after: dict[str, list[str]] = {name: [] for name in flat.nodes}
    for a, b in flat.edges:
        after[a].append(b)
    fed, ahead = set[str](), flat.of_kind("Input")
    while ahead:
        name = ahead.pop()
        if name not in fed:
            fed.add(name)
            ahead += after[name]
    return fed


def _inlined(graph: Any, prefix: str, depth: int) -> tuple[dict[str, Node], list[Edge]]:
    nir = nir_package()
    if depth > 50:
        raise BadGraph("its subgraphs are nested more than 50 deep")
    edges = _checked_edges(graph, prefix)
    nodes: dict[str, Node] = {}
    inner: list[Edge] = []
    entry: dict[str, list[str]] = {}  # of a subgraph: the nodes that get its input
    leave: dict[str, list[str]] = {}
    for name, node in graph.nodes.items():
        if not isinstance(name, str):
            raise BadGraph(f"the name of a node is {name!r}, a {type(name).__name__}; pass a str")
        if not isinstance(node, nir.NIRNode):
            raise BadGraph(
                f"the node {prefix + name!r} is a {type(node).__name__}; pass a node of nir, such as nir.LIF"
            )
        if not isinstance(node, nir.NIRGraph):
            _put(nodes, {prefix + name: node})
            continue
        parts, links = _inlined(node, f"{prefix}{name}.", depth + 1)
        ports = {kind: [key for key, part in parts.items() if kind_of(part) == kind] for kind in ("Input", "Output")}
        if any(len(ports[kind]) != 1 for kind in ports):
            raise BadGraph(
                f"the subgraph {prefix + name!r} has {len(ports['Input'])} inputs and {len(ports['Output'])} outputs; "
                "an edge of NIR names a node, so a subgraph has one of each"
            )
        (begin,), (end,) = ports["Input"], ports["Output"]
        entry[prefix + name] = [b for a, b in links if a == begin]
        leave[prefix + name] = [a for a, b in links if b == end]
        inner += [(a, b) for a, b in links if a != begin and b != end]
        if any(a == begin and b == end for a, b in links):
            raise BadGraph(f"the subgraph {prefix + name!r} connects its input with its output directly")
        _put(nodes, {key: part for key, part in parts.items() if key not in (begin, end)})
    outer = [(a, b) for x, y in edges for a in leave.get(x, [x]) for b in entry.get(y, [y])]
    return nodes, [*dict.fromkeys([*outer, *inner])]


def _put(nodes: dict[str, Node], more: dict[str, Node]) -> None:
    for name in more:
        if name in nodes:
            raise BadGraph(f"two nodes have the name {name!r}, one of them in a subgraph; rename one")
    nodes |= more


def _checked_edges(graph: Any, prefix: str) -> list[Edge]:
    try:
        edges = [(str(a), str(b)) for a, b in graph.edges]
    except (TypeError, ValueError) as error:
        raise BadGraph("the edges of the graph are not pairs of names of nodes") from error
    for edge in edges:
        for name in edge:
            if name not in graph.nodes:
                raise BadGraph(f"the edge {edge} names the node {name!r}, which the graph does not have")
    for edge, times in Counter(edges).items():
        if times > 1:
            raise BadGraph(f"the edge {edge} occurs {times} times; NIR has one edge between two nodes")
    return [(prefix + a, prefix + b) for a, b in edges]


# -- the order ---------------------------------------------------------------------------------------------------------


def ordered_groups(flat: Flat) -> list[list[str]]:
    """The nodes in an order to run in; the nodes of a cycle are one group."""
    return list(_components(flat.nodes, flat.edges))


def _components(nodes: Iterable[str], edges: Sequence[Edge]) -> Iterator[list[str]]:
    """The strongly connected components in topological order, by Tarjan's algorithm without recursion."""
    names = list(nodes)
    after: dict[str, list[str]] = {name: [] for name in names}
    for a, b in edges:
        after[b].append(a)  # backwards, so that components come out in topological order
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in names:
        if root in index:
            continue
        work: list[tuple[str, int]] = [(root, 0)]
        while work:
            name, at = work.pop()
            if at == 0:
                index[name] = low[name] = len(index)
                stack.append(name)
                on_stack.add(name)
            for i in range(at, len(after[name])):
                other = after[name][i]
                if other not in index:
                    work += [(name, i + 1), (other, 0)]
                    break
                if other in on_stack:
                    low[name] = min(low[name], index[other])
            else:
                if low[name] == index[name]:
                    component: list[str] = []
                    while not component or component[-1] != name:
                        component.append(stack.pop())
                        on_stack.discard(component[-1])
                    found.append(component)
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[name])
    yield from found


def is_cycle(flat: Flat, group: list[str]) -> bool:
    """Whether a group of nodes is a cycle."""
    return len(group) > 1 or group[0] in flat.sources(group[0])


def delayed_edges(flat: Flat, group: list[str], dt: float) -> tuple[list[str], set[Edge]]:
    """The order in which the nodes of a cycle run in a step, and the edges that carry outputs of the step before."""
    waits, nodes = _waiting(flat, group, dt), {*group}
    after = {(a, b) for a, b in flat.edges if b in waits}
    inside = [(a, b) for a, b in flat.edges if a in nodes and b in nodes and b not in waits]
    loose = [edge for edge in inside if _may_be_late(flat, *edge)]
    fixed = [edge for edge in inside if not _may_be_late(flat, *edge)]
    stuck = next((part for part in _components(group, fixed) if len(part) > 1 or (part[0], part[0]) in fixed), None)
    if stuck:
        raise BadGraph(
            f"the nodes {listed(stuck)} form a cycle without a neuron, so that each needs its own output first"
        )
    entered = {b for a, b in flat.edges if b in nodes and a not in nodes}
    entered |= {b for a, b in inside if a in entered and _fires_for(flat, b)}
    loose.sort(key=lambda edge: edge[0] not in entered)  # neurons that get the input from outside run first
    order = _Order(group, fixed)
    kept = [*fixed, *(edge for edge in loose if order.keep(*edge))]
    ran = [name for part in _components(group, kept) for name in part]
    return ran, after | set(inside) - set(kept)


class _Order:
    """A topological order that edges are added to, by the algorithm of Pearce and Kelly, 2006."""

    def __init__(self, names: Sequence[str], edges: Sequence[Edge]):
        self._after: dict[str, list[str]] = {name: [] for name in names}
        self._before: dict[str, list[str]] = {name: [] for name in names}
        for a, b in edges:
            self._after[a].append(b)
            self._before[b].append(a)
        self._at = {part[0]: i for i, part in enumerate(_components(names, edges))}

    def keep(self, a: str, b: str) -> bool:
        """Add the edge from a to b, unless it closes a cycle."""
        low, high = self._at[b], self._at[a]
        if low == high:
            return False
        if low < high:
            later = self._reached(b, self._after, low, high, a)
            if a in later:
                return False
            moved = [*self._reached(a, self._before, low, high), *later]
            for name, at in zip(moved, sorted(self._at[name] for name in moved), strict=True):
                self._at[name] = at
        self._after[a].append(b)
        self._before[b].append(a)
        return True

    def _reached(
        self, start: str, links: dict[str, list[str]], low: int, high: int, goal: str | None = None
    ) -> list[str]:
        """The names that links lead to from a start, in their order, within some places of it, until the goal."""
        found, ahead = {start}, [start]
        while ahead and goal not in found:
            for name in links[ahead.pop()]:
                if name not in found and low <= self._at[name] <= high:
                    found.add(name)
                    ahead.append(name)
        return sorted(found, key=self._at.__getitem__)


def _waiting(flat: Flat, group: list[str], dt: float) -> set[str]:
    """The Delays of a cycle that get their input a step late, and then delay it by one step less.

    Those of a step or more for all values; one of less for some values only where no other breaks the cycle.
    """
    delays, nodes = [name for name in group if kind_of(flat.nodes[name]) == "Delay"], {*group}
    steps = {name: np.round(np.asarray(flat.nodes[name].delay, dtype=np.float64) / dt) for name in delays}
    waits = {name for name in delays if (steps[name] >= 1).all()}
    in_cycles, seen = set[str](), -1
    for name in delays:
        if name in waits or not (steps[name] >= 1).any():
            continue
        if seen != len(waits):
            left = [(a, b) for a, b in flat.edges if a in nodes and b in nodes and b not in waits]
            in_cycles = {name for part in _components(group, left) if len(part) > 1 for name in part}
            seen = len(waits)
        if name not in in_cycles:
            continue
        if any(source not in nodes for source in flat.sources(name)):
            raise BadGraph(
                f"the node {name!r} (Delay) is in a cycle, also gets an input from outside of it, and delays some "
                f"values by less than a step of dt={dt:.3g} s and others by more; delay all by a step or more, or "
                "split it"
            )
        waits.add(name)
    return waits


def _may_be_late(flat: Flat, a: str, b: str) -> bool:
    """Whether an edge leaves a neuron; one that is written as a LI and a Threshold is left at the Threshold."""
    return _fires_for(flat, a) or (flat.has_state(a) and not _fires_for(flat, b))


def _fires_for(flat: Flat, name: str) -> bool:
    """Whether a node is the Threshold of a neuron."""
    sources = flat.sources(name)
    return kind_of(flat.nodes[name]) == "Threshold" and any(
        flat.has_state(source) and source not in flat.wholes for source in sources
    )
