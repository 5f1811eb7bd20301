"""The plot of a diagnosis: rates, membranes, surrogate gradients and gradient norms of each layer."""

import math
from collections.abc import Sequence
from typing import Any

from ._recorded import LETTERS, WIDTH, figure_maker
from ._vitals import Vitals

FIRES, SILENT, SATURATED, MEMBRANE, THRESHOLD = "#4c72b0", "#b0b0b0", "#dd8452", "#55a868", "#c44e52"

WIDE = 6.5
"""Inches from which the four panels are in one row."""


def drawn(rows: Sequence[Vitals], figsize: tuple[float, float] | None) -> Any:
    """Draw four panels with the layers as rows, the first on top.

    Args:
        rows: the layers.
        figsize: width and height in inches. Default: two by two panels in a paper's column, as high as the layers need.
    """
    if not rows:
        raise ValueError("plot() has no spiking layer to draw")
    height = 0.8 + 0.17 * max(len(rows), 2)
    figure = figure_maker(figsize)(figsize=figsize or (WIDTH, 2 * height + 0.35), layout="constrained")
    across = 4 if figure.get_figwidth() >= WIDE else 2
    panels = figure.subplots(4 // across, across, sharey=True, squeeze=False).flatten()
    letters = LETTERS + across // 4
    thick = max(1.0, min(6.0, 72 * figure.get_figheight() * across / 16 / max(len(rows), 1)))  # of a line, in points
    neurons, membranes, passing, gradients = panels
    places = range(len(rows))

    dead, saturated = [row.dead for row in rows], [row.saturated for row in rows]
    alive = [1 - d - s for d, s in zip(dead, saturated, strict=True)]
    neurons.barh(places, dead, color=SILENT, label="never fire")
    neurons.barh(places, alive, left=dead, color=FIRES, label="fire")
    neurons.barh(places, saturated, left=[1 - s for s in saturated], color=SATURATED, label="saturated")
    rates = [row.rate for row in rows]
    neurons.plot(rates, places, "k|", markersize=2 * thick, label="firing rate", clip_on=False)
    neurons.set_xlim(0, 1)
    neurons.set_title("neurons")
    neurons.set_xlabel("share")
    neurons.set_ylim(len(rows) - 0.5, -0.5)

    low, mean, high = ([(row.membrane or (math.nan,) * 3)[i] for row in rows] for i in range(3))
    membranes.hlines(places, low, high, color=MEMBRANE, linewidth=thick)
    membranes.plot(mean, places, "k|", markersize=2 * thick)
    for place, row in zip(places, rows, strict=True):
        membranes.fill_betweenx((place - 0.4, place + 0.4), *row.threshold, color=THRESHOLD, linewidth=1.5)
    membranes.plot([], [], color=THRESHOLD, linewidth=1.5, label="threshold")
    membranes.set_title("membrane")
    membranes.set_xlabel("min, mean, max")

    passing.barh(places, [row.passes for row in rows], color=FIRES)
    passing.set_xlim(0, 1)
    passing.set_title("passes gradient")
    passing.set_xlabel("share of steps")

    shown = [row.gradient_norm if 0 < row.gradient_norm < math.inf else math.nan for row in rows]
    gradients.plot(shown, places, "o", color=FIRES, markersize=thick, clip_on=False)
    for place, row, norm in zip(places, rows, shown, strict=True):
        if norm != norm:
            across_panel = gradients.get_yaxis_transform()
            gradients.text(0.05, place, f"{row.gradient_norm:g}", va="center", fontsize=letters, transform=across_panel)
    gradients.set_title("gradient norm")
    gradients.set_xlabel("norm")
    if known := [math.log10(norm) for norm in shown if norm == norm]:
        gradients.set_xscale("log")
        gradients.set_xlim(10 ** (math.floor(min(known)) - 0.1), 10 ** (math.ceil(max(known)) + 0.1))
        gradients.tick_params(axis="x", which="minor", labelbottom=False)  # whole decades are enough

    columns = 5 if across == 4 else 3
    figure.legend(loc="outside lower left", ncols=columns, frameon=False, fontsize=letters, handlelength=1)
    for number, panel in enumerate(panels):
        if number % across == 0:
            panel.set_yticks(places, [_label(row, longest=20 if across == 2 else 40) for row in rows])
        panel.title.set_fontsize(letters)
        panel.xaxis.label.set_fontsize(letters)
        panel.tick_params(labelsize=letters)
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _label(row: Vitals, longest: int) -> str:
    """The path and the kind of a layer; of a long one, the end."""
    label = f"{row.path or '(itself)'}  {row.kind}"
    return label if len(label) <= longest else f"...{label[3 - longest :]}"
