"""Why a layer is silent or saturated, and by how much its threshold or weights must change."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._vitals import OFTEN, Layer, Vitals

LEVELS = 4
"""A quantized membrane with at most so many different values is too coarse to reach the threshold."""

TARGET = 0.3
"""The firing rate for which weights are recommended to a saturated layer."""


def _gain(row: Vitals) -> str:
    """The gain of the weights before a layer, with the membranes that they cause."""
    if row.membrane is None:
        return "the gain of the weights before it"
    threshold = "" if math.isnan(row.threshold[0]) else f", its threshold is {row.threshold_text()}"
    return f"the gain of the weights before it (its membranes reach {row.membrane[2]:.3g}{threshold})"


def why_dead(layer: Layer) -> str:
    """The cause of the silence of a layer, and its cure."""
    row, neuron, mem = layer.row, layer.neuron, layer.mem
    gain = _gain(row)
    if layer.current is not None and not layer.current.any():
        return "its input current is always 0; check whether the weights before it are all 0, or its input is silent"
    if getattr(neuron, "inhibition", False):
        return "inhibition=True lets only one neuron fire at a time; leave it out"
    if callable(getattr(neuron, "state_quant", None)) and mem is not None and len(mem.unique()) <= LEVELS:
        levels = _listed(mem.unique())
        return f"state_quant rounds its membranes to {levels}; use a finer one, with values above its threshold"
    usual = f"lower its threshold or raise {gain}"
    if mem is None or math.isnan(row.threshold[0]):
        return usual
    peaks = mem.amax(0)[:, layer.rates == 0].flatten()
    reach = float(torch.quantile(peaks[:: max(1, len(peaks) // 10_000)], 0.9))
    if reach <= 0:
        return (
            f"{usual}; its currents are mostly negative, so that a bias, or BatchNorm before it, helps more than a "
            "lower threshold"
        )
    late = _steps_to_fire(layer)
    if late:
        return f"{usual}; its membranes still rise at the last step, and reach the threshold after about {late} steps"
    if row.dead < 1:
        return usual
    return (
        f"{usual}, such as a threshold of {reach / 2:.2g}, or weights {2 * row.threshold[1] / reach:.2g} times as large"
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
    gain = _gain(row)
    usual = f"raise its threshold or lower {gain}"
    if row.threshold[0] <= 0:
        return f"a threshold of {row.threshold[0]:.3g} is reached without any input; make it positive"
    if getattr(neuron, "reset_mechanism", "") == "none":
        return f'reset_mechanism="none" never lowers its membrane; use "subtract" or "zero", or {usual}'
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
    return f"{usual}, such as weights and biases {factor:.2g} times as large" if factor < 0.7 else usual


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


def at_hand(layer: Layer, groups: int, lost: Sequence[int]) -> str:
    """The evidence against silent neurons or channels, as a clause in brackets."""
    if layer.current is None:
        return ""
    current = layer.current.unflatten(2, (groups, -1))
    others = [g for g in range(groups) if g not in lost]
    detail = f" (currents {_range(current[:, :, lost])}, of the others {_range(current[:, :, others])}"
    if layer.threshold is not None:
        thresholds = layer.threshold.view(groups, -1)
        detail += f"; threshold {_range(thresholds[lost])}, of the others {_range(thresholds[others])}"
    return f"{detail})"


def percent(value: float) -> str:
    """A share as text."""
    return f"{value:.0%}".replace("%", " %")


def _range(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _listed(values: Tensor) -> str:
    return ", ".join(f"{float(v):.3g}" for v in values[:LEVELS])
