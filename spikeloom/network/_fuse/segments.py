"""Run a recording in segments of some steps, which the backward recomputes: `fuse(f, checkpoint=K)`.

A segment is a plan of its own. It reads values of segments before it, which autograd saves, and saves nothing else.
What comes after the last step of all neurons is not recomputed. Neither are slices of a tensor that needs gradients,
whose backward joins those of all segments, and writes into the outputs.
"""

import copy
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...engine.run import backend, forced
from ...neurons import SpikingNeuron
from ...neurons._unrolled_run import recorders
from .groups import Column
from .plan import Plan
from .recorded import OpClass
from .rules import Fold
from .run import ALIAS, Execution

SLICES = (Fold.SELECT, Fold.UNBIND)


class Segment:
    """A part of a recording.

    Args:
        numbers: its operations.
        recomputed: whether the backward recomputes it.
    """

    def __init__(self, whole: Plan, numbers: list[int], recomputed: bool, needed: set[int]):
        self.numbers, self.recomputed = numbers, recomputed
        self.reads: list[int] = []
        self.released: list[int] = []  # values that nobody reads after it
        self.written: set[int] = set()  # places of running statistics in `reads`
        local: dict[int, int] = {}
        operations, first, kinds = [], list[int](), list[Any]()
        for number in numbers:
            found, _, own = whole.operations[number]
            for at in whole.tensors[number]:
                if at not in local:
                    local[at] = ~len(self.reads)
                    self.reads.append(at)
            tensors = tuple([local[at] for at in whole.tensors[number]])
            operations.append((found, tensors, own))
            if found.rule.fold is Fold.ORDERED:
                self.written.update(~at for at in tensors[1:3])
            first.append(len(kinds))
            for at in range(whole.first[number], whole.first[number] + len(found.outs)):
                local[at] = len(kinds)
                kinds.append(found.outs[at - whole.first[number]])
        self.gives = [at for at, place in local.items() if place >= 0 and at in needed]
        self.places = [local[at] for at in self.gives]
        held = {local[at] for at in self.gives if at in whole.held}
        self.plan = Plan(operations, first, kinds, self.places, whole.exact, held)
        self.neurons = {found.func for found, _, _ in operations if isinstance(found.func, SpikingNeuron)}
        self.learns = any(kind.requires_grad for kind in kinds)


class Segments(Plan):
    """How to run a list of operations in segments.

    Args:
        length: the number of steps of a segment, those of its most active neuron; without neurons, the number of calls
            of one operation.
    """

    def __init__(self, operations: Any, first: Any, kinds: Any, alive: Any, exact: bool, length: int):
        super().__init__(operations, first, kinds, alive, exact)
        wanted = sorted(number for node in self.nodes for number in node.operations)
        parts, last = self._parts(wanted, length)
        reads: dict[int, set[int]] = defaultdict(set)  # the parts that read a value
        for number, part in parts.items():
            for at in self.tensors[number]:
                reads[at].add(part)
        members: list[list[int]] = [[] for _ in range(last + 1)]
        for number in wanted:
            members[parts[number]].append(number)
        self.segments = []
        for part, numbers in enumerate(members):
            own = {at for number in numbers for at in self._results(number)}
            needed = {at for at in own if at in self.kept or reads[at] - {part}}
            self.segments.append(Segment(self, numbers, 0 < part < last, needed))
        for at, readers in reads.items():
            if readers and at >= 0 and at not in self.kept:
                self.segments[max(readers)].released.append(at)

    def _results(self, number: int) -> range:
        return range(self.first[number], self.first[number] + len(self.operations[number][0].outs))

    def _parts(self, wanted: list[int], length: int) -> tuple[dict[int, int], int]:
        """The part of each operation, and the last part, which is not recomputed, nor is part 0."""
        with_neurons = any(isinstance(self.operations[number][0].func, SpikingNeuron) for number in wanted)
        parts: dict[int, int] = {}
        calls: dict[Any, int] = defaultdict(int)
        part, waiting = 1, list[int]()
        for number in wanted:
            found = self.operations[number][0]
            waiting.append(number)
            if with_neurons and not isinstance(found.func, SpikingNeuron):
                continue
            counted = found.func if with_neurons else found
            if calls[counted] == length:
                part += 1
                calls.clear()
            calls[counted] += 1
            parts.update(dict.fromkeys(waiting, part))
            waiting = []
        last = part + 1
        parts.update(dict.fromkeys(waiting, last))
        readers: dict[int, set[int]] = defaultdict(set)
        for number in reversed(wanted):
            found = self.operations[number][0]
            users = {user for at in self._results(number) for user in readers[at]}
            if found.rule.fold is Fold.WRITE and all(parts[user] == last for user in users):
                parts[number] = last
            for at in self.tensors[number]:
                readers[at].add(number)
        for number in wanted:
            found = self.operations[number][0]
            if found.rule.fold in SLICES and found.outs[0].requires_grad:
                base = self.tensors[number][0]
                parts[number] = parts[self.producer[base]] if base >= 0 else 0
        return parts, last


class InSegments(Execution):
    """The values of a recording that runs in segments."""

    plan: Segments

    def __init__(self, plan: Segments, outside: list[Tensor], touched: dict[Any, Any]):
        super().__init__(plan, outside, touched)
        self.loose: dict[int, Tensor] = {}  # rows of columns
        self.updated: set[int] = set()
        self.twins = {neuron: stateless(neuron, one.names) for neuron, one in touched.items()}

    def run(self) -> None:
        """Run all segments."""
        with recorders.active(None):
            for segment in self.plan.segments:
                if segment.numbers:
                    self._run_segment(segment)

    def updates(self) -> set[int]:
        return self.updated

    def value(self, at: int) -> Tensor:
        if at < 0:
            return self.outside[~at]
        found = self.values.get(at)
        return self.loose[at] if found is None else found

    def peek(self, at: int) -> Tensor | None:
        return None

    def _run_segment(self, segment: Segment) -> None:
        inputs = [self.value(at) for at in segment.reads]
        run = Recomputable(segment, self)
        if not (segment.recomputed and segment.learns):
            outs = run(*inputs)
        else:
            written = segment.written
            run.outside = [tensor if place in written else None for place, tensor in enumerate(inputs)]
            saved = [tensor for place, tensor in enumerate(inputs) if place not in written]
            for neuron in segment.neurons:  # they may not change before the backward either
                saved += [value for value in self.touched[neuron].values if isinstance(value, Tensor)]
            options: Any = {"use_reentrant": False, "preserve_rng_state": False, "early_stop": False}
            with torch.enable_grad():
                outs = checkpoint(run, *saved, **options)
        for at, out, loose in zip(segment.gives, outs, run.loose, strict=True):
            (self.loose if loose else self.values)[at] = out
        run.within = None
        for at in segment.released:
            self.values.pop(at, None)
            self.loose.pop(at, None)


class Recomputable:
    """Runs a segment, in the forward and again in the backward.

    It holds no neurons, only their options and parameters: the states of the neurons hold the graph, which holds it.
    """

    def __init__(self, segment: Segment, within: InSegments):
        self.within: InSegments | None = within  # in the forward
        self.numbers, self.places, self.backend = segment.numbers, segment.places, forced()
        self.outside: list[Tensor | None] = [None] * len(segment.reads)  # what is not passed
        self.loose: list[bool] = []
        self.recomputed = segment.recomputed
        self.twins = {
            twin: SimpleNamespace(names=within.touched[neuron].names) for neuron, twin in within.twins.items()
        }
        made: dict[OpClass, OpClass] = {}
        for found, _, _ in segment.plan.operations:
            if found not in made:
                made[found] = _with_twin(found, within.twins) if isinstance(found.func, SpikingNeuron) else found
        self.plan = copy.copy(segment.plan)
        self.plan.operations = [(made[found], tensors, own) for found, tensors, own in segment.plan.operations]

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        given = iter(inputs)
        outside = [next(given) if tensor is None else tensor for tensor in self.outside]
        within = self.within
        if within is None:
            outside = [now if held is None else now.clone() for now, held in zip(outside, self.outside, strict=True)]
        execution = Execution(self.plan, outside, self.twins)
        try:
            with recorders.active(None), backend(self.backend or "auto"):
                execution.run()
        finally:
            if within is not None:
                within.updated.update(self.numbers[number] for number in execution.updates())
        return self._given(execution)

    def _given(self, execution: Execution) -> list[Tensor]:
        """The values that others read. A few rows of a column are copied: they would hold all of it."""
        columns = [None if at in execution.values else execution.plan.place[at][0] for at in self.places]
        self.loose = [column is not None for column in columns]
        few = {column for column in columns if column is not None and self._is_copied(execution, column, columns)}
        outs = []
        for at, column in zip(self.places, columns, strict=True):
            value = execution.value(at)
            if column in few:
                with torch.set_grad_enabled(value.requires_grad):
                    value = value.clone()
            outs.append(value)
        return outs

    def _is_copied(self, execution: Execution, column: Column, columns: list[Any]) -> bool:
        owned = self.recomputed and execution.plan.nodes[column[0]].how not in ALIAS
        return owned and 2 * columns.count(column) < len(execution.columns[column])


def stateless(neuron: Any, names: Any) -> Any:
    """A neuron with the same options and parameters, without states and hooks."""
    twin = object.__new__(type(neuron))
    own = dict(vars(neuron))
    for name in ("_parameters", "_buffers", "_modules"):
        own[name] = dict(own[name])
    own.update((name, {}) for name in own if name.endswith("_hooks"))
    own.update(dict.fromkeys(names, torch.zeros(0)), _before=None, _reset=None, _cut=None)
    vars(twin).update(own)
    return twin


def _with_twin(found: OpClass, twins: dict[Any, Any]) -> OpClass:
    made = OpClass(twins[found.func], found.rule, found.form, found.outs, found.mode, found.inputs)
    made.container = found.container
    return made
