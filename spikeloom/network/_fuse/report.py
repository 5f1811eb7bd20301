"""What `explain` shows of a fused function: its columns, how each ran, and why not faster."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from .._snapshot import RandomState, Snapshot
from .groups import FOLD, SCAN, SELECT, SINGLE, STEPS, SUM, UNBIND, WRITE
from .rules import MAKERS, name_of
from .transform import Engine, engine_of

ALL = "over all steps"
SHOWN = {
    FOLD: ALL,
    STEPS: ALL,
    SCAN: "scan",
    SELECT: ALL,
    UNBIND: ALL,
    WRITE: ALL,
    SUM: ALL,
    "stack": "once",
    "cat": "once",
}


@dataclass(frozen=True)
class FusedRow:
    """One column in the table of `explain` for a fused function.

    Args:
        path: the path of the module in which the operation was called; empty outside of all modules of the network.
        operation: the name of the operation, or the class of a neuron.
        calls: the number of calls in the user's loop.
        runs: "once", "over all steps", "scan", or "step by step".
        backend: the backend of a scan; empty for other operations.
        why: why it did not run better, as a sentence; empty if there is no reason.
    """

    path: str
    operation: str
    calls: int
    runs: str
    backend: str
    why: str


@dataclass(frozen=True)
class FusedExplanation:
    """Result of `explain` for a fused function; print it for a table.

    Args:
        rows: one `FusedRow` per column, in execution order.
        parts: the number of times that what had been recorded was executed, because a value was needed, for example.
        plain: why nothing was recorded; empty if something was.
        cause: why the first part was executed before the end of the function; empty if there is one part.
    """

    rows: tuple[FusedRow, ...]
    parts: int
    plain: str = ""
    cause: str = ""

    def __str__(self) -> str:
        if self.plain:
            return f"The function runs as it is: {self.plain}."
        cells = [("path", "operation", "calls", "runs", "why not faster")]
        for row in self.rows:
            runs = f"{row.runs} ({row.backend})" if row.backend else row.runs
            cells.append((row.path or "-", row.operation, str(row.calls), runs, row.why))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        if self.parts > 1:
            lines.append(f"Executed in {self.parts} parts, the first because {self.cause}.")
        return "\n".join(lines)

    __repr__ = __str__


class Observer:
    """Records how the operations of a call run."""

    def __init__(self, names: dict[nn.Module, str]):
        self.names, self.stack = names, list[str]()
        self.rows: dict[Any, FusedRow] = {}
        self.reasons: dict[Any, str] = {}
        self.parts, self.cause = 0, ""
        self.starts: dict[Any, dict[str, Any]] = {}

    def path(self) -> str:
        """The path of the module that is being called."""
        return self.stack[-1] if self.stack else ""

    def enter(self, module: nn.Module, args: Any) -> None:
        """A module is called."""
        self.stack.append(self.names.get(module, type(module).__name__))

    def leave(self, module: nn.Module, args: Any, out: Any) -> None:
        """The call of a module ends."""
        if self.stack:
            self.stack.pop()

    def note(self, recorder: Any, plan: Any, execution: Any) -> None:
        """An execution of a plan."""
        self.parts += 1
        self.cause = self.cause or recorder.cause
        recorder.cause = ""
        calls: dict[int, int] = {}
        for at, same in enumerate(plan.canon):
            number, of = plan.producer[at], plan.producer[same]
            if plan.first[number] == at:
                calls[of] = calls.get(of, 0) + 1
        for neuron, touched in recorder.touched.items():
            self.starts.setdefault(neuron, touched.starts)
        for place, node in enumerate(plan.nodes):
            found = plan.operations[node.operations[0]][0]
            name = name_of(found.func)
            path = recorder.paths[node.operations[0]] if recorder.paths else ""
            count = sum(calls[number] for number in node.operations)
            runs = SHOWN.get(node.how, SINGLE)
            backend, refusals = execution.backends.get(place, ("", []))
            why = "; ".join(refusals) or (node.why if runs == SINGLE else "")
            row = FusedRow(path, name, count, runs, backend, why)
            if runs != SINGLE:
                self.rows[self.parts, place] = row
                continue
            line = (path, name, tuple([kind.size for kind in found.inputs]))
            before = self.rows.get(line)
            if before is not None and found.func in MAKERS:
                self.rows[line] = replace(before, calls=before.calls + count)
            elif before is None:
                self.rows[line] = replace(row, runs="once", why="")
                self.reasons[line] = why
            else:
                why = why or self.reasons[line] or self.cause
                self.rows[line] = replace(before, calls=before.calls + count, runs=SINGLE, why=before.why or why)


def explain_fused(fused: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FusedExplanation:
    """Call a fused function once, and report how its operations ran; its modules keep their states."""
    engine: Engine = engine_of(fused)
    if why := engine.why_plain():
        return FusedExplanation((), 0, why)
    owner = engine.function if isinstance(engine.function, nn.Module) else getattr(engine.function, "__self__", None)
    if owner is None and args and isinstance(args[0], nn.Module):  # a decorated forward
        owner = args[0]
    names = {module: name for name, module in owner.named_modules()} if isinstance(owner, nn.Module) else {}
    before, drawn = Snapshot(names), RandomState()
    observer = engine.observer = Observer(names)
    hooks: list[Callable[[], None]] = [
        register_module_forward_pre_hook(observer.enter).remove,
        register_module_forward_hook(observer.leave).remove,
    ]
    try:
        engine.recorded(args, kwargs)
    finally:
        engine.observer = None
        for remove in hooks:
            remove()
        for neuron, starts in observer.starts.items():
            vars(neuron).update(starts)
        before.restore()
        drawn.restore()
    return FusedExplanation(tuple(observer.rows.values()), observer.parts, cause=observer.cause)
