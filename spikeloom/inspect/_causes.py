"""Why a layer is silent or saturated, and by how much its threshold or weights must change."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._vitals import OFTEN, Layer, Vitals

LEVELS = 4
"""A quantized membrane with at most so many different values is too coarse to reach the threshold."""

OUTLYING = 3.0
"""The current or the threshold of a silent output neuron, relative to the others, from which it is reported. Neurons
that are silent in untrained layers come closer, and learn to fire."""

TARGET = 0.3
"""The firing rate for which weights are recommended to a saturated layer."""


def _reached(row: Vitals) -> str:
    """The largest membrane and the threshold of a layer, as a clause in brackets; empty if they are not known."""
    if row.membrane is None:
        return ""
    threshold = "" if math.isnan(row.threshold[0]) else f", threshold {row.threshold_text()}"
    return f" (membranes up to {row.membrane[2]:.3g}{threshold})"


def why_dead(layer: Layer) -> str:
    """The cause of the silence of a layer, and its cure."""
    row, neuron, mem = layer.row, layer.neuron, layer.mem
    reached = _reached(row)
    if layer.current is not None and not layer.current.any():
        return "its input current is always 0; check whether the weights before it are all 0, or its input is silent"
    if getattr(neuron, "inhibition", False):
        return "inhibition=True lets only one neuron fire at a time; leave it out"
    if callable(getattr(neuron, "state_quant", None)) and mem is not None and len(mem.unique()) <= LEVELS:
        levels = _listed(mem.unique())
        return f"state_quant rounds its membranes to {levels}; use a finer one, with values above its threshold"
    usual = f"lower its threshold, or use larger weights before it{reached}"
    if mem is None or math.isnan(row.threshold[0]):
        return usual
    peaks = mem.amax(0)[:, layer.rates == 0].flatten()
    reach = float(torch.quantile(peaks[:: max(1, len(peaks) // 10_000)], 0.9))
    if reach <= 0:
        return f"its currents are mostly negative{reached}; add a positive bias, or a BatchNorm layer before it"
    late = _steps_to_fire(layer)
    if late:
        return f"its membranes still rise at the last step{reached}; run more than {late} steps, or lower its threshold"
    if row.dead < 1:
        return usual
    return (
        f"lower its threshold to about {reach / 2:.2g}, or multiply the weights before it by "
        f"{2 * row.threshold[1] / reach:.2g}{reached}"
    )


def _steps_to_fire(layer: Layer) -> int:
    """After how many steps the membranes reach the threshold if they keep rising; 0 if they do not, or very slowly."""
    mem, threshold = layer.mem, layer.row.threshold[0]
    if mem is None or len(mem) < 4 or layer.row.dead < 1:
        return 0
    quarter = len(mem) // 4
    now, before, start = (float(mem[-1 - quarter * back].amax(1).mean()) for back in range(3))
    rise, earlier = now - before, before - start
    if not 0 < now < threshold or rise < 0.1 * earlier or rise <= 0:
        return 0
    shrink = min(rise / earlier, 1.0) if earlier > 0 else 1.0  # a membrane with a decay rises ever more slowly
    final = math.inf if shrink > 0.98 else now + rise * shrink / (1 - shrink)
    if final < 1.5 * threshold:
        return 0
    quarters = (threshold - now) / rise
    if shrink <= 0.98:
        quarters = math.log(1 - (threshold - now) / (final - now)) / math.log(shrink)
    steps = math.ceil(len(mem) + 1.5 * quarter * quarters)
    return steps if steps <= 8 * len(mem) else 0


def why_saturated(layer: Layer) -> str:
    """The cause of the saturation of a layer, and its cure."""
    row, neuron, current = layer.row, layer.neuron, layer.current
    usual = f"raise its threshold, or use smaller weights and biases before it{_reached(row)}"
    if row.threshold[0] <= 0:
        return f"a threshold of {row.threshold[0]:.3g} is reached without any input; make it positive"
    if getattr(neuron, "reset_mechanism", "") == "none":
        return f'reset_mechanism="none" never lowers its membrane; use "subtract" or "zero"{_reached(row)}'
    feedback = _feedback(neuron)
    high = layer.threshold
    if feedback and high is not None and feedback >= float(high.median()):
        return (
            f"its recurrent weights alone, {feedback:.3g} per step, keep it above the threshold of "
            f"{row.threshold_text()}; lower them"
        )
    if current is None or high is None:
        return usual
    busy = layer.rates > OFTEN
    typical = float(current.mean((0, 1))[busy].median())
    if typical <= 0:
        return usual
    factor = TARGET * float(high[busy].median()) / typical
    if factor >= 0.7:
        return usual
    return f"raise its threshold, or multiply the weights and biases before it by {factor:.2g}{_reached(row)}"


def _feedback(neuron: nn.Module) -> float:
    """The current that a recurrent layer feeds back to a neuron if all of them fire; 0 without recurrence."""
    layer = getattr(neuron, "recurrent", None)
    if not isinstance(layer, nn.Module):
        return 0.0
    weights = [p.detach() for name, p in (*layer.named_parameters(), *layer.named_buffers()) if name in ("weight", "V")]
    if not weights or not weights[0].numel():
        return 0.0
    weight = weights[0].double()
    return float((weight.flatten(1).sum(1) if weight.dim() > 1 else weight).mean())


def why_lost(layer: Layer, groups: int, lost: Sequence[int]) -> str:
    """What sets silent neurons or channels apart from the others, in brackets, and the cure."""
    others = [g for g in range(groups) if g not in lost]
    if layer.threshold is not None:
        thresholds = layer.threshold.view(groups, -1)
        if thresholds[lost].min() > OUTLYING * thresholds[others].median().abs():
            return f" (threshold {_range(thresholds[lost])}, others {_range(thresholds[others])}); use one threshold"
    cure = "initialize the weights and the bias as for the others"
    if layer.current is None:
        return f"; {cure}"
    current = layer.current.unflatten(2, (groups, -1))
    return f" (currents {_range(current[:, :, lost])}, others {_range(current[:, :, others])}); {cure}"


def percent(value: float) -> str:
    """A share as text."""
    return f"{value:.0%}".replace("%", " %")


def _range(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _listed(values: Tensor) -> str:
    return ", ".join(f"{float(v):.3g}" for v in values[:LEVELS])
