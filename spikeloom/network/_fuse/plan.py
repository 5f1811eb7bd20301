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

from .circles import in_circles
from .groups import COPIES, FOLD, HELD, SCAN, SELECT, SINGLE, STEPS, SUM, UNBIND, WRITE, Column, Groups, Node
from .recorded import Kind, OpClass
from .rules import Fold

FEEDBACK = "it takes part in a feedback between steps"


class Plan:
    """What to run for a list of operations, if the values `alive` are wanted.

    Args:
        exact: whether products run one by one.
        held: the values of `alive` that the user gets and operations read; if None, the user gets all of `alive`.
    """

    def __init__(
        self,
        operations: Sequence[Any],
        first: Sequence[int],
        kinds: Sequence[Kind],
        alive: Sequence[int],
        exact: bool,
        held: set[int] | None = None,
    ):
        self.operations, self.first, self.exact = list(operations), list(first), exact
        self.producer: list[int] = []
        for number, (found, _, _) in enumerate(operations):
            self.producer += [number] * len(found.outs)
        self.canon = list(range(len(kinds)))
        self.tensors: dict[int, tuple[int, ...]] = {}
        wanted = self._simplify(alive)
        read = {at for number in wanted for at in self.tensors[number]}
        self.held = self.alive & read if held is None else held
        self.kept = set(self.alive)
        for at in alive:  # and what the views among them show
            self.kept.update(self._shown(at))
        nodes = self._ordered(self._dissolved(Groups(self).nodes(wanted)))
        self.place: dict[int, tuple[Column, int]] = {}  # of a value that is a row of a column
        self._locate(nodes)
        for node in nodes:
            self._gather(node)
        self.nodes = nodes
        self._release(nodes)
        self.count, self.fused = len(self.operations), len(self.operations) - len(nodes)
        self.products = sum(
            self.operations[number][0].inputs[0].numel for number in wanted if self.operations[number][0].rule.product
        )
        self.elements = sum(self.operations[number][0].outs[0].numel for number in wanted)

    # -- which operations run -----------------------------------------------------------------------------------------

    def _simplify(self, alive: Sequence[int]) -> list[int]:
        """Find equal operations and unused ones; returns those that run."""
        canon, seen, kept = self.canon, dict[Any, int](), list[int]()
        given: dict[OpClass, set[int]] = defaultdict(set)  # calls of which the user gets a result, with its gradient
        for at in alive:
            number = self.producer[at]
            if self.operations[number][0].outs[at - self.first[number]].requires_grad:
                given[self.operations[number][0]].add(number)
        for number, (found, tensors, numbers) in enumerate(self.operations):
            own = tuple([canon[at] if at >= 0 else at for at in tensors])
            distinct = number in given[found] and len(given[found]) <= HELD
            if found.rule.fold not in (Fold.ORDERED, Fold.WRITE) and not distinct:
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
                    elif source != before or not _continues(node, slot):
                        circular.add(place)
                before = number
        for number in sorted(of):
            if self.operations[number][0].rule.fold is Fold.ORDERED:
                if ordered is not None:
                    edges[of[number]].add(of[ordered])
                ordered = number
        return edges, circular

    def _dissolved(self, nodes: list[Node]) -> list[Node]:
        """The nodes, those in a circle as single operations; scans only if this is not enough."""
        for all_kinds in (False, True):
            edges, circular = self._edges(nodes)
            circular.update(in_circles(edges))
            for place in circular:
                nodes[place].why = nodes[place].why or FEEDBACK
            if not all_kinds:
                circular = {place for place in circular if nodes[place].how in (FOLD, STEPS, SELECT)}
            kept = [node for place, node in enumerate(nodes) if place not in circular]
            for place in circular:
                for number in nodes[place].operations:
                    how = nodes[place].how if nodes[place].how in (WRITE, UNBIND) else SINGLE
                    kept.append(Node(how, [number], nodes[place].why))
            nodes = kept
        return nodes

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
        """Record which values are rows of columns."""
        for place, node in enumerate(nodes):
            if node.how is SCAN and len(node.operations) == 1:
                node.how = SINGLE
            if node.how is SCAN:
                node.traced = self._reads_states(node, nodes)
            if node.how in (FOLD, STEPS, SCAN, SELECT):
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
        elif node.how is SUM:
            slots = node.recipes
            values = [own[slot] for own, slot in zip(every, slots, strict=True)]
            node.recipes = [every[0][1 - slots[0]], self._pieces(values)]
        elif node.how is WRITE:
            node.recipes = [every[0][0], [own[1] if len(own) > 1 else None for own in every]]
            values = node.recipes[1]
            same = {self._kind_of_value(at) for at in values}
            whole = None not in values and len(same) == 1
            node.recipes.append(self._pieces(values) if whole else None)
        elif node.how in (FOLD, STEPS):
            columns = [list(column) for column in zip(*every, strict=True)]
            node.recipes = [self._recipe(column) for column in columns]
            if columns and not any(isinstance(recipe, list) for recipe in node.recipes):
                node.recipes[0] = self._pieces(columns[0])  # equal calls
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
        """Record after which node each value and column is not used any more."""
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


def _continues(node: Node, slot: int) -> bool:
    """Whether an operation of a chain reads by this argument what the one before it has left."""
    return node.how is SUM or (node.how is SCAN and slot > 0) or (node.how is WRITE and slot == 0)
