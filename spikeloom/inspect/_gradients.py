"""Interpret the gradients of spiking layers: missing, zero, not finite, vanishing, exploding."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

from ..cells.firing import Whole
from ._problems import Finding
from ._vitals import Layer, named_layer

UNEQUAL = 1e3
"""The ratio of gradients between layers, or between the start and the end of a sequence, from which it is reported."""

GROWN = 100.0
"""The ratio of the gradient of a layer and of the last layer from which growth over time is reported."""


def of_gradients(layers: Sequence[Layer], explained: set[str], blank: bool) -> Iterator[Finding]:
    """The problems of the gradients of all layers.

    Args:
        layers: the layers in execution order.
        explained: the paths of those with a finding about their spikes.
        blank: whether weights are all 0 on purpose, as those of the last layer may be before training, or a layer is
            silent that may learn to fire.
    """
    if broken := [layer for layer in layers if layer.is_nan or layer.row.gradient_norm == math.inf]:
        detail = "NaN" if broken[-1].is_nan else "infinite"
        yield Finding(
            f"{_all(broken)}: the gradient is {detail}; "
            + _grown(broken[-1], "lower its recurrent weights")
            + "clip it, lower the weights, use a flatter surrogate, and check the loss for 0 / 0, log(0) and sqrt(0)",
            "gradient not finite",
            _paths(broken),
        )
        return
    missing = [layer for layer in layers if math.isnan(layer.row.gradient_norm)]
    if missing and not (missing == [layers[0]] and not missing[0].from_weights):  # integers without weights
        yield Finding(
            f"{_all(missing)}: the gradient is missing or NaN; check whether a later layer detaches its input",
            "no gradient",
            _paths(missing),
        )
    if (zero := [layer for layer in layers if layer.row.gradient_norm == 0]) and not blank:
        yield Finding(
            f"{_all(zero)}: the gradient is zero, so the weights before do not learn; it is lost at the spikes of "
            f"{named_layer(zero[-1])}, or after them",
            "zero gradient",
            _paths(zero),
        )
    flows = [layer for layer in layers if layer.row.gradient_norm > 0]
    yield from _of_growth(flows) or ([] if blank else _of_sizes(flows, explained))


def _of_growth(flows: Sequence[Layer]) -> list[Finding]:
    """The layer closest to the loss in which the gradient grows from the end of the sequence to its start."""
    for layer in reversed(flows):
        if layer.row.gradient_norm < GROWN * flows[-1].row.gradient_norm:
            continue
        recurrent = hasattr(layer.neuron, "recurrent")
        if (recurrent or isinstance(layer.neuron.model, Whole)) and (factor := _growth(layer.over_time)):
            cure = "lower its recurrent weights" if recurrent else "lower the gain of its feedback"
            return [
                Finding(
                    f"{named_layer(layer)}: the gradient explodes backward in time, {factor:.2g} times per step over "
                    f"{len(layer.over_time)} steps; {cure}, use a narrower surrogate, clip the gradient, or "
                    "unroll fewer steps",
                    "exploding gradient",
                    (layer.row.path,),
                )
            ]
    return []


def _growth(over_time: Sequence[float]) -> float | None:
    """The factor per step by which a gradient grows backward in time, if it grows exponentially and by much."""
    quarters = torch.tensor(over_time).tensor_split(4) if len(over_time) >= 8 else ()
    peaks = [float(quarter.max()) for quarter in quarters]
    if not peaks or not peaks[-1] or peaks[0] < UNEQUAL * peaks[-1]:
        return None
    if any(earlier < 3 * later for earlier, later in pairwise(peaks)):
        return None
    return math.pow(peaks[0] / peaks[-1], 4 / (3 * len(over_time)))


def _grown(layer: Layer, cure: str) -> str:
    return f"{cure}, " if hasattr(layer.neuron, "recurrent") else ""


def _of_sizes(flows: Sequence[Layer], explained: set[str]) -> list[Finding]:
    """Gradients that vanish on the way from the loss, relative to the last layer, or explode between two layers."""
    findings = []
    norms = [layer.row.gradient_norm for layer in flows]
    for layer, later in reversed([*pairwise(flows)]):
        ratio = layer.row.gradient_norm / later.row.gradient_norm
        if ratio >= UNEQUAL:
            findings.append(
                Finding(
                    f"{named_layer(layer)}: the gradient explodes, to {ratio:.0e} times that of {named_layer(later)}; "
                    "lower the weights between them, or normalize",
                    "exploding gradient",
                    (layer.row.path,),
                )
            )
            break
    vanishing = [layer for layer in flows if layer.row.gradient_norm * UNEQUAL <= norms[-1]]
    if not vanishing or findings:
        return findings
    drops = [a / b for a, b in pairwise(norms)]
    lost = flows[drops.index(min(drops))]
    if {lost.row.path, flows[drops.index(min(drops)) + 1].row.path} & explained:
        return findings
    least = min(layer.row.gradient_norm for layer in vanishing)
    findings.append(
        Finding(
            f"{_all(vanishing)}: the gradient vanishes, to {least / norms[-1]:.0e} of that of "
            f"{named_layer(flows[-1])}, at the spikes of {named_layer(lost)} or after them; use a wider surrogate, "
            "larger weights there, BatchNorm, or skip connections",
            "vanishing gradient",
            _paths(vanishing),
        )
    )
    return findings


def _all(layers: Sequence[Layer]) -> str:
    paths = ", ".join(repr(layer.row.path) for layer in layers)
    return f"layer{'s' * (len(layers) > 1)} {paths}" if layers[0].row.path else named_layer(layers[0])


def _paths(layers: Sequence[Layer]) -> tuple[str, ...]:
    return tuple(layer.row.path for layer in layers)
