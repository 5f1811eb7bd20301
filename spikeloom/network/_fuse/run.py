"""Run a plan of `fuse`: folds, scans and single operations, each differentiable and in the modes of its own line."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..._torch import set_grad_enabled
from ...neurons import SpikingNeuron
from .._saved_bits import packing
from .._time_folding import not_a_view
from .functions import RunningSum, StepValues
from .groups import FOLD, SCAN, SELECT, STEPS, SUM, UNBIND, WRITE, Column, Node
from .neurons import Scan, run_step
from .plan import Plan
from .recorded import OpClass, filled, in_mode
from .rules import Fold, selected_dim

ALIAS = (SELECT, UNBIND)
"""Nodes whose columns share memory with other tensors."""


class Execution:
    """The values of a plan."""

    def __init__(self, plan: Plan, outside: list[Tensor], touched: dict[Any, Any]):
        self.plan, self.outside, self.touched = plan, outside, touched
        self.values: dict[int, Tensor] = {}
        self.columns: dict[Column, Tensor] = {}
        self.rows: dict[Column, Any] = {}
        self.handed: dict[int, Tensor] = {}
        self.given: set[Any] = set()
        self.backends: dict[int, tuple[str, list[str]]] = {}
        self.reached = 0  # nodes that have run
        self.at_work = False  # whether a neuron runs, which packs its own tensors
        size = max((tensor.element_size() for tensor in outside), default=0)
        self.packing = packing(self, outside, size * plan.products) if torch.is_grad_enabled() else None

    def run(self) -> None:
        """Run all nodes."""
        mode: Any = torch.is_grad_enabled()
        uncommon = torch.is_inference_mode_enabled() or torch.is_autocast_enabled("cpu")
        with ExitStack() as stack:
            if uncommon or torch.is_autocast_enabled("cuda"):
                stack.enter_context(_plain_modes())
            before, place = torch.is_grad_enabled(), 0
            try:
                for place, node in enumerate(self.plan.nodes):
                    wanted = self.plan.operations[node.operations[0]][0].mode
                    if wanted is mode or wanted is True or wanted is False:
                        set_grad_enabled(wanted is True)
                        self._run_node(place, node)
                    else:
                        with in_mode(wanted):
                            self._run_node(place, node)
                    for at in node.release[0]:
                        self.values.pop(at, None)
                    for column in node.release[1]:
                        self.columns.pop(column, None)
                        self.rows.pop(column, None)
                place = len(self.plan.nodes)
            finally:
                self.reached = place
                set_grad_enabled(before)

    def updates(self) -> set[int]:
        """The operations that have updated running statistics."""
        done = [node.operations[0] for node in self.plan.nodes[: self.reached]]
        return {number for number in done if self.plan.operations[number][0].rule.fold is Fold.ORDERED}

    # -- values -------------------------------------------------------------------------------------------------------

    def value(self, at: int) -> Tensor:
        """A value by itself."""
        if at < 0:
            return self.outside[~at]
        found = self.values.get(at)
        if found is not None:
            return found
        column, row = self.plan.place[at]
        return self.row(column, row)

    def row(self, column: Column, row: int) -> Tensor:
        """A row of a column."""
        cached = self.rows.get(column)
        if cached is None:
            cached = self.rows[column] = {}
        if type(cached) is dict:
            if row in cached:
                return cached[row]  # type: ignore[no-any-return]
            with torch.enable_grad():  # also if it is first read where gradients are off
                if len(cached) < 4:
                    found = cached[row] = self.columns[column].select(0, row)
                    return found
                cached = self.rows[column] = self.columns[column].unbind(0)
        return cached[row]

    def joined(self, pieces: list[Any]) -> Tensor:
        """A column from its pieces."""
        parts = []
        for piece in pieces:
            if type(piece) is list:
                parts.append(torch.stack([self.value(at) for at in piece]))
            else:
                column, start, end = piece
                whole = self.columns[column]
                parts.append(whole if (start, end) == (0, len(whole)) else whole[start:end])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _run_node(self, place: int, node: Node) -> None:
        found, _, numbers = self.plan.operations[node.operations[0]]
        at = self.plan.first[node.operations[0]]
        if node.how is STEPS:
            shared = [self.value(r) if isinstance(r, int) else self.joined(r) for r in node.recipes]
            stacked = [not isinstance(r, int) for r in node.recipes]
            self.columns[place, 0] = StepValues.apply(found, numbers, stacked, *shared)
        elif node.how is FOLD:
            n = len(node.operations)
            shared = [self.value(r) if isinstance(r, int) else self.joined(r) for r in node.recipes]
            stacked = [not isinstance(r, int) for r in node.recipes]
            with self.packing if found.rule.product and self.packing is not None else nullcontext():
                outs = folded(found, shared, stacked, numbers, n)
            for result, out in enumerate(outs):
                self.columns[place, result] = out
        elif node.how is SCAN:
            self._scan(place, node, found)
        elif node.how is SELECT:
            self._select(place, node, found)
        elif node.how is UNBIND:
            args, kwargs = found.form
            dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
            self.columns[place, 0] = self.value(node.recipes[0]).movedim(dim, 0)
        elif node.how is SUM:
            last, (start, pieces) = self.plan.first[node.operations[-1]], node.recipes
            self.values[last] = RunningSum.apply(self.value(start), self.joined(pieces))
        elif node.how is WRITE:
            self.values[self.plan.first[node.operations[-1]]] = self._write(node)
        elif node.how == "stack":
            args, kwargs = found.form
            dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
            self.values[at] = self._owned(node.recipes[0], self._stacked(node.recipes[0], dim), dim == 0)
        elif node.how == "cat":
            args, kwargs = found.form
            dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
            size = found.inputs[0].size
            if dim == 0 and size:
                flat = self.joined(node.recipes[0]).reshape(-1, *size[1:])
                self.values[at] = self._owned(node.recipes[0], flat, True)
            else:
                column = self.joined(node.recipes[0])
                self.values[at] = found.func(list(column.unbind(0)), dim)
        else:
            self._single(found, at, node.recipes, numbers)

    def _single(self, found: OpClass, at: int, tensors: Any, numbers: Any) -> None:
        every = [self.value(number) for number in tensors]
        if isinstance(found.func, SpikingNeuron):
            alias = len(found.outs) == len(found.inputs) - 1
            outs: Any = run_step(found.func, self.touched[found.func], every[0], every[1:], alias)
        else:
            outs = found.call(every, numbers)
            if found.container is None:
                self.values[at] = outs
                return
        for result, out in enumerate(outs):
            self.values[at + result] = out

    def _scan(self, place: int, node: Node, found: OpClass) -> None:
        recipe, *states = node.recipes
        n = len(node.operations)
        x = self.value(recipe).unsqueeze(0) if isinstance(recipe, int) else self.joined(recipe)
        first = [self.value(at) for at in states]
        alias = len(found.outs) == len(first)
        scan = Scan(found.func, self.touched[found.func], x, n, first, node.traced, alias)
        self.backends[place] = scan.backend, scan.refusals
        for result, column in enumerate(scan.columns):
            if column is not None:
                self.columns[place, result] = column
        last = self.plan.first[node.operations[-1]]
        for result, final in enumerate(scan.final_states):
            self.values[last + 1 + result] = final

    def _select(self, place: int, node: Node, found: OpClass) -> None:
        base = self.value(node.recipes[0])
        dim = selected_dim(filled(found.form, [base], self.plan.operations[node.operations[0]][2])[0][1])
        column = base.movedim(dim or 0, 0)
        size = len(column)
        rows = [self.plan.operations[number][2][0] % size for number in node.operations]
        if rows != list(range(size)):
            start, end = rows[0], rows[-1] + 1
            if rows == list(range(start, end)):
                column = column[start:end]
            else:
                column = column[torch.tensor(rows, device=column.device)]
        self.columns[place, 0] = column

    def _write(self, node: Node) -> Tensor:
        base, values, pieces = node.recipes
        target = self.value(base)
        operations = [self.plan.operations[number] for number in node.operations]
        rows = [filled(found.form, [None, None], numbers)[0][1] for found, _, numbers in operations]
        rows = [row[0] if isinstance(row, tuple) else row for row in rows]
        if pieces is not None and rows == list(range(len(target))):
            kind = operations[0][0].inputs[1]
            if kind.size == target.shape[1:] and kind.dtype is target.dtype:
                return self._owned(pieces, self._stacked(pieces, 0), True)
        written = target.clone()
        for (found, _, numbers), at in zip(operations, values, strict=True):
            tensors = [written, None if at is None else self.value(at)]
            found.call(tensors, numbers)
        return written

    def _stacked(self, pieces: list[Any], dim: int) -> Tensor:
        column = self.joined(pieces)
        return column.movedim(0, dim).contiguous() if dim else column.contiguous()

    def _owned(self, pieces: list[Any], made: Tensor, may_share: bool) -> Tensor:
        """A column as a tensor of its own; it may share memory with a column that nobody else was given."""
        if may_share and len(pieces) == 1 and type(pieces[0]) is tuple:
            column = pieces[0][0]
            alias = self.plan.nodes[column[0]].how in ALIAS or column in self.given
            if alias or self._is_outside(column):
                return made.clone()
            self.given.add(column)
        return not_a_view(made)

    def _is_outside(self, column: Column) -> bool:
        """Whether a column may share memory with a tensor that the user has."""
        found = self.plan.operations[self.plan.nodes[column[0]].operations[0]][0]
        return bool(found.rule.view)

    # -- for the user -------------------------------------------------------------------------------------------------

    def hand(self, at: int) -> Tensor:
        """The tensor that the user gets for a value; a view if the operation returns one."""
        if at < 0:
            return self.outside[~at]
        found = self.handed.get(at)
        if found is not None:
            return found
        number = self.plan.producer[at]
        operation, tensors, numbers = self.plan.operations[number]
        if operation.rule.view:
            with in_mode(operation.mode):
                outs = operation.call(
                    [self.hand(tensors[0]), *[self.value(self.canon(t)) for t in tensors[1:]]], numbers
                )
            for place, out in enumerate([outs] if operation.container is None else outs):
                self.handed[self.plan.first[number] + place] = out
            return self.handed[at]
        own = self.canon(at)
        value = self.values.get(own)
        if value is None or own in self.given:
            with in_mode(operation.mode):
                value = self.value(own).clone()
        self.given.add(own)
        if value.requires_grad and not operation.outs[at - self.plan.first[number]].requires_grad:
            value = value.detach()  # a row of a column, of which only others need gradients
        self.handed[at] = value
        return value

    def canon(self, at: int) -> int:
        """The value that was computed for an equal one."""
        return self.plan.canon[at] if at >= 0 else at

    def peek(self, at: int) -> Tensor | None:
        """A value without its graph, if it has been computed and is still there."""
        own = self.plan.canon[at]
        if own in self.values:
            return self.values[own].detach().clone()
        where = self.plan.place.get(own)
        if where is None or where[0] not in self.columns:
            return None
        return self.columns[where[0]][where[1]].detach().clone()


def folded(found: OpClass, tensors: list[Tensor], stacked: list[bool], numbers: Any, n: int) -> list[Tensor]:
    """The results [n, *S] of n calls of an operation; `stacked` are those of its tensors that differ between them."""
    fold, outs = found.rule.fold, found.outs
    if fold is Fold.RESHAPE:
        return [tensors[0].reshape(n, *outs[0].size)]
    if fold is Fold.ELEMENTWISE:
        dims = len(outs[0].size)
        for place, (tensor, kind) in enumerate(zip(tensors, found.inputs, strict=True)):
            if stacked[place] and len(kind.size) < dims:
                tensors[place] = tensor.reshape(n, *[1] * (dims - len(kind.size)), *kind.size)
        return [found.call(tensors, numbers)]
    if fold is Fold.LEADING:
        return [found.call(tensors, numbers)]
    if fold is Fold.ROWS:
        rows = len(found.inputs[0].size) and found.inputs[0].size[0]
        folded_in = tensors[0].reshape(n * rows, *tensors[0].shape[2:])
        out = found.call([folded_in, *tensors[1:]], numbers)
        return [out.unflatten(0, (n, rows))]
    axes: tuple[int | None, ...] = tuple(0 if differs else None for differs in stacked)

    def one(*parts: Tensor) -> Any:
        return found.call(parts, numbers)

    out = torch.func.vmap(one, in_dims=axes)(*tensors)
    return [out] if isinstance(out, Tensor) else list(out)


@contextmanager
def _plain_modes() -> Iterator[None]:
    """No inference mode and no autocast."""
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
