"""A diagnosis as a picture: four panels that share the layers as their rows."""

import math
from collections.abc import Sequence
from typing import Any

from ._findings import Vitals

FIRES, DEAD, SATURATED, MEMBRANE, THRESHOLD = "#4c72b0", "#b0b0b0", "#dd8452", "#55a868", "#c44e52"


def drawn(rows: Sequence[Vitals]) -> Any:
    """The figure; the first layer is on top.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot() draws with matplotlib; pip install 'spikeloom[plot]'") from error
    figure = Figure(figsize=(13, 2.2 + 0.4 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    places = range(len(rows))
    _neurons(panels[0], places, rows)
    _membranes(panels[1], places, rows)
    panels[2].barh(places, [row.passes for row in rows], color=FIRES)
    panels[2].set(title="spikes pass gradient", xlim=(0, 1), xlabel="share of neurons and steps")
    _gradients(panels[3], places, rows)
    panels[0].set_yticks(places, [f"{row.path or '(itself)'}  {row.kind}" for row in rows])
    panels[0].invert_yaxis()
    figure.legend(loc="outside lower left", ncols=4, frameon=False, fontsize="small")
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _neurons(panel: Any, places: range, rows: Sequence[Vitals]) -> None:
    dead = [row.dead for row in rows]
    saturated = [row.saturated for row in rows]
    alive = [1 - d - s for d, s in zip(dead, saturated, strict=True)]
    panel.barh(places, dead, color=DEAD, label="never fire")
    panel.barh(places, alive, left=dead, color=FIRES, label="fire")
    panel.barh(places, saturated, left=[1 - s for s in saturated], color=SATURATED, label="saturated")
    panel.plot([row.rate for row in rows], places, "k|", markersize=14, label="firing rate")
    panel.set(title="neurons", xlim=(0, 1), xlabel="share")


def _membranes(panel: Any, places: range, rows: Sequence[Vitals]) -> None:
    unknown = (math.nan,) * 3
    low, mean, high = zip(*(row.membrane or unknown for row in rows), strict=True) if rows else ((), (), ())
    panel.hlines(places, low, high, color=MEMBRANE, linewidth=6)
    panel.plot(mean, places, "k|", markersize=10)
    for place, row in zip(places, rows, strict=True):
        panel.fill_betweenx((place - 0.4, place + 0.4), *row.threshold, color=THRESHOLD, linewidth=2)
    panel.set(title="membranes (red: threshold)", xlabel="least, mean and largest")


def _gradients(panel: Any, places: range, rows: Sequence[Vitals]) -> None:
    shown = [row.gradient_norm if 0 < row.gradient_norm < math.inf else math.nan for row in rows]
    panel.plot(shown, places, "o", color=FIRES)
    for place, row, norm in zip(places, rows, shown, strict=True):
        if norm != norm:
            panel.text(0.05, place, f"{row.gradient_norm:g}", va="center", transform=panel.get_yaxis_transform())
    panel.set(title="gradient of the loss", xlabel="norm over all currents")
    if any(norm == norm for norm in shown):
        panel.set_xscale("log")
