"""Which operations of a recording run together: the nodes of a plan."""

from collections import defaultdict
from itertools import pairwise
from typing import Any

import torch

from ...neurons import SpikingNeuron
from ...neurons.recurrent import Recurrent
from .neurons import has_products
from .recorded import OpClass
from .rules import RULES, Fold

EXACT = "exact_products=True"
VECTOR = 64
"""Steps of so many elements, or a multiple, fill the vector registers."""

SINGLE, FOLD, SCAN, SELECT, WRITE, UNBIND = "step by step", "fold", "scan", "select", "write", "unbind"
SUM, STEPS = "sum", "steps"
FOLDED = (Fold.ELEMENTWISE, Fold.LEADING, Fold.ROWS, Fold.RESHAPE, Fold.VMAP)
SHORTEST = 2
"""Sums of more terms run as one operation."""

COPIES = (torch.stack, torch.cat)
ADDITIONS = {op for op in RULES if getattr(op, "__name__", "") in ("add", "__add__", "__radd__")}

HELD = 4
"""Up to so many single steps of a column whose results the user gets run by themselves: their gradients are then all
that the loop gives, also through later steps."""

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


class Groups:
    """The operations of a plan, and which of them run together."""

    def __init__(self, plan: Any):
        self.operations, self.first, self.tensors = plan.operations, plan.first, plan.tensors
        self.producer, self.alive, self.exact = plan.producer, plan.alive, plan.exact
        self.held = plan.held
        self.users: dict[int, int] = defaultdict(int)

    def nodes(self, wanted: list[int]) -> list[Node]:
        """Group the operations, without regard to circles."""
        groups: dict[Any, list[int]] = defaultdict(list)
        bases: dict[Any, int] = defaultdict(int)
        users = self.users
        for number in wanted:
            found, own = self.operations[number][0], self.tensors[number]
            if found.rule.fold is Fold.SELECT:
                bases[found, own[0]] += 1
            for at in own:
                users[at] += 1
        nodes = self._sums(wanted)
        summed = {number for node in nodes for number in node.operations}
        tails: dict[int, list[int]] = {}
        for number in wanted:
            if number in summed:
                continue
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
                before = self.operations[source][0] if source >= 0 else found
                written = source >= 0 and before.rule.fold is Fold.WRITE and before.mode == found.mode
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
                if found.rule.reduces and found.container is None:  # not folded, and still with one gradient
                    groups[STEPS, found, numbers].append(number)
                    continue
                nodes.append(Node(SINGLE, [number], why))
            else:
                groups[FOLD, found, numbers, self._shared(found, own)].append(number)
        for key, members in groups.items():
            nodes.append(
                Node(key[0], members) if len(members) > 1 else Node(SINGLE, members, self._chained(members[0]))
            )
        return [part for node in nodes for part in self._around_held(node)]

    def _around_held(self, node: Node) -> list[Node]:
        """A node, without the few steps whose results the user gets and others read."""
        if node.how not in (FOLD, STEPS, SCAN):
            return [node]
        own = node.operations
        held = [place for place, number in enumerate(own) if self._is_held(number)]
        if node.how is SCAN and held and held[-1] == len(own) - 1:
            held.pop()
        if not 0 < len(held) <= HELD:
            return [node]
        if node.how is not SCAN:
            rest = [number for place, number in enumerate(own) if place not in held]
            parts = [[own[place]] for place in held] + ([rest] if rest else [])
        else:
            ends = [0, *[end for place in held for end in (place, place + 1)], len(own)]
            parts = [own[start:end] for start, end in pairwise(ends) if start < end]
        return [Node(node.how if len(part) > 1 else SINGLE, part) for part in parts]

    def _is_held(self, number: int) -> bool:
        found, at = self.operations[number][0], self.first[number]
        return any(kind.requires_grad and at + place in self.held for place, kind in enumerate(found.outs))

    def _sums(self, wanted: list[int]) -> list[Node]:
        """Running sums: chains of additions of one kind of values, of which only the last is used."""
        last: dict[int, tuple[Any, list[tuple[int, int]]]] = {}
        for number in wanted:
            found, own = self.operations[number][0], self.tensors[number]
            if not _may_run(found):
                continue
            slot = next((s for s, at in enumerate(own) if at >= 0 and self.producer[at] in last), None)
            if slot is None or self.users[own[slot]] > 1 or own[slot] in self.alive:
                last[number] = None, [(number, 1)]
                continue
            value, source = found.inputs[1 - slot], self.producer[own[slot]]
            kind, chain = last[source]
            start = self.operations[source][0]
            if kind is None and value in start.inputs:
                kind, chain = value, [(source, int(start.inputs[1] is value))]
            same = kind is value and _may_run(start) and start.mode == found.mode
            if not same or found.inputs[slot].size != found.outs[0].size:
                last[number] = None, [(number, 1)]
                continue
            del last[source]
            last[number] = kind, [*chain, (number, 1 - slot)]
        nodes = []
        for _, chain in last.values():
            if len(chain) > SHORTEST:
                node = Node(SUM, [number for number, _ in chain])
                node.recipes = [slot for _, slot in chain]
                nodes.append(node)
        return nodes

    def _chained(self, number: int) -> str:
        """Why an operation is alone in its class, if it goes on with a result of another call."""
        func = self.operations[number][0].func
        sources = [self.operations[self.producer[at]][0].func for at in self.tensors[number] if at >= 0]
        return "each call needs the result of the one before" if func in sources else ""

    def _step_before(self, number: int) -> int | None:
        """The step of the same neuron whose states a step continues."""
        found, own = self.operations[number][0], self.tensors[number]
        if len(own) < 2 or own[-1] < 0:
            return None
        before: int = self.producer[own[-1]]
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


def _may_run(found: OpClass) -> bool:
    """Whether an operation is a sum of two tensors of one dtype, which may be part of a running sum."""
    if found.func not in ADDITIONS or len(found.inputs) != 2 or len(found.form[0]) + len(found.form[1]) != 2:
        return False
    return len({(kind.dtype, kind.device) for kind in [*found.inputs, found.outs[0]]}) == 1
