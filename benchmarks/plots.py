"""Pictures of a sweep: time against an axis, both logarithmic, with the floor drawn in."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from .result import CannotRun, Result

LOOK: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "spikeloom",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
COLOURS = {
    "spikeloom, accelerated": "#7f1d1d",
    "spikeloom, unrolled": "#c2410c",
    "spikeloom, step by step": "#f59e0b",
    "snnTorch": "#8b5cf6",
    "SpikingJelly": "#1d4ed8",
    "Norse": "#0891b2",
    "Sinabs": "#15803d",
    "spyx": "#ec4899",
}
"""The same in every picture, whoever else is in it; ours are warm."""
FURTHER = ("#57534e", "#84cc16", "#a16207")
"""Of contestants that have none, in the order of their case."""


def check_matplotlib() -> None:
    """Raise `CannotRun` without Matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise CannotRun(f"pictures of a sweep need Matplotlib ({error}); pip install 'spikeloom[plot]'") from error


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw the sweeps of one case, one panel for each axis.

    Args:
        results: those of one case, at least one of them swept.
        path: the file; its ending says the format, as in .svg or .png.

    Raises:
        CannotRun: without Matplotlib.
    """
    check_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(result.swept for result in results if result.swept))
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(4.6 * len(axes) + 1.6, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        panels: Any = figure.subplots(1, len(axes), squeeze=False, sharey=True)[0]
        for panel, axis in zip(panels, axes, strict=True):
            draw(panel, [result for result in results if result.swept == axis], axis)
        panels[0].set_ylabel("median, ms")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        figure.suptitle(results[0].title, fontsize=9)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw(panel: Any, results: Sequence[Result], axis: str) -> None:
    """The lines of one axis: a contestant each, the floor dashed."""
    names = list(dict.fromkeys(name for result in results for name in result.seconds))
    further = cycle(FURTHER)
    for name in names:
        there = [result for result in results if name in result.seconds]
        style = {"color": COLOURS.get(name) or next(further), "marker": "o", "markersize": 3}
        if name == results[0].floor:
            style = {"color": "black", "linestyle": "--"}
        panel.plot([r.sizes[axis] for r in there], [1e3 * r.median(name) for r in there], label=name, **style)
    fixed = ", ".join(f"{other} = {size}" for other, size in results[0].sizes.items() if other != axis)
    panel.set(xscale="log", yscale="log", xlabel=f"{axis} ({fixed})")
    panel.grid(alpha=0.2)
