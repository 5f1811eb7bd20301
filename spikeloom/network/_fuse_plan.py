"""Find the loop in recorded operations, and plan how to run it: the second half of `fuse`.

Operations of one class are the calls of one line of the loop's body at its steps: a column. They run as one, a fold;
the steps of one neuron, each from the states of the one before, run as a scan. Folds and scans depend on each other
through their operations. Those that do so in a circle, such as a neuron that gets feedback from a later layer, are
dissolved: their operations run one by one, in the recorded order. What is left has an order.

Operations with the same arguments run once, and those without use not at all.
"""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from ..neurons import SpikingNeuron
from ..neurons.recurrent import Recurrent
from ._fuse_graph import in_circles
from ._fuse_neurons import has_products
from ._fuse_rules import Fold
from ._fuse_values import Kind, OpClass

EXACT = "exact_products=True"
VECTOR = 64
"""Steps of so many elements, or a multiple, fill the vector registers."""

SINGLE, FOLD, SCAN, SELECT, WRITE, UNBIND = "step by step", "fold", "scan", "select", "write", "unbind"
FOLDED = (Fold.ELEMENTWISE, Fold.LEADING, Fold.ROWS, Fold.RESHAPE, Fold.VMAP)
COPIES = (torch.stack, torch.cat)

Column = tuple[int, int]
"""The results of a node: its number, and which of its results."""


class Node:
    """Operations that run together.

    Args:
        how: SINGLE for one operation, or how several run as one.
        operations: their numbers, in the order of the loop.
    """

    __slots__ = ("how", "operations", "recipes", "release", "traced", "why")

    def __init__(self, how: str, operations: list[int], why: str = ""):
        self.how, self.operations, self.why = how, operations, why
        self.recipes: list[Any] = []  # of each tensor argument: a value that all calls share, or a list of pieces
        self.release: tuple[list[int], list[Column]] = ([], [])  # what nobody uses after it
        self.traced = False


class Plan:
    """What to run for a list of operations, if the values `alive` are wanted.

    Args:
        exact: whether products run one by one.
    """

    def __init__(
        self, operations: Sequence[Any], first: Sequence[int], kinds: Sequence[Kind], alive: Sequence[int], exact: bool
    ):
        self.operations, self.first, self.exact = list(operations), list(first), exact
        self.producer: list[int] = []
        for number, (found, _, _) in enumerate(operations):
            self.producer += [number] * len(found.outs)
        self.canon = list(range(len(kinds)))
        self.tensors: dict[int, tuple[int, ...]] = {}
        wanted = self._simplify(alive)
        self.kept = set(self.alive)
        for at in alive:  # and what the views among them show
            self.kept.update(self._shown(at))
        nodes = self._ordered(self._dissolved(self._grouped(wanted)))
        self.place: dict[int, tuple[Column, int]] = {}  # of a value that is a row of a column
        self._locate(nodes)
        for node in nodes:
            self._gather(node)
        self.nodes = nodes
        self._release(nodes)
        self.count, self.fused = len(wanted), len(wanted) - len(nodes)

    # -- which operations run -----------------------------------------------------------------------------------------

    def _simplify(self, alive: Sequence[int]) -> list[int]:
        """Find equal operations and unused ones; returns those that run."""
        canon, seen, kept = self.canon, dict[Any, int](), list[int]()
        for number, (found, tensors, numbers) in enumerate(self.operations):
            own = tuple([canon[at] if at >= 0 else at for at in tensors])
            if found.rule.fold not in (Fold.ORDERED, Fold.WRITE):
                same = seen.setdefault((found, own, numbers), number)
                if same != number:
                    for place in range(len(found.outs)):
                        canon[self.first[number] + place] = self.first[same] + place
                    continue
            kept.append(number)
            self.tensors[number] = own
        used = {canon[at] for at in alive}
        self.alive = set(used)
        wanted = []
        for number in reversed(kept):
            found, at = self.operations[number][0], self.first[number]
            if found.rule.fold is Fold.ORDERED or not used.isdisjoint(range(at, at + len(found.outs))):
                wanted.append(number)
                used.update(self.tensors[number])
        wanted.reverse()
        return wanted

    # -- which run together -------------------------------------------------------------------------------------------

    def _grouped(self, wanted: list[int]) -> list[Node]:
        """Group the operations, without regard to circles."""
        nodes: list[Node] = []
        groups: dict[Any, list[int]] = defaultdict(list)
        bases: dict[Any, int] = defaultdict(int)
        users: dict[int, int] = defaultdict(int)
        for number in wanted:
            found, own = self.operations[number][0], self.tensors[number]
            if found.rule.fold is Fold.SELECT:
                bases[found, own[0]] += 1
            for at in own:
                users[at] += 1
        tails: dict[int, list[int]] = {}
        for number in wanted:
            found, _, numbers = self.operations[number]
            own, fold = self.tensors[number], found.rule.fold
            if self.exact and has_products(found.func):
                nodes.append(Node(SINGLE, [number], EXACT))
            elif isinstance(found.func, SpikingNeuron):
                before = self._step_before(number)
                chain = tails.pop(before, None) if before is not None else None
                if chain is None:
                    chain = []
                    nodes.append(Node(SCAN, chain))
                chain.append(number)
                tails[number] = chain
            elif fold is Fold.WRITE:
                source = self.producer[own[0]] if own[0] >= 0 else -1
                alone = users[own[0]] == 1 and own[0] not in self.alive
                written = source >= 0 and self.operations[source][0].rule.fold is Fold.WRITE
                chain = tails.pop(source, None) if alone and written else None
                if chain is None:
                    chain = []
                    nodes.append(Node(WRITE, chain))
                chain.append(number)
                tails[number] = chain
            elif fold is Fold.SELECT and bases[found, own[0]] > 1:
                groups[SELECT, found, own[0]].append(number)
            elif fold is Fold.UNBIND:
                nodes.append(Node(UNBIND, [number]))
            elif why := self._why_not_folded(found):
                nodes.append(Node(SINGLE, [number], why))
            else:
                groups[FOLD, found, numbers, self._shared(found, own)].append(number)
        for key, members in groups.items():
            nodes.append(Node(key[0], members) if len(members) > 1 else Node(SINGLE, members))
        return nodes

    def _step_before(self, number: int) -> int | None:
        """The step of the same neuron whose states a step continues."""
        found, own = self.operations[number][0], self.tensors[number]
        if len(own) < 2 or own[-1] < 0:
            return None
        before = self.producer[own[-1]]
        other = self.operations[before][0]
        if other.func is not found.func or other.mode != found.mode:
            return None
        at, states = self.first[before], own[1:]
        through = len(states) == len(found.outs)  # the first state is the spikes
        expected = [at + place + (not through) for place in range(len(states))]
        for place, (state, wanted) in enumerate(zip(states, expected, strict=True)):
            if state != wanted and not (place == 0 and state == at and isinstance(found.func, Recurrent)):
                return None
        if found.inputs[0].key()[:4] != other.inputs[0].key()[:4]:
            return None
        return before

    def _why_not_folded(self, found: OpClass) -> str:
        """Why calls of a class run one by one; empty if they are folded."""
        rule = found.rule
        if rule.fold is Fold.ORDERED:
            return "it updates running statistics at every step"
        if rule.fold is Fold.SELECT:
            return "each takes a slice of another tensor"
        if rule.fold not in FOLDED:
            return "its result may depend on how many calls are joined"
        if self.exact and rule.product:
            return EXACT
        if rule.vectors and any(out.size.numel() % VECTOR for out in found.outs):
            return f"a step has a number of elements that is not a multiple of {VECTOR}"
        if rule.fold in (Fold.LEADING, Fold.ROWS) and not (found.inputs and found.inputs[0].size):
            return "it has no dimension of rows"
        return ""

    def _shared(self, found: OpClass, own: tuple[int, ...]) -> tuple[int, ...]:
        """The tensors that all calls of a fold must share."""
        if found.rule.fold is Fold.ELEMENTWISE and len({(kind.dtype, kind.device) for kind in found.inputs}) > 1:
            # a stack of tensors without dimensions takes part in the promotion of dtypes, and one of them does not
            return tuple([at for at, kind in zip(own, found.inputs, strict=True) if not kind.size])
        return own[1:] if found.rule.fold in (Fold.LEADING, Fold.ROWS) else ()

    # -- circles ------------------------------------------------------------------------------------------------------

    def _edges(self, nodes: list[Node]) -> tuple[list[set[int]], set[int]]:
        """For each node those on which it depends; and the nodes that depend on themselves."""
        of = {number: place for place, node in enumerate(nodes) for number in node.operations}
        edges: list[set[int]] = [set() for _ in nodes]
        circular: set[int] = set()
        ordered = None
        for place, node in enumerate(nodes):
            before: int | None = None
            for number in node.operations:
                own = self.tensors[number]
                for slot, at in enumerate(own):
                    if at < 0:
                        continue
                    source = self.producer[at]
                    if of[source] != place:
                        edges[place].add(of[source])
                    elif source != before or not ((node.how is SCAN and slot > 0) or (node.how is WRITE and slot == 0)):
                        circular.add(place)
                before = number
        for number in sorted(of):
            if self.operations[number][0].rule.fold is Fold.ORDERED:
                if ordered is not None:
                    edges[of[number]].add(of[ordered])
                ordered = number
        return edges, circular

    def _dissolved(self, nodes: list[Node]) -> list[Node]:
        """The nodes, those in a circle as single operations."""
        edges, circular = self._edges(nodes)
        circular.update(in_circles(edges))
        kept = [node for place, node in enumerate(nodes) if place not in circular]
        for place in circular:
            for number in nodes[place].operations:
                how = nodes[place].how if nodes[place].how in (WRITE, UNBIND) else SINGLE
                kept.append(Node(how, [number], "it takes part in a feedback between steps"))
        return kept

    def _ordered(self, nodes: list[Node]) -> list[Node]:
        """The nodes in an order in which they can run, near that of the loop."""
        edges, _ = self._edges(nodes)
        waiting = [len(before) for before in edges]
        after: list[list[int]] = [[] for _ in nodes]
        for place, before in enumerate(edges):
            for source in before:
                after[source].append(place)
        ready = [(node.operations[0], place) for place, node in enumerate(nodes) if not waiting[place]]
        heapq.heapify(ready)
        found = []
        while ready:
            _, place = heapq.heappop(ready)
            found.append(nodes[place])
            for other in after[place]:
                waiting[other] -= 1
                if not waiting[other]:
                    heapq.heappush(ready, (nodes[other].operations[0], other))
        assert len(found) == len(nodes), "no cycles are left"
        return found

    # -- where values are ---------------------------------------------------------------------------------------------

    def _locate(self, nodes: list[Node]) -> None:
        """Note which values are rows of columns."""
        for place, node in enumerate(nodes):
            if node.how is SCAN and len(node.operations) == 1:
                node.how = SINGLE
            if node.how is SCAN:
                node.traced = self._reads_states(node, nodes)
            if node.how in (FOLD, SCAN, SELECT):
                for row, number in enumerate(node.operations):
                    at = self.first[number]
                    for result in range(len(self.operations[number][0].outs)):
                        if node.how is not SCAN or node.traced or not result:
                            self.place[at + result] = (place, result), row
            elif node.how is UNBIND:
                at = self.first[node.operations[0]]
                for row in range(len(self.operations[node.operations[0]][0].outs)):
                    self.place[at + row] = (place, 0), row

    def _gather(self, node: Node) -> None:
        """Find how the arguments of a node are made."""
        every = [self.tensors[number] for number in node.operations]
        if node.how is SCAN:
            node.recipes = [self._recipe([own[0] for own in every]), *every[0][1:]]
        elif node.how is WRITE:
            node.recipes = [every[0][0], [own[1] if len(own) > 1 else None for own in every]]
            values = node.recipes[1]
            same = {self._kind_of_value(at) for at in values}
            whole = None not in values and len(same) == 1
            node.recipes.append(self._pieces(values) if whole else None)
        elif node.how is FOLD:
            node.recipes = [self._recipe(list(column)) for column in zip(*every, strict=True)]
        elif node.how in (SELECT, UNBIND):
            node.recipes = [every[0][0]]
        else:
            found = self.operations[node.operations[0]][0]
            node.recipes = list(every[0])
            if found.func in COPIES and len({kind.size for kind in found.inputs}) == 1 and len(every[0]) > 1:
                node.recipes = [self._pieces(every[0])]
                node.how = found.func.__name__

    def _kind_of_value(self, at: int | None) -> Any:
        if at is None or at < 0:
            return at
        number = self.producer[at]
        kind = self.operations[number][0].outs[at - self.first[number]]
        return kind.size, kind.dtype

    def _recipe(self, values: list[int]) -> Any:
        """A number if all are the same value, otherwise pieces."""
        return values[0] if all(at == values[0] for at in values) else self._pieces(values)

    def _pieces(self, values: Sequence[int]) -> list[Any]:
        """The values in a row as pieces: (column, start, end), or lists of single values."""
        pieces: list[Any] = []
        for at in values:
            where = self.place.get(at)
            last = pieces[-1] if pieces else None
            if where is None:
                if type(last) is list:
                    last.append(at)
                else:
                    pieces.append([at])
            elif type(last) is tuple and last[0] == where[0] and last[2] == where[1]:
                pieces[-1] = (last[0], last[1], last[2] + 1)
            else:
                pieces.append((where[0], where[1], where[1] + 1))
        if len(pieces) > 2 and len(pieces) > len(values) // 2:
            return [list(values)]
        return pieces

    def _release(self, nodes: list[Node]) -> None:
        """Note after which node each value and column is not used any more."""
        last: dict[Any, int] = {}
        kept = self.kept
        for place, node in enumerate(nodes):
            for key in self._reads(node):
                last[key] = place
            for number in node.operations:
                at = self.first[number]
                for value in range(at, at + len(self.operations[number][0].outs)):
                    last.setdefault(value, place)
                    if value in self.place:
                        last.setdefault(self.place[value][0], place)
        for value in kept:
            last.pop(value, None)
            if value in self.place:
                last.pop(self.place[value][0], None)
        for key, place in last.items():
            if isinstance(key, tuple):
                nodes[place].release[1].append(key)
            elif key >= 0:
                nodes[place].release[0].append(key)

    def _shown(self, at: int) -> set[int]:
        found = {at, self.canon[at]}
        number = self.producer[at]
        while self.operations[number][0].rule.view and self.operations[number][1]:
            at = self.operations[number][1][0]
            if at < 0:
                break
            found |= {at, self.canon[at]}
            number = self.producer[at]
        return found

    def _reads(self, node: Node) -> list[Any]:
        """The values and columns that a node reads."""
        found: list[Any] = []
        for recipe in node.recipes:
            for part in recipe if isinstance(recipe, list) else [recipe]:
                if isinstance(part, tuple):
                    found.append(part[0])
                else:
                    for at in part if isinstance(part, list) else [part]:
                        if at is not None:
                            found.append(at)
                            if at in self.place:
                                found.append(self.place[at][0])
        return found

    def _reads_states(self, node: Node, nodes: list[Node]) -> bool:
        """Whether anybody reads states of a scan before the last."""
        inner = {
            self.first[number] + result
            for number in node.operations[:-1]
            for result in range(1, len(self.operations[number][0].outs))
        }
        if not inner.isdisjoint(self.kept):
            return True
        own = set(node.operations)
        return any(
            at in inner
            for other in nodes
            for number in other.operations
            if number not in own
            for at in self.tensors[number]
        )
