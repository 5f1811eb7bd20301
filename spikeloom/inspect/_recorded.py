"""The plot of a recording: the spikes of each layer, and the membranes of its most active neurons."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import spikeplot

if TYPE_CHECKING:
    from ._tap import Recording

WIDTH = 3.3
"""Inches: a column of a paper."""

LETTERS = 7
"""The font size, in points."""

COLORS = ("#007acc", "#e67700", "#55a868", "#c44e52", "#8172b2", "#937860")
"""The colors of the traces of a panel."""


def figure_maker(figsize: tuple[float, float] | None) -> Callable[..., Any]:
    """Return the class of matplotlib's figures, if it is installed and the size is one."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot() draws with matplotlib; pip install 'spikeloom[plot]'") from error
    if figsize is not None:
        try:
            width, height = map(float, figsize)
        except (TypeError, ValueError):
            width = height = 0.0
        if not 1 <= min(width, height) <= max(width, height) < 1000:
            raise ValueError(f"plot got figsize={figsize!r}; pass (width, height) in inches, 1 or more each")
    return Figure


def plotted(
    recordings: Mapping[str, "Recording"], sample: int, neurons: int, figsize: tuple[float, float] | None
) -> Any:
    """Draw per layer, in execution order from the top, a raster and the membranes of some neurons.

    Args:
        recordings: the layers by name; those that have not run are left out.
        sample: the row of the batch.
        neurons: number of membranes per layer.
        figsize: width and height in inches.
    """
    new_figure = figure_maker(figsize)
    ran = {path: recording for path, recording in recordings.items() if recording.steps}
    if not ran:
        raise RuntimeError("nothing was recorded; run the network before plot()")
    if isinstance(neurons, bool) or not isinstance(neurons, int) or neurons < 0:
        raise ValueError(f"plot got neurons={neurons!r}; pass the number of membranes per layer, 0 or more")
    chosen = {path: _sample(recording, sample) for path, recording in ran.items()}
    heights = [height for spk, mem in chosen.values() for height in _heights(spk, mem, neurons)]
    figure = new_figure(figsize=figsize or (WIDTH, 0.5 + 0.95 * sum(heights)), layout="constrained")
    panels = iter(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    for path, (spk, mem) in chosen.items():
        name = f"{path or 'neuron'} ({ran[path].kind})"
        panel = next(panels)
        _draw_spikes(panel, spk, name)
        if mem is not None and neurons:
            panel = next(panels)
            _draw_membranes(panel, spk, mem, neurons)
    panel.set_xlabel("step", fontsize=LETTERS)
    for panel in figure.axes:
        panel.tick_params(labelsize=LETTERS)
        panel.spines[["top", "right"]].set_visible(False)
        if panel is not figure.axes[-1]:
            panel.set_xlabel("")
    return figure


def _sample(recording: "Recording", sample: int) -> tuple[Tensor, Tensor | None]:
    """The spikes and membranes of one row, [T, N]; None for a layer that does not return membranes."""
    spk = recording.spk.detach()
    if not -spk.shape[1] <= sample < spk.shape[1]:
        raise IndexError(f"plot got sample={sample}, but the batch has {spk.shape[1]} rows")
    name = "mem" if "mem" in recording.state_names else None
    mem = None if name is None else recording.states[name].detach()[:, sample].flatten(1).float().cpu()
    spk = spk[:, sample].flatten(1).float().cpu()
    return spk, mem if mem is not None and mem.shape == spk.shape else None


def _heights(spk: Tensor, mem: Tensor | None, neurons: int) -> list[float]:
    """The heights of the panels of a layer: that of the raster grows slowly with the number of neurons."""
    raster = 0.5 + 0.25 * min(4.0, torch.tensor(float(spk.shape[1])).log10().item() * 1.5)
    return [raster, *([1.0] if mem is not None and neurons else [])]


def _draw_spikes(panel: Any, spk: Tensor, name: str) -> None:
    """All spikes of a layer; for a readout, whose outputs are not spikes, its outputs as an image."""
    panel.set_title(name, fontsize=LETTERS, loc="left", pad=2)
    panel.set_ylabel("neuron", fontsize=LETTERS)
    if _are_spikes(spk):
        spikeplot.raster(spk, panel)
        panel.locator_params(axis="y", nbins=4)
    else:
        panel.imshow(spk.T.numpy(), aspect="auto", origin="lower", interpolation="nearest", cmap="viridis")


def _are_spikes(spk: Tensor) -> bool:
    """Whether each neuron returns 0 and one other magnitude; a readout returns its membranes."""
    return bool(((spk == 0) | (spk.abs() == spk.abs().amax(0))).all())


def _draw_membranes(panel: Any, spk: Tensor, mem: Tensor, neurons: int) -> None:
    """The membranes of the neurons that fire most, with a mark above each spike."""
    most = (spk != 0).sum(0).argsort(descending=True, stable=True)[:neurons].tolist()
    top, low = float(mem[:, most].max()), float(mem[:, most].min())
    gap = 0.08 * (top - low or 1.0)
    for number, neuron in enumerate(most):
        color = COLORS[number % len(COLORS)]
        panel.plot(mem[:, neuron].numpy(), color=color, linewidth=0.8, label=f"{neuron}")
        fired = torch.nonzero(spk[:, neuron]).flatten().tolist()
        height = top + gap * (number + 1)
        if _are_spikes(spk):
            panel.plot(fired, [height] * len(fired), "|", color=color, markersize=4, markeredgewidth=0.8)
    panel.set_ylabel("membrane", fontsize=LETTERS)
    panel.legend(
        title="neuron", title_fontsize=LETTERS - 1, fontsize=LETTERS - 1, frameon=False, handlelength=1,
        loc="center left", bbox_to_anchor=(1.0, 0.5), borderaxespad=0.2, labelspacing=0.2,
    )  # fmt: skip
