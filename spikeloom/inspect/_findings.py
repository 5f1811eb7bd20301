"""Interpret the statistics of spiking layers: sentences that name a problem, the layer and a fix."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

DEAD = 0.75
"""The share of neurons that never fire from which it is reported. Half of the neurons were silent on a batch in layers
that learn well, and three quarters in untrained layers with PyTorch's default weights."""

SATURATED = 0.25
"""The share of saturated neurons from which it is reported."""

PASSING = 0.1
"""The share of membranes close enough to the threshold for the surrogate, below which it is reported."""

UNEQUAL = 1e3
"""The ratio of gradients between layers from which it is reported: the smaller one will hardly learn."""


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
        threshold: smallest and largest threshold; NaN for neurons that fire by another rule.
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

    def told_membrane(self) -> str:
        """The range of the membranes as text."""
        return "-" if self.membrane is None else f"{self.membrane[0]:.3g} to {self.membrane[2]:.3g}"

    def told_threshold(self) -> str:
        """The threshold or its range as text."""
        low, high = self.threshold
        return "-" if low != low else f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def found(rows: Sequence[Vitals], unused: Sequence[str]) -> Iterator[str]:
    """One sentence per problem; `unused` are the parameters without a gradient."""
    if not rows:
        yield "no neuron has run; check that the forward calls them"
    silent: Vitals | None = None
    for row in rows:
        yield from _of_spikes(row, silent)
        silent = silent or (row if row.rate == 0 else None)
    yield from _of_gradients(rows)
    if unused:
        yield f"{', '.join(unused)}: no gradient; the loss does not depend on it, or a tensor is detached on the way"


def _of_spikes(row: Vitals, silent: Vitals | None) -> Iterator[str]:
    """The problems of the spikes of one layer; `silent` is an earlier layer that does not fire at all."""
    name, threshold = _named(row), row.told_threshold()
    gain = "the gain of the weights before it"
    if row.membrane is not None:
        gain += f" (its membranes reach {row.membrane[2]:.3g}, its threshold is {threshold})"
    if row.membrane is not None and not all(map(math.isfinite, row.membrane)):
        yield f"{name}: its membranes range from {row.told_membrane()}; check the input and the weights for NaN and inf"
    elif row.dead >= DEAD and silent is not None:
        yield f"{name}: {_percent(row.dead)} of its neurons never fire; fix the silent {_named(silent)} first"
    elif row.dead >= DEAD:
        yield f"{name}: {_percent(row.dead)} of its neurons never fire; lower its threshold or raise {gain}"
    if row.saturated >= SATURATED:
        yield (
            f"{name}: {_percent(row.saturated)} of its neurons fire at nearly every step, whatever the input; "
            f"raise its threshold or lower {gain}"
        )
    if row.passes == 0 and row.surrogate == "no_gradient()":
        yield f"{name}: its spikes pass no gradient because of surrogate_disable=True"
    elif row.passes < PASSING:
        yield (
            f"{name}: only {_percent(row.passes)} of its membranes, from {row.told_membrane()}, are close enough to "
            f"the threshold of {threshold} for {row.surrogate} to pass gradient; use a wider surrogate, or weights "
            "that bring them closer"
        )


def _of_gradients(rows: Sequence[Vitals]) -> Iterator[str]:
    """The problems of the gradients of all layers."""
    largest = max((row.gradient_norm for row in rows if math.isfinite(row.gradient_norm)), default=0.0)
    if infinite := [row for row in rows if row.gradient_norm == math.inf]:
        yield f"{_all(infinite)}: the gradient is infinite; clip it, lower the weights, or use a flatter surrogate"
    if missing := [row for row in rows if math.isnan(row.gradient_norm)]:
        yield f"{_all(missing)}: the gradient is missing or NaN; check whether a later layer detaches its input"
    if zero := [row for row in rows if row.gradient_norm == 0]:
        yield (
            f"{_all(zero)}: the gradient is zero, so the weights before do not learn; it is lost at the spikes of "
            f"{_named(zero[-1])} or after them"
        )
    if vanishing := [row for row in rows if 0 < row.gradient_norm * UNEQUAL <= largest]:
        least = min(row.gradient_norm for row in vanishing)
        yield (
            f"{_all(vanishing)}: the gradient vanishes, down to {least / largest:.0e} of the largest among the layers; "
            f"it is lost at the spikes of {_named(vanishing[-1])} or after them: use a wider surrogate, raise the "
            "gain of the weights there, normalize, or add skip connections"
        )


def _named(row: Vitals) -> str:
    return f"layer {row.path!r} ({row.kind})" if row.path else f"the {row.kind}"


def _all(rows: Sequence[Vitals]) -> str:
    paths = ", ".join(repr(row.path) for row in rows)
    return f"layer{'s' * (len(rows) > 1)} {paths}" if rows[0].path else _named(rows[0])


def _percent(value: float) -> str:
    return f"{value:.0%}".replace("%", " %")
