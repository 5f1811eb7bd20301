"""Measure the spiking layers of a network after a run: rates, membranes, surrogates, gradients."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from .._torch import tree_leaves
from ..cells.firing import Model
from ..neurons import StateLeaky
from ._readout import NAN, firing_rates, is_readout
from ._tap import Recording, Tap

OFTEN = 0.9
"""A neuron that fires at more than this share of all steps is saturated."""

PASSES = 0.01
"""A spike passes gradient if the derivative of its surrogate is at least this."""


@dataclass(frozen=True)
class Vitals:
    """Statistics of one spiking layer on one batch.

    Args:
        path: its name in the network, as in `named_modules`.
        kind: its class.
        neurons: number of neurons.
        rate: share of steps at which a neuron fires, over all neurons, rows and steps; NaN, like the next two, for a
            readout, whose outputs are not spikes.
        dead: share of neurons that never fire.
        saturated: share of neurons that fire at more than 90 % of all steps.
        membrane: smallest, mean and largest membrane; None for a layer that does not return them.
        threshold: smallest and largest threshold; NaN for a readout, and for neurons that fire by another rule.
        surrogate: the spike function.
        passes: share of neurons and steps at which its derivative is at least 0.01; NaN if `threshold` is NaN.
        gradient_norm: norm of the gradient of the loss with respect to the input currents of the layer, over all steps;
            NaN if there is no gradient.
    """

    path: str
    kind: str
    neurons: int
    rate: float
    dead: float
    saturated: float
    membrane: tuple[float, float, float] | None
    threshold: tuple[float, float]
    surrogate: str
    passes: float
    gradient_norm: float

    @property
    def readout(self) -> bool:
        """Whether its membranes are the output, and it needs no spikes."""
        return math.isnan(self.rate)

    def membrane_text(self) -> str:
        """The range of the membranes as text."""
        return "-" if self.membrane is None else f"{self.membrane[0]:.3g} to {self.membrane[2]:.3g}"

    def threshold_text(self) -> str:
        """The threshold or its range as text."""
        low, high = self.threshold
        return "-" if low != low else f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


@dataclass(frozen=True)
class Layer:
    """Properties of one layer that the rules of `diagnose` use.

    Args:
        row: its statistics.
        neuron: the module.
        shape: [*N].
        rates: firing rate of each neuron, [N]; NaN for a readout.
        mem: membranes, [T, B, N]; None if the layer does not return them, or pools its spikes.
        current: input currents, [T, B, N]; None if they differ in shape from the spikes.
        slope: mean derivative of the surrogate; NaN if unknown.
        faint_if_dead: the median of the same over the neurons that never fire; 0 if unknown.
        squares: squared gradient of the current of each neuron, summed over rows and steps, [N]; None as for `current`.
        over_time: norm of the gradient per step; empty if there is no gradient.
        is_nan: whether the gradient exists and is NaN.
        from_weights: whether its currents are part of an autograd graph.
    """

    row: Vitals
    neuron: Any
    shape: tuple[int, ...]
    rates: Tensor
    mem: Tensor | None
    current: Tensor | None
    slope: float
    faint_if_dead: float
    squares: Tensor | None
    over_time: Sequence[float]
    is_nan: bool
    from_weights: bool

    @property
    def threshold(self) -> Tensor | None:
        """The threshold of each neuron, [N]; None if the neuron fires by another rule."""
        value = getattr(self.neuron, "threshold", None)
        if not isinstance(value, Tensor):
            return None
        try:
            return value.detach().double().expand(self.shape).flatten()
        except RuntimeError:  # one that broadcasts over rows
            return value.detach().double().mean().expand(self.rates.numel())


def measured(
    net: nn.Module, tap: Tap, total: Tensor | None, learned: Mapping[str, nn.Parameter]
) -> tuple[list[Layer], dict[str, Tensor | None]]:
    """The layers that ran, in execution order, and the gradient of each parameter by name."""
    ran = {path: recording for path, recording in tap.items() if recording.steps}
    currents = {path: recording.given() for path, recording in ran.items()}
    edges = {path: [*_edges(recording)] for path, recording in ran.items()}
    wanted = [*(c for each in currents.values() for c in each), *learned.values()]
    gradients = _gradients(total, wanted, [edge for each in edges.values() for edge in each])
    modules = dict(net.named_modules())
    layers, order = list[Layer](), [path for path in tap.order if path in ran]
    flat = max((at for at, path in enumerate(order) if modules[path]._flat), default=-1)
    for at, path in enumerate(order):
        used = [gradients[id(edge)] for edge in edges[path] if id(edge) in gradients]
        grads = [gradients.get(id(current)) for current in currents[path]]
        spikes_unused = bool(used) and all(g is None for g in used) and any(g is not None for g in grads)
        readout = is_readout(modules[path], ran[path].spk.detach(), spikes_unused, last=path == order[-1])
        if at <= flat:  # spikes without gradient end the graph, so that there is none before them
            pairs = zip(currents[path], grads, strict=True)
            grads = [torch.zeros_like(c) if g is None and c.requires_grad else g for c, g in pairs]
        layers.append(_layer(modules[path], ran[path], grads, readout))
    return layers, {name: gradients.get(id(p)) for name, p in learned.items()}


def _edges(recording: Recording) -> Iterator[GradientEdge]:
    """The points at which the spikes of each call enter the autograd graph; recorded spikes are separate views."""
    for spk in recording.spikes():
        if spk.grad_fn is not None:
            node, number = spk.grad_fn.next_functions[0]
            if node is not None:
                yield GradientEdge(node, number)


def _gradients(
    total: Tensor | None, tensors: Sequence[Tensor], edges: Sequence[GradientEdge]
) -> dict[int, Tensor | None]:
    """The gradient of each tensor and edge, by its id; None or missing if it has none."""
    wanted: list[Any] = [*(t for t in tensors if t.requires_grad), *edges]
    if total is None or not total.requires_grad or not wanted:
        return {}
    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    return dict(zip(map(id, wanted), gradients, strict=True))


def _layer(neuron: Any, recording: Recording, grads: Sequence[Tensor | None], readout: bool) -> Layer:
    spk, mem = recording.spk.detach(), _membranes(neuron, recording)
    rates = torch.full((spk[0, 0].numel(),), torch.nan) if readout else firing_rates(spk)
    slope, of_dead, passes, threshold = NAN, 0.0, NAN, torch.tensor(torch.nan)
    if not readout and mem is not None and (isinstance(neuron.model, Model) or isinstance(neuron, StateLeaky)):
        threshold = neuron.threshold.detach()
        slopes = _slopes(neuron.spike_grad, mem - threshold)
        slope, passes = float(slopes.double().mean()), float((slopes >= PASSES).double().mean())
        if (dead := rates == 0).any() and mem.shape == spk.shape:
            of_dead = float(_per_neuron(slopes)[:, :, dead].mean((0, 1)).median())
    per_call = zip(grads, recording.folded(), strict=True)
    over_time = [n for g, steps in per_call if g is not None for n in _per_step(g, steps)]
    norm = math.hypot(*over_time) if over_time else NAN
    row = Vitals(
        path=recording.path,
        kind=recording.kind,
        neurons=rates.numel(),
        rate=float(rates.mean()),
        dead=NAN if readout else float((rates == 0).double().mean()),
        saturated=NAN if readout else float((rates > OFTEN).double().mean()),
        membrane=None if mem is None else (float(mem.min()), float(mem.mean()), float(mem.max())),
        threshold=(float(threshold.min()), float(threshold.max())),
        surrogate=repr(neuron.spike_grad),
        passes=passes,
        gradient_norm=norm,
    )
    current = recording.input.detach()
    fits = current.shape == spk.shape
    present = [g.double().reshape(-1, rates.numel()).square().sum(0) for g in grads if fits and g is not None]
    return Layer(
        row=row,
        neuron=neuron,
        shape=tuple(spk.shape[2:]),
        rates=rates,
        mem=_per_neuron(mem) if mem is not None and mem.shape == spk.shape else None,
        current=_per_neuron(current) if fits else None,
        slope=slope,
        faint_if_dead=of_dead,
        squares=torch.stack(present).sum(0) if present else None,
        over_time=over_time,
        is_nan=bool(over_time) and math.isnan(norm),
        from_weights=any(t.requires_grad for t in recording.given()),
    )


def _per_neuron(t: Tensor) -> Tensor:
    """[T, B, *N] -> [T, B, N]."""
    return t.reshape(*t.shape[:2], -1).double()


def _membranes(neuron: Any, recording: Recording) -> Tensor | None:
    """The membranes, [T, B, *N]; None if the layer does not return them."""
    names = recording.state_names
    name = names[-1] if names and isinstance(neuron.model, Model) else "mem"
    return recording.states[name].detach() if name in names else None


def _per_step(gradient: Tensor, steps: int) -> list[float]:
    """The norm at each step of the gradient of one call, in which time is folded into dimension 0."""
    return [float(n) for n in gradient.double().reshape(steps, -1).norm(dim=1)]


def _slopes(spike_grad: Callable[[Tensor], Tensor], above: Tensor) -> Tensor:
    """The absolute derivative of the spike function at membranes given as mem - threshold."""
    above.requires_grad_()
    spk = spike_grad(above)
    if not spk.requires_grad:
        return torch.zeros_like(above)
    (slope,) = torch.autograd.grad(spk.sum(), above)
    return slope.abs()


def named_layer(layer: Layer) -> str:
    """A layer in a sentence."""
    return named(layer.row.path, layer.row.kind)


def named(path: str, kind: str) -> str:
    """A module in a sentence."""
    return f"layer {path!r} ({kind})" if path else f"the {kind}"


def differ(t: Tensor, dim: int) -> bool:
    """Whether a tensor has different values along a dimension."""
    return t.shape[dim] > 1 and bool((t != t.narrow(dim, 0, 1)).any())


def floating(tree: Any) -> list[Tensor]:
    """The real tensors in a tree of inputs or outputs, detached."""
    return [t.detach() for t in tree_leaves(tree) if isinstance(t, Tensor) and not t.is_complex() and t.numel()]
