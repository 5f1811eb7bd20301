"""What the vitals of a network's layers mean, in sentences: what is wrong, where, and what helps."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

DEAD = 0.75
"""So large a share of neurons that never fire stands out. Layers that learn well have been seen with half of theirs
silent on a batch, untrained ones of PyTorch's default weights with three quarters."""

SATURATED = 0.25
"""So large a share of saturated neurons stands out."""

PASSING = 0.1
"""So small a share of membranes near enough to the threshold for the surrogate stands out."""

UNEQUAL = 1e3
"""So large a ratio of gradients between layers stands out: the smaller one will hardly learn."""


@dataclass(frozen=True)
class Vitals:
    """One spiking layer on one batch.

    Args:
        path: its name in the network, as in `named_modules`.
        kind: its class.
        neurons: how many it has.
        rate: the share of steps at which a neuron fires, over all neurons, rows and steps; NaN, as the next two, for
            a readout, whose outputs are no spikes.
        dead: the share of neurons that never fire.
        saturated: the share of neurons that fire at more than 90 % of all steps.
        membrane: the least, the mean and the largest membrane; None for a layer that does not tell them.
        threshold: the least and the largest threshold; NaN for neurons that fire by another rule.
        surrogate: the spike function.
        passes: the share of neurons and steps at which its derivative is at least 0.01; NaN where `threshold` is.
        gradient_norm: the length of the loss's gradient for the currents into the layer, over all time; NaN where no
            gradient leads to it.
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
        """The membranes for a reader."""
        return "-" if self.membrane is None else f"{self.membrane[0]:.3g} to {self.membrane[2]:.3g}"

    def told_threshold(self) -> str:
        """The threshold for a reader."""
        low, high = self.threshold
        return "-" if low != low else f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def found(rows: Sequence[Vitals], unused: Sequence[str]) -> Iterator[str]:
    """A sentence for each thing that stands out; `unused` are the parameters to which no gradient leads."""
    if not rows:
        yield "no neuron has run; does the forward call them?"
    silent: Vitals | None = None
    for row in rows:
        yield from _of_spikes(row, silent)
        silent = silent or (row if row.rate == 0 else None)
    yield from _of_gradients(rows)
    if unused:
        yield f"no gradient leads to {', '.join(unused)}: the loss does not depend on it, or something detaches"


def _of_spikes(row: Vitals, silent: Vitals | None) -> Iterator[str]:
    """What stands out of one layer; `silent` is a layer before it that does not fire at all."""
    name, threshold = _named(row), row.told_threshold()
    gain = "the gain of the weights before it"
    if row.membrane is not None:
        gain += f" (its membranes reach {row.membrane[2]:.3g}, its threshold is {threshold})"
    if row.membrane is not None and not all(map(math.isfinite, row.membrane)):
        yield f"{name}: its membranes go from {row.told_membrane()}; look for NaN or inf in the input and weights"
    elif row.dead >= DEAD and silent is not None:
        yield f"{name}: {_percent(row.dead)} of its neurons never fire; mend the silent {_named(silent)} first"
    elif row.dead >= DEAD:
        yield f"{name}: {_percent(row.dead)} of its neurons never fire; lower its threshold or raise {gain}"
    if row.saturated >= SATURATED:
        yield (
            f"{name}: {_percent(row.saturated)} of its neurons fire at nearly every step, whatever the input; "
            f"raise its threshold or lower {gain}"
        )
    if row.passes == 0 and row.surrogate == "no_gradient()":
        yield f"{name}: its spikes pass no gradient, by surrogate_disable=True"
    elif row.passes < PASSING:
        yield (
            f"{name}: only {_percent(row.passes)} of its membranes, from {row.told_membrane()}, are near enough to "
            f"the threshold of {threshold} for {row.surrogate} to pass gradient; take a wider surrogate, or weights "
            "that bring them nearer"
        )


def _of_gradients(rows: Sequence[Vitals]) -> Iterator[str]:
    """What stands out of the way back through the layers."""
    largest = max((row.gradient_norm for row in rows if math.isfinite(row.gradient_norm)), default=0.0)
    if infinite := [row for row in rows if row.gradient_norm == math.inf]:
        yield f"{_all(infinite)}: the gradient is infinite; clip it, lower the weights, or take a flatter surrogate"
    if missing := [row for row in rows if math.isnan(row.gradient_norm)]:
        yield f"{_all(missing)}: no gradient leads there, or it is not a number; does something behind detach?"
    if zero := [row for row in rows if row.gradient_norm == 0]:
        yield (
            f"{_all(zero)}: the gradient is zero, so the weights before do not learn; it is lost at the spikes of "
            f"{_named(zero[-1])} or behind them"
        )
    if vanishing := [row for row in rows if 0 < row.gradient_norm * UNEQUAL <= largest]:
        least = min(row.gradient_norm for row in vanishing)
        yield (
            f"{_all(vanishing)}: the gradient vanishes, down to {least / largest:.0e} of the largest among the layers; "
            f"it is lost at the spikes of {_named(vanishing[-1])} or behind them: take a wider surrogate, raise the "
            "gain of the weights there, normalize, or add skip connections"
        )


def _named(row: Vitals) -> str:
    return f"layer {row.path!r} ({row.kind})" if row.path else f"the {row.kind}"


def _all(rows: Sequence[Vitals]) -> str:
    paths = ", ".join(repr(row.path) for row in rows)
    return f"layer{'s' * (len(rows) > 1)} {paths}" if rows[0].path else _named(rows[0])


def _percent(value: float) -> str:
    return f"{value:.0%}".replace("%", " %")
