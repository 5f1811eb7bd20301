"""Tables of the layers of a network: `explain` reports their backends, `summary` their sizes and firing rates."""

import math
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from .._torch import tree_leaves
from ..accelerated import Plan, reported
from ..layers import SEES_TIME
from ..network import (
    ROW_BY_ROW,
    FusedExplanation,
    RandomState,
    Request,
    Run,
    Snapshot,
    explain_fused,
    is_fused,
    read,
    run_checked,
    undone,
    why_not_compared,
)
from ..neurons import SpikingNeuron
from ..neurons._state import on_trial
from ..neurons._unrolled_run import UnrolledRun, current_run
from ._vitals import is_readout


@dataclass(frozen=True)
class Row:
    """One layer in the table of `explain` or `summary`.

    Args:
        path: its name in the network, as in `named_modules`.
        kind: its class.
        backend: "torch" for a layer without state; the backend of a neuron's scan.
        refusals: why each faster backend cannot run it, as sentences.
        density: share of its outputs that are not zero; NaN if it has no outputs.
        static: whether its input was the same at every step and therefore processed only once, or reused by the scan.
        shape: shape of its first output for one step and one row, [*N].
        states: names of the states of its neurons.
        parameters: number of elements of its nn.Parameters.
        neurons: number of neurons; 0 for a layer without state.
        rate: share of steps at which a neuron fires, over all rows, steps and neurons; NaN if there are no neurons, and
            for a readout, which needs no spikes.
    """

    path: str
    kind: str
    backend: str
    refusals: tuple[str, ...]
    density: float
    static: bool
    shape: tuple[int, ...]
    states: tuple[str, ...]
    parameters: int
    neurons: int
    rate: float

    @property
    def readout(self) -> bool:
        """Whether it is a layer of neurons whose membranes are the output, such as `LI`."""
        return self.neurons > 0 and math.isnan(self.rate)


@dataclass(frozen=True)
class Explanation:
    """Result of `explain`; print it for a table.

    Args:
        rows: one `Row` per layer, in execution order.
        steps: T, the number of steps.
        batch: B, the batch size.
        repeated: why a static input was repeated over time; empty if it was not.
        unchecked: why the network was not compared with the loop over steps; empty if it was.
    """

    rows: tuple[Row, ...]
    steps: int
    batch: int
    repeated: str = ""
    unchecked: str = ""

    def __str__(self) -> str:
        lines = aligned(
            [("layer", "kind", "runs on", "output density", "static", "why not faster"), *map(_row_cells, self.rows)]
        )
        lines.insert(0, f"{self.steps} steps of {self.batch} rows")
        if self.repeated:
            lines.append(f"The input was repeated at every step: {self.repeated}.")
        if self.unchecked not in ("", ROW_BY_ROW):
            lines.append(f"Not compared with the loop over steps: {self.unchecked}")
        return "\n".join(lines)

    __repr__ = __str__


def _row_cells(row: Row) -> tuple[str, ...]:
    static = "yes" if row.static else "no"
    density = "readout" if row.readout else share(row.density)
    return row.path or "(itself)", row.kind, row.backend, density, static, "; ".join(row.refusals)


def share(value: float) -> str:
    """A share in percent; a dash for NaN."""
    return "-" if value != value else f"{value:.1%}"


def aligned(table: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """The lines of a table; the columns in `right` are right-aligned, the others left-aligned."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


@overload
def explain(
    net: nn.Module, x: Any, *inputs: Any, steps: int | None = None, num_steps: int | None = None, **kwargs: Any
) -> Explanation: ...
@overload
def explain(
    net: FunctionType, x: Any, *inputs: Any, steps: int | None = None, num_steps: int | None = None, **kwargs: Any
) -> FusedExplanation: ...
def explain(net: Any, x: Any, *inputs: Any, steps: Any = None, num_steps: Any = None, **kwargs: Any) -> Any:
    """Run a network once, as `spikeloom.unroll` does, and report the backend of each layer.

    The run leaves the network unchanged: states, running statistics and gradients, and the state of the random number
    generators. The first call compares the network with the loop over steps, as `spikeloom.unroll` does.

    Args:
        net: the network; or a module or function that `spikeloom.fuse` returned, which is called as it is.
        x: input, [T, B, ...], or [B, ...] with `steps`; for a fused function its first argument.
        inputs: further inputs of its forward.
        steps: T, if the input is the same at every step.
        num_steps: another name of `steps`, as for `spikeloom.unroll`.
        kwargs: keyword inputs of its forward.

    Returns:
        An `Explanation` with a row per layer, in execution order. Its `str` is a table. For a fused function a
        `FusedExplanation` with a row per operation of its loop.

    Raises:
        The errors of `spikeloom.unroll`.

    | column         | meaning                                                                                      |
    | -------------- | -------------------------------------------------------------------------------------------- |
    | runs on        | backend of the layer                                                                         |
    | output density | share of its outputs that are not zero; "readout" if its membranes are the output            |
    | static         | whether its input was the same at every step; a layer without state then ran once            |
    | why not faster | why a faster backend was not used; names in brackets are limits of `spikeloom.tuning`        |

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
        >>> explanation = snn.explain(net, torch.rand(2, 3), steps=10)
        >>> [(row.path, row.static) for row in explanation.rows]
        [('0', True), ('1', True)]
        >>> print(explanation)
        10 steps of 2 rows
        layer  kind    runs on  output density  static  why not faster
        0      Linear  torch    ...             yes
        1      Leaky   ...
    """
    if is_fused(net):
        given = {name: value for name, value in (("steps", steps), ("num_steps", num_steps)) if value is not None}
        return explain_fused(net, (x, *inputs), kwargs | given)
    request = read(net, (x, *inputs), kwargs, steps, num_steps)
    before, drawn = Snapshot(request.names), RandomState()
    watch = _Watch(request)

    def work() -> Run:
        before.stand_in()
        hook = register_module_forward_hook(watch)
        try:
            with torch.no_grad(), on_trial(), reported() as watch.plans:
                return run_checked(request, None)
        finally:
            hook.remove()

    done = undone(work, before, drawn)
    rows, unchecked = tuple(watch.rows(done.unrolled)), why_not_compared(request)
    return Explanation(rows, request.steps, request.batch, done.repeated, unchecked or "")


@dataclass
class _Watch:
    """A global forward hook that records the layers of one network."""

    request: Request
    seen: list[tuple[UnrolledRun, nn.Module, Row]] = field(default_factory=list)
    plans: dict[nn.Module, Plan] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layers = {m for m in self.request.layers() if isinstance(m, SEES_TIME) or not m._modules}

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        unrolled, plan = current_run(), self.plans.pop(module, Plan("torch"))
        if module not in self.layers or unrolled is None:
            return
        path, kind = self.request.names[module], type(module).__name__
        with unrolled.aside():
            tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
            static = bool(tensors) and unrolled.is_static(tensors[0])
            shape = tuple(tensors[0].shape[1:]) if tensors else ()
            refusals = (plan.reason,) if plan.reason else ()
            density, own = _density(tensors), _numbers(module.parameters())
            states: tuple[str, ...] = ()
            neurons, rate = 0, math.nan  # one object, so that equal rows compare equal
            if isinstance(module, SpikingNeuron):
                readout = bool(tensors) and is_readout(module, tensors[0].detach().unsqueeze(0))
                states, neurons, rate = module._state_names(), math.prod(shape), math.nan if readout else density
            row = Row(path, kind, plan.route, refusals, density, static, shape, states, own, neurons, rate)
            self.seen.append((unrolled, module, row))

    def rows(self, unrolled: UnrolledRun) -> Iterator[Row]:
        """The rows of the final run; abandoned runs have another `UnrolledRun`."""
        for at, module, row in self.seen:
            if at is unrolled:
                visit = unrolled.visits.get(module)
                if visit is not None:
                    refusals = tuple(visit.refusals)
                    row = replace(row, backend=visit.backend, refusals=refusals, static=visit.static)
                yield row


def _density(tensors: list[Tensor]) -> float:
    if not tensors or not tensors[0].numel():
        return math.nan
    return float((tensors[0] != 0).double().mean())


# -- summary ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Result of `summary`; print it for a table.

    Args:
        layers: one `Row` per layer, in execution order.
        steps: T, the number of steps.
        batch: B, the batch size.
        parameters: number of parameters of the whole network, each counted once, including those of no listed layer.
        learned: number of parameters that require a gradient.
    """

    layers: tuple[Row, ...]
    steps: int
    batch: int
    parameters: int
    learned: int

    @property
    def neurons(self) -> int:
        """The number of neurons, including those of a readout."""
        return sum(layer.neurons for layer in self.layers)

    def __str__(self) -> str:
        fire = [(layer.neurons, layer.rate) for layer in self.layers if layer.rate == layer.rate and layer.neurons]
        rate = sum(n * r for n, r in fire) / sum(n for n, _ in fire) if fire else math.nan
        total = ("total", "", "", f"{self.neurons:,}", "", f"{self.parameters:,}", share(rate), "")
        headings = ("layer", "kind", "output", "neurons", "states", "parameters", "firing rate", "runs on")
        lines = aligned([headings, *map(_layer_cells, self.layers), total], right=(3, 5, 6))
        lines.insert(0, f"{self.steps} steps of {self.batch} rows; {self.learned:,} parameters are learned")
        lines.insert(-1, "-" * max(map(len, lines[1:])))
        return "\n".join(lines)

    __repr__ = __str__


def summary(
    net: nn.Module, x: Any, *inputs: Any, steps: int | None = None, num_steps: int | None = None, **kwargs: Any
) -> Summary:
    """Run a network once, as `spikeloom.unroll` does, and report its layers, their sizes and their firing rates.

    The run leaves the network unchanged: states, running statistics and gradients, and the state of the random number
    generators.

    Args:
        net: the network, or one neuron.
        x: input, [T, B, ...], or [B, ...] with `steps`; pass real data for realistic firing rates.
        inputs: further inputs of its forward.
        steps: T, if the input is the same at every step.
        num_steps: another name of `steps`, as for `spikeloom.unroll`.
        kwargs: keyword inputs of its forward.

    Returns:
        A `Summary`; its `str` is a table. A parameter shared by several layers is counted in each of them, but once in
        the total. The total firing rate is over all neurons but those of a readout, which need no spikes.

    Raises:
        TypeError: for a network of `spikeloom.fuse`. Also the errors of `spikeloom.unroll`.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 100), snn.Leaky(beta=0.9, init_hidden=True))
        >>> print(snn.utils.summary(net, torch.ones(8, 64), steps=25))
        25 steps of 8 rows; 6,500 parameters are learned
        layer  kind    output  neurons  states  parameters  firing rate  runs on
        0      Linear  100           -               6,500            -  torch
        1      Leaky   100         100  mem              0  ...
        ------------------------------------------------------------------------
        total                      100               6,500  ...
    """
    if is_fused(net):
        raise TypeError(
            "summary got a network of spikeloom.fuse, whose forward is not a step; use spikeloom.explain(net, x), or "
            "spikeloom.diagnose(net, x) for firing rates"
        )
    explanation: Explanation = explain(net, x, *inputs, steps=steps, num_steps=num_steps, **kwargs)
    return Summary(
        explanation.rows,
        explanation.steps,
        explanation.batch,
        _numbers(net.parameters()),
        _numbers(p for p in net.parameters() if p.requires_grad),
    )


def _numbers(parameters: Iterable[nn.Parameter]) -> int:
    return sum(0 if nn.parameter.is_lazy(p) else p.numel() for p in parameters)


def _layer_cells(layer: Row) -> tuple[str, ...]:
    return (
        layer.path or "(itself)",
        layer.kind,
        "x".join(map(str, layer.shape)),
        f"{layer.neurons:,}" if layer.neurons else "-",
        ", ".join(layer.states),
        f"{layer.parameters:,}",
        "readout" if layer.readout else share(layer.rate),
        layer.backend,
    )
