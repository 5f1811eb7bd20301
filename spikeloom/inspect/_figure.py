"""The plot of a diagnosis: rates, membranes, surrogate gradients and gradient norms of each layer."""

import math
from collections.abc import Sequence
from typing import Any

from ._vitals import Vitals

FIRES, SILENT, SATURATED, MEMBRANE, THRESHOLD = "#4c72b0", "#b0b0b0", "#dd8452", "#55a868", "#c44e52"


def drawn(rows: Sequence[Vitals]) -> Any:
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
    if known := [math.log10(norm) for norm in shown if norm == norm]:
        gradients.set_xscale("log")
        gradients.set_xlim(10 ** (math.floor(min(known)) - 0.1), 10 ** (math.ceil(max(known)) + 0.1))
        gradients.tick_params(axis="x", which="minor", labelbottom=False)  # whole decades are enough

    figure.legend(loc="outside lower left", ncols=4, frameon=False, fontsize="small")
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure
