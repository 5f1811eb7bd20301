"""What a network would run on, layer by layer, and why not on something faster."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from .._torch import tree_leaves
from ..accelerated import Plan, reported
from ..layers import SEES_TIME
from ..network import (
    ROW_BY_ROW,
    RandomState,
    Request,
    Run,
    Snapshot,
    read,
    run_checked,
    undone,
    unharmed,
    why_not_compared,
)
from ..neurons._state import on_trial
from ..neurons._time import Time, Visit, current_time

HEADINGS = ("layer", "kind", "runs on", "density", "static", "why not faster")


@dataclass(frozen=True)
class Row:
    """One layer.

    Args:
        path: its name in the network, as in `named_modules`.
        kind: its class.
        backend: "torch" for a layer without state; the backend of a neuron's scan.
        refusals: why each faster backend does not run it, in sentences.
        density: the share of its outputs that are not zero; NaN where there are none.
        static: whether its input was the same at every step and was therefore seen once, or summed by the scan.
        shape: of its first output for one step and one row, [*N].
    """

    path: str
    kind: str
    backend: str
    refusals: tuple[str, ...]
    density: float
    static: bool
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; print it for a table.

    Args:
        rows: the layers, in the order in which they ran.
        steps: T.
        batch: B.
        repeated: why a static input was repeated over time; empty if it was not.
        unchecked: why the network was not compared with its loop over steps; empty if it was.
    """

    rows: tuple[Row, ...]
    steps: int
    batch: int
    repeated: str = ""
    unchecked: str = ""

    def __str__(self) -> str:
        lines = aligned([HEADINGS, *(_cells(row) for row in self.rows)])
        lines.insert(0, f"{self.steps} steps of {self.batch} rows")
        if self.repeated:
            lines.append(f"The input was repeated at every step: {self.repeated}.")
        if self.unchecked not in ("", ROW_BY_ROW):
            lines.append(f"Not compared with the loop over steps: {self.unchecked}")
        return "\n".join(lines)

    __repr__ = __str__


def _cells(row: Row) -> tuple[str, ...]:
    static = "yes" if row.static else "no"
    return row.path or "(itself)", row.kind, row.backend, share(row.density), static, "; ".join(row.refusals)


def share(value: float) -> str:
    """A share in percent; a dash for NaN, where there is nothing to share."""
    return "-" if value != value else f"{value:.1%}"


def aligned(table: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """The lines of a table, its columns aligned to the left, those numbered in `right` to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def explain(net: nn.Module, x: Any, *inputs: Any, steps: int | None = None, **kwargs: Any) -> Explanation:
    """Run a network once, as `spikeloom.unroll` would, and tell on what each of its layers ran.

    The network stays as it is: states, statistics, gradients and random numbers. It is compared with its loop over
    steps as by `spikeloom.unroll`, at the first call.

    Args:
        net: the network.
        x: input, [T, B, ...], or [B, ...] with `steps`.
        inputs: further inputs of its forward, likewise.
        steps: T, if the input is the same at every step.
        kwargs: keyword inputs of its forward.

    Returns:
        rows for the layers, in the order in which they ran; its `str` is a table.

    Raises:
        what `spikeloom.unroll` raises.

    The columns: the density is the share of a layer's outputs that are not zero; static says that the layer's input
    was the same at every step, so that a layer without state ran once for all of them.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
        >>> explanation = snn.explain(net, torch.rand(2, 3), steps=10)
        >>> [(row.path, row.static) for row in explanation.rows]
        [('0', True), ('1', True)]
        >>> print(explanation)
        10 steps of 2 rows
        layer  kind    runs on  density  static  why not faster
        0      Linear  torch    ...      yes
        1      Leaky   ...
    """
    request = read(net, (x, *inputs), kwargs, steps)
    before, drawn = Snapshot(request.names), RandomState()
    watch = _Watch(request)

    def work() -> Run:
        before.stand_in()
        hook = register_module_forward_hook(watch)
        try:
            with torch.no_grad(), on_trial(), reported() as watch.plans:
                return unharmed(request, partial(run_checked, request, None))
        finally:
            hook.remove()

    done = undone(work, before, drawn)
    rows, unchecked = tuple(watch.rows(done.time)), why_not_compared(request)
    return Explanation(rows, request.steps, request.batch, done.repeated, unchecked or "")


@dataclass
class _Watch:
    """A hook on every module of the process that notes those of one network."""

    request: Request
    seen: list[tuple[Time, nn.Module, Row]] = field(default_factory=list)
    plans: dict[nn.Module, Plan] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layers = {m for m in self.request.layers() if isinstance(m, SEES_TIME) or not m._modules}

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        time, plan = current_time(), self.plans.pop(module, Plan("torch"))
        if module not in self.layers or time is None:
            return
        path, kind = self.request.names[module], type(module).__name__
        with time.aside():
            tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
            static = bool(tensors) and time.is_static(tensors[0])
            shape = tuple(tensors[0].shape[1:]) if tensors else ()
            refusals = (plan.reason,) if plan.reason else ()
            row = Row(path, kind, plan.route, refusals, _density(tensors), static, shape)
            self.seen.append((time, module, row))

    def rows(self, time: Time) -> list[Row]:
        """Those of the run that counted; one that was given up has another time."""
        return [_visited(row, time.visits.get(module)) for at, module, row in self.seen if at is time]


def _visited(row: Row, visit: Visit | None) -> Row:
    if visit is None:
        return row
    return replace(row, backend=visit.backend, refusals=tuple(visit.refusals), static=visit.static)


def _density(tensors: list[Tensor]) -> float:
    if not tensors or not tensors[0].numel():
        return float("nan")
    return float((tensors[0] != 0).double().mean())
