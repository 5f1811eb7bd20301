"""Interpret the statistics of spiking layers: sentences that name a problem, the layer and a fix.

The order is that of causes: the input, then the modules, then the layers from the first on, then the gradients. What
follows from an earlier finding is left out, or refers to it.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ._causes import OUTLYING, percent, why_dead, why_lost, why_saturated
from ._facts import Facts
from ._gradients import of_gradients
from ._problems import Finding
from ._vitals import Layer, differ, named_layer

DEAD = 0.75
"""The share of neurons that never fire from which it is reported. Half of the neurons were silent on a batch in layers
that learn well, and three quarters in untrained layers with PyTorch's default weights."""

SATURATED = 0.25
"""The share of saturated neurons from which it is reported."""

PASSING = 0.1
"""The share of membranes close to the threshold, below which an input may be called too large."""

FAINT = 1e-3
"""The mean derivative of the surrogate below which it is reported. fast_sigmoid(slope=25) has more at a membrane of 0,
one threshold away, and trains well from there."""

WEAK = 0.01
"""The same for a surrogate that is 0 near the threshold: from membranes beyond, the gradient may still be enough."""

BLOCKED = 0.9
"""The share of saturated neurons of a layer from which the silence and saturation of later layers follow from it."""

LARGE, SMALL = 10.0, 0.05
"""The largest absolute input from which it may saturate the first layer, and up to which it may leave it silent."""

EXPLODED = 1e3
"""The absolute membrane of a readout from which it is reported."""


def found(layers: Sequence[Layer], facts: Facts) -> Iterator[Finding]:
    """The problems of a network, from its layers in execution order."""
    if not layers:
        yield Finding("no neuron has run; check that the forward calls them", "no gradient")
    if broken := [*_not_finite(layers, facts)]:
        yield from (*broken, *facts.modules)
        return
    of_input = [*_of_input(layers, facts)]
    yield from (*of_input, *facts.modules)
    of_spikes = [] if of_input and of_input[0].problem == "silent input" else [*_of_layers(layers, facts, of_input)]
    yield from of_spikes
    explained = {path for finding in of_spikes for path in finding.layers}
    silent = any(layer.row.rate == 0 and not layer.row.readout for layer in layers)  # until training changes it
    if layers and not (explained or of_input or facts.modules or facts.blank or silent):
        yield from _of_outputs(layers[-1], facts)
    if facts.frozen:
        yield Finding(
            "no parameter requires a gradient, so that nothing is learned; call net.requires_grad_(True)",
            "frozen parameters",
        )
    else:
        yield from of_gradients(layers, explained, (facts.blank or silent) and not explained)
    if facts.unused:
        yield Finding(
            f"{', '.join(facts.unused)}: no gradient; the loss does not depend on it, or a tensor is detached on the "
            "way",
            "unused parameters",
        )


# -- NaN, and the input ------------------------------------------------------------------------------------------------


def _not_finite(layers: Sequence[Layer], facts: Facts) -> Iterator[Finding]:
    """The first cause of NaN and inf."""
    if bad := [t for t in facts.inputs if not t.isfinite().all()]:
        count = int((~bad[0].isfinite()).sum())
        yield Finding(
            f"the input: {count:,} of its {bad[0].numel():,} values are not finite; search the data for NaN and inf",
            "not finite",
        )
    if facts.bad:
        yield Finding(
            f"{', '.join(facts.bad)}: not finite; search the parameters for NaN and inf, and load or initialize them "
            "again; if training led to it, lower the learning rate and clip the gradient",
            "not finite",
        )
    if bad or facts.bad:
        return
    for layer in layers:
        row = layer.row
        if row.membrane is not None and not all(map(math.isfinite, row.membrane)):
            yield Finding(
                f"{named_layer(layer)}: its membranes range from {row.membrane_text()}; the input and the "
                "parameters have no NaN and inf, so lower the weights before it, or its input",
                "not finite",
                (row.path,),
            )
            return


def _of_input(layers: Sequence[Layer], facts: Facts) -> Iterator[Finding]:
    if not facts.inputs:
        return
    if not any(t.any() for t in facts.inputs):
        yield Finding(
            "the input is 0 everywhere, so that the network receives nothing; check the data and the encoding",
            "silent input",
        )
        return
    if facts.time_first and _swapped(facts.inputs):
        shape = [*facts.inputs[0].shape]
        yield Finding(
            f"the input, {shape}, is read as {shape[0]} steps of {shape[1]} samples, but these samples are equal at "
            "every step; if the batch comes first, pass x.transpose(0, 1)",
            "swapped axes",
        )
    largest = max(float(t.double().abs().max()) for t in facts.inputs)
    if not layers or layers[0].row.readout:
        return
    first, low = layers[0], min(float(t.double().min()) for t in facts.inputs)
    row = first.row
    detail = f"the input ranges from {low:.3g} to {max(float(t.double().max()) for t in facts.inputs):.3g}"
    if largest >= LARGE and (row.saturated >= SATURATED or _far(first)) and _spread(first):
        yield Finding(
            f"{detail}, so that the membranes of {named_layer(first)} are far from its threshold of "
            f"{row.threshold_text()} ({row.membrane_text()}); scale it to about 0 to 1, such as x / {largest:.3g}",
            "unscaled input",
            (row.path,),
        )
    elif largest <= SMALL and row.dead >= DEAD:
        yield Finding(
            f"{detail}, so that {percent(row.dead)} of the neurons of {named_layer(first)} never fire; scale it to "
            f"about 0 to 1, such as x / {largest:.3g}",
            "unscaled input",
            (row.path,),
        )


def _swapped(inputs: Sequence[Tensor]) -> bool:
    """Whether the rows are equal at every step, and steps differ; with few rows, time is more likely in their place."""
    return all(t.dim() > 2 and 1 < t.shape[1] < t.shape[0] and not differ(t, 1) for t in inputs) and any(
        differ(t, 0) for t in inputs
    )


def _far(layer: Layer) -> bool:
    """Whether most membranes are so far from the threshold that few spikes pass gradient."""
    if layer.mem is None or math.isnan(layer.row.passes):
        return False
    distance = float((layer.mem - layer.row.threshold[1]).abs().mean())
    return layer.row.passes < PASSING and distance > LARGE * abs(layer.row.threshold[1])


def _spread(layer: Layer) -> bool:
    """Whether the currents differ as those of random weights do, unlike those of a large bias."""
    current = layer.current
    return current is None or bool(current.std() >= 0.5 * current.mean().abs())


# -- spikes ------------------------------------------------------------------------------------------------------------


def _of_layers(layers: Sequence[Layer], facts: Facts, of_input: Sequence[Finding]) -> Iterator[Finding]:
    """The problems of the spikes of each layer."""
    blamed = {path for finding in of_input for path in finding.layers}
    delayed = any(finding.problem == "delay beyond the sequence" for finding in facts.modules)
    blocked: Layer | None = None
    silent = False  # whether an earlier layer is silent, which training may change
    for number, layer in enumerate(layers):
        if layer.row.path not in blamed:
            is_output = number == len(layers) - 1 and any(_ends_in(t, layer) for t in facts.outputs)
            spikes = _of_spikes(layer, blocked, delayed, hopeless=not number or _hopeless(layer, silent))
            yield from _of_readout(layer) if layer.row.readout else spikes
            yield from _of_lost(layer, is_output)
        if blocked is None and (
            layer.row.saturated >= BLOCKED
            or (layer.row.rate == 0 and (not number or delayed or _hopeless(layer, silent)))
        ):
            blocked = layer
        silent = silent or layer.row.rate == 0


def _hopeless(layer: Layer, silent: bool) -> bool:
    """Whether silent neurons stay silent: no gradient passes, or no current arrives. Others learn to fire."""
    return layer.faint_if_dead < FAINT or not (silent or layer.current is None or layer.current.any())


def _of_spikes(layer: Layer, blocked: Layer | None, delayed: bool, hopeless: bool) -> Iterator[Finding]:
    """The problems of one layer.

    Args:
        blocked: an earlier layer of which all neurons are silent for good, or saturated.
        delayed: whether delays exceed the sequence.
        hopeless: whether silent neurons are a problem: those of the first layer, and those that stay silent.
    """
    row, name, path = layer.row, named_layer(layer), (layer.row.path,)
    after = ""
    if blocked is not None:
        after = f"fix the {'silent' if blocked.row.rate == 0 else 'saturated'} {named_layer(blocked)} first"
    if row.dead >= DEAD and (hopeless or after or delayed):
        cure = after or ("fix the delays first" if delayed else why_dead(layer))
        yield Finding(f"{name}: {percent(row.dead)} of its neurons never fire; {cure}", "dead layer", path)
    if row.saturated >= SATURATED and not (after and row.dead >= DEAD):
        saturated = f"{name}: {percent(row.saturated)} of its neurons fire at nearly every step; "
        yield Finding(saturated + (after or why_saturated(layer)), "saturated layer", path)
    if layer.slope == 0 and row.surrogate == "no_gradient()":
        yield Finding(
            f"{name}: its spikes pass no gradient because of surrogate_disable=True", "disabled surrogate", path
        )
    elif layer.slope_at_threshold == 0 and layer.slope < WEAK:
        yield Finding(
            f"{name}: {row.surrogate} passes no gradient near the threshold, where neurons begin to fire; use one with "
            "its peak there, such as surrogate.atan()",
            "surrogate off threshold",
            path,
        )
    elif layer.slope < FAINT and row.dead < DEAD and row.saturated < SATURATED:
        yield Finding(
            f"{name}: {row.surrogate} passes a gradient at {percent(row.passes)} of its membranes, "
            f"{row.membrane_text()} (threshold {row.threshold_text()}); use a wider surrogate, or weights that bring "
            "them closer",
            "steep surrogate",
            path,
        )


def _of_readout(layer: Layer) -> Iterator[Finding]:
    row = layer.row
    if row.membrane is not None and max(abs(row.membrane[0]), abs(row.membrane[2])) > EXPLODED:
        yield Finding(
            f"{named_layer(layer)}, a readout: its membranes range from {row.membrane_text()}, which saturates a "
            "softmax; lower the weights before it or its beta, or divide by the number of steps",
            "exploding readout",
            (row.path,),
        )


def _of_lost(layer: Layer, is_output: bool) -> Iterator[Finding]:
    """Single output neurons, or channels, that never fire and cannot learn to."""
    channels = len(layer.shape) > 1
    if layer.row.readout or not (channels or is_output) or layer.row.dead >= 1:
        return
    groups = layer.shape[0] if channels else layer.rates.numel()
    lost = [g for g in _outlying(layer, groups) if not layer.rates.view(groups, -1)[g].any()]
    if not lost or len(lost) >= DEAD * groups:
        return
    what, problem = ("channel", "dead channel") if channels else ("output neuron", "dead output neuron")
    listed = ", ".join(map(str, lost[:8])) + (", ..." if len(lost) > 8 else "")
    plural = len(lost) > 1
    yield Finding(
        f"{named_layer(layer)}: {what}{'s' * plural} {listed} of {groups} never fire{'' if plural else 's'}"
        f"{'' if channels or plural else ', so its class is never chosen'}{why_lost(layer, groups, lost)}",
        problem,
        (layer.row.path,),
    )


def _outlying(layer: Layer, groups: int) -> list[int]:
    """The groups of neurons that are far from firing compared to the others, or that nothing reaches."""
    fires = layer.rates.view(groups, -1).any(1)
    if not fires.any() or layer.current is None:
        return []
    current = layer.current.unflatten(2, (groups, -1))
    highest = current.mean(0).amax((0, 2))  # [groups]: of the rows and neurons, the mean over time
    typical = current.square().mean((0, 1, 3)).sqrt()[fires].median()
    flat = current.transpose(0, 2).flatten(1)  # [groups, everything]
    varies = (flat != flat[:, :1]).any(1)
    threshold = layer.threshold
    scale = typical if threshold is None else max(typical, threshold.abs().median())
    outlying = highest < -OUTLYING * scale
    if varies[fires].any():
        outlying |= ~varies
    if threshold is not None:
        thresholds = threshold.view(groups, -1).amin(1)
        outlying |= thresholds > OUTLYING * thresholds[fires].median().abs()
    if layer.squares is not None and layer.squares.isfinite().all():
        learns = layer.squares.view(groups, -1).sum(1) > 0
        if learns[fires].any():
            outlying |= ~learns
    return [int(g) for g in torch.nonzero(outlying).flatten()]


def _ends_in(output: Tensor, layer: Layer) -> bool:
    return output.shape[-len(layer.shape) :] == layer.shape if layer.shape else True


# -- outputs -----------------------------------------------------------------------------------------------------------


def _of_outputs(last: Layer, facts: Facts) -> Iterator[Finding]:
    """Outputs, and currents of the last layer, that do not depend on the sample."""
    if last.current is None or differ(last.current, 1):
        return
    dim = 1 if facts.time_first else 0
    rows = {t.shape[dim] for t in facts.inputs if t.dim() > dim and differ(t, dim)}
    outputs = [t for t in facts.outputs for dim in (1, 0) if t.dim() > dim and t.shape[dim] in rows]
    if outputs and not any(differ(t, dim) for t in outputs for dim in (1, 0) if t.dim() > dim and t.shape[dim] in rows):
        yield Finding(
            "the outputs are equal for all samples of the batch, although the inputs differ; look for a layer that "
            "removes the differences",
            "constant output",
        )
