"""Find out why a network does not learn, from statistics of each spiking layer on a batch."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import tree_leaves, tree_map_only
from ..cells.firing import Model
from ..network import RandomState, Request, Snapshot, read, run_checked, undone
from ..neurons import SpikingNeuron, StateLeaky
from ._explain import aligned, share
from ._findings import Vitals, found
from ._tap import Recording, Tap

OFTEN = 0.9
"""A neuron that fires at more than this share of all steps is saturated."""

PASSES = 0.01
"""A spike passes gradient if the derivative of its surrogate is at least this."""

HEADINGS = (
    *("layer", "kind", "neurons", "firing rate", "dead", "saturated"),
    *("membrane", "threshold", "passes gradient", "gradient norm"),
)


@dataclass(frozen=True)
class Diagnosis:
    """Result of `diagnose`; print it for a table and the findings.

    Args:
        rows: the spiking layers, in the order of `named_modules`.
        findings: one sentence per problem found; empty if there are none.
    """

    rows: tuple[Vitals, ...]
    findings: tuple[str, ...]

    def __str__(self) -> str:
        table = aligned([HEADINGS, *(_cells(row) for row in self.rows)], right=range(2, len(HEADINGS)))
        return "\n".join((*table, "", *(self.findings or ("No problems found.",))))

    __repr__ = __str__

    def plot(self) -> Any:
        """Plot the table: firing rates, membranes, surrogate gradients and gradient norms of each layer.

        Returns:
            A matplotlib Figure.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        return _drawn(self.rows)


def diagnose(
    net: nn.Module,
    x: Any,
    *inputs: Any,
    steps: int | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    forward: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> Diagnosis:
    """Run a batch forward and backward, and report what may prevent the network from learning.

    The run starts from initial states. It leaves the network unchanged: states, running statistics and gradients, and
    the state of the random number generators.

    Args:
        net: the network.
        x: input, [T, B, ...], or [B, ...] with `steps`.
        inputs: further inputs of its forward.
        steps: T, if the input is the same at every step.
        loss: function from the outputs of the network, over all steps, to the loss. None sums the first output that
            requires a gradient, usually the spikes of the last layer.
        forward: function that runs the network, ``forward(net, x, *inputs, **kwargs)``. Default: `spikeloom.unroll`.
            For networks that loop over time themselves (``lambda net, x: net(x)``), or that cannot be unrolled
            (``lambda net, x: torch.stack([net(x_t) for x_t in x])``).
        kwargs: keyword inputs of its forward.

    Returns:
        A `Diagnosis` with a row per spiking layer, and the findings as sentences. Its `str` is a table followed by the
        findings; `plot()` returns a figure.

    Raises:
        ValueError: if the network has no spiking neurons, or there are no steps. Also the errors of `spikeloom.unroll`.

    | column          | meaning                                                                                      |
    | --------------- | -------------------------------------------------------------------------------------------- |
    | firing rate     | share of steps at which a neuron fires, over all neurons, rows and steps; "-" for a readout  |
    | dead            | share of neurons that never fire                                                             |
    | saturated       | share of neurons that fire at more than 90 % of all steps                                    |
    | membrane        | smallest and largest membrane                                                                |
    | threshold       | value above which the membrane fires                                                         |
    | passes gradient | share of neurons and steps at which the derivative of the surrogate is at least 0.01         |
    | gradient norm   | norm of the gradient of the loss with respect to the input current of the layer, all steps   |

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, threshold=50.0, init_hidden=True))
        >>> diagnosis = snn.diagnose(net, torch.rand(8, 3), steps=25)
        >>> print(diagnosis.findings[0])
        layer '1' (Leaky): 100 % of its neurons never fire; lower its threshold or raise the gain of ...
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"diagnose got {type(net).__name__}; pass a network, an nn.Module")
    before, drawn = Snapshot(net.modules()), RandomState()

    def work() -> tuple[tuple[Vitals, ...], list[str]]:
        before.stand_in()
        before.mute()
        with Tap(net, inputs=True, graph=True) as tap, torch.inference_mode(False), torch.enable_grad():
            for module in net.modules():
                if isinstance(module, SpikingNeuron):
                    module.reset_mem()
            if forward is None:
                outputs = _unrolled(read(net, (x, *inputs), kwargs, steps))
            else:
                args, options = tree_map_only(Tensor, lambda t: _leaf(t).clone(), ((x, *inputs), kwargs))
                outputs = forward(net, *args, **options)
            return _examined(net, tap, _total(outputs, loss))

    rows, unused = undone(work, before, drawn)
    return Diagnosis(rows, tuple(found(rows, unused)))


def _unrolled(request: Request) -> Any:
    """Unroll the network; a static input is repeated, so that every layer has a gradient at every step."""
    if not request.steps or not request.batch:
        raise ValueError(f"diagnose got {request.steps} steps of {request.batch} rows; pass at least one of each")
    args, kwargs = request.mapped(lambda t: _leaf(t.expand(request.steps, *t.shape) if request.static else t))
    request = replace(request, args=args, kwargs=kwargs, static=False)
    done = run_checked(request, None)
    done.unrolled.counted.append(request.steps)
    return done.outputs


def _leaf(t: Tensor) -> Tensor:
    """The input as a leaf that requires a gradient, for neurons without weights before them."""
    if not t.is_floating_point():
        return t
    t = t.clone() if t.is_inference() else t.detach()  # autograd rejects tensors created in inference mode
    return t.requires_grad_()


def _total(outputs: Any, loss: Callable[[Any], Tensor] | None) -> Tensor | None:
    """The scalar to differentiate; None if no output requires a gradient."""
    if loss is not None:
        total = loss(outputs)
        if not isinstance(total, Tensor):
            raise TypeError(f"the loss of diagnose returned a {type(total).__name__}; return a tensor")
        return total.sum() if total.requires_grad else None
    with_gradient = (t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.requires_grad)
    first = next(with_gradient, None)
    return None if first is None else first.sum()


def _examined(net: nn.Module, tap: Tap, total: Tensor | None) -> tuple[tuple[Vitals, ...], list[str]]:
    """The vitals of every layer that ran, and the names of the parameters without a gradient."""
    ran = {path: recording for path, recording in tap.items() if recording.steps}
    currents = {path: recording.given() for path, recording in ran.items()}
    learned = {name: p for name, p in net.named_parameters() if p.requires_grad}
    gradients = _gradients(total, [*(c for each in currents.values() for c in each), *learned.values()])
    norms = {path: _norm(gradients.get(id(current)) for current in each) for path, each in currents.items()}
    modules = dict(net.named_modules())
    rows = tuple(_vitals(modules[path], recording, norms[path]) for path, recording in ran.items())
    return rows, [name for name, p in learned.items() if gradients.get(id(p)) is None]


def _gradients(total: Tensor | None, tensors: list[Tensor]) -> Mapping[int, Tensor | None]:
    """The gradient of each tensor, by its id; None or missing if it has none."""
    wanted = [t for t in tensors if t.requires_grad]
    if total is None or not wanted:
        return {}
    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    return dict(zip(map(id, wanted), gradients, strict=True))


def _norm(gradients: Iterator[Tensor | None]) -> float:
    """The joint norm of all gradients; NaN if there are none."""
    squares = [float(g.double().square().sum()) for g in gradients if g is not None]
    return float(sum(squares) ** 0.5) if squares else float("nan")


def _vitals(neuron: Any, recording: Recording, norm: float) -> Vitals:
    rates = _rates(recording.spk.detach())
    mem, passes, threshold = _membranes(neuron, recording), float("nan"), torch.tensor(torch.nan)
    fires = not rates.isnan().all()
    if fires and mem is not None and (isinstance(neuron.model, Model) or isinstance(neuron, StateLeaky)):
        threshold = neuron.threshold.detach()
        passes = _passing(neuron.spike_grad, mem - threshold)
    return Vitals(
        path=recording.path,
        kind=recording.kind,
        neurons=rates.numel(),
        rate=float(rates.mean()),
        dead=_share(rates, rates == 0),
        saturated=_share(rates, rates > OFTEN),
        membrane=None if mem is None else (float(mem.min()), float(mem.mean()), float(mem.max())),
        threshold=(float(threshold.min()), float(threshold.max())),
        surrogate=repr(neuron.spike_grad),
        passes=passes,
        gradient_norm=norm,
    )


def _membranes(neuron: Any, recording: Recording) -> Tensor | None:
    """The membranes, [T, B, *N]; None if the layer does not return them."""
    names = recording.state_names
    name = names[-1] if names and isinstance(neuron.model, Model) else "mem"
    return recording.states[name].detach() if name in names else None


def _rates(spk: Tensor) -> Tensor:
    """The firing rate of each neuron, [N]; NaN for a readout, whose outputs have more values than 0 and one other."""
    fired, height = spk != 0, spk.abs().amax((0, 1))
    rates = fired.double().mean((0, 1)).flatten()
    return rates if (~fired | (spk.abs() == height)).all() else torch.full_like(rates, torch.nan)


def _share(rates: Tensor, which: Tensor) -> float:
    """The share of neurons selected by `which`; NaN if they have no rates."""
    return float("nan") if rates.isnan().all() else float(which.double().mean())


def _passing(spike_grad: Callable[[Tensor], Tensor], above: Tensor) -> float:
    """The share of membranes, given as mem - threshold, at which a spike passes gradient."""
    above.requires_grad_()
    spk = spike_grad(above)
    if not spk.requires_grad:
        return 0.0
    (slope,) = torch.autograd.grad(spk.sum(), above)
    return float((slope.abs() >= PASSES).double().mean())


def _cells(row: Vitals) -> tuple[str, ...]:
    return (
        row.path or "(itself)",
        row.kind,
        f"{row.neurons:,}",
        *(share(value) for value in (row.rate, row.dead, row.saturated)),
        row.told_membrane(),
        row.told_threshold(),
        share(row.passes),
        "-" if row.gradient_norm != row.gradient_norm else f"{row.gradient_norm:.2g}",
    )


# -- the figure --------------------------------------------------------------------------------------------------------

FIRES, SILENT, SATURATED, MEMBRANE, THRESHOLD = "#4c72b0", "#b0b0b0", "#dd8452", "#55a868", "#c44e52"


def _drawn(rows: Sequence[Vitals]) -> Any:
    """The figure: four panels with the layers as rows, the first on top."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot() draws with matplotlib; pip install 'spikeloom[plot]'") from error
    figure = Figure(figsize=(13, 2.2 + 0.4 * len(rows)), layout="constrained")
    neurons, membranes, passing, gradients = panels = figure.subplots(1, 4, sharey=True)
    places = range(len(rows))

    dead, saturated = [row.dead for row in rows], [row.saturated for row in rows]
    alive = [1 - d - s for d, s in zip(dead, saturated, strict=True)]
    neurons.barh(places, dead, color=SILENT, label="never fire")
    neurons.barh(places, alive, left=dead, color=FIRES, label="fire")
    neurons.barh(places, saturated, left=[1 - s for s in saturated], color=SATURATED, label="saturated")
    neurons.plot([row.rate for row in rows], places, "k|", markersize=14, label="firing rate")
    neurons.set(title="neurons", xlim=(0, 1), xlabel="share")
    neurons.set_yticks(places, [f"{row.path or '(itself)'}  {row.kind}" for row in rows])
    neurons.invert_yaxis()

    low, mean, high = ([(row.membrane or (math.nan,) * 3)[i] for row in rows] for i in range(3))
    membranes.hlines(places, low, high, color=MEMBRANE, linewidth=6)
    membranes.plot(mean, places, "k|", markersize=10)
    for place, row in zip(places, rows, strict=True):
        membranes.fill_betweenx((place - 0.4, place + 0.4), *row.threshold, color=THRESHOLD, linewidth=2)
    membranes.set(title="membranes (red: threshold)", xlabel="smallest, mean and largest")

    passing.barh(places, [row.passes for row in rows], color=FIRES)
    passing.set(title="spikes pass gradient", xlim=(0, 1), xlabel="share of neurons and steps")

    shown = [row.gradient_norm if 0 < row.gradient_norm < math.inf else math.nan for row in rows]
    gradients.plot(shown, places, "o", color=FIRES)
    for place, row, norm in zip(places, rows, shown, strict=True):
        if norm != norm:
            across = gradients.get_yaxis_transform()
            gradients.text(0.05, place, f"{row.gradient_norm:g}", va="center", transform=across)
    gradients.set(title="gradient of the loss", xlabel="norm over all currents")
    if any(norm == norm for norm in shown):
        gradients.set_xscale("log")

    figure.legend(loc="outside lower left", ncols=4, frameon=False, fontsize="small")
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure
