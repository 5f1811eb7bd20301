"""Log-log plots of a sweep: time against an axis, with the floor."""

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
COLORS = {
    "spikeloom, accelerated": "#7f1d1d",
    "spikeloom, unrolled": "#c2410c",
    "spikeloom, step by step": "#f59e0b",
    "snnTorch": "#8b5cf6",
    "SpikingJelly": "#1d4ed8",
    "Norse": "#0891b2",
    "Sinabs": "#15803d",
    "spyx": "#ec4899",
}
"""Fixed colors per contestant; spikeloom's are warm."""
FURTHER = ("#57534e", "#84cc16", "#a16207")
"""Colors of other contestants, in the order of their case."""


def check_matplotlib() -> None:
    """Raise `CannotRun` if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise CannotRun(f"plots of a sweep require matplotlib ({error}); pip install matplotlib") from error


def plot(results: Sequence[Result], path: Path) -> None:
    """Plot the sweeps of one case, one panel per axis.

    Args:
        results: the results of one case, at least one of them from a sweep.
        path: the file; its extension determines the format, such as .svg or .png.

    Raises:
        CannotRun: if matplotlib is not installed.
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
    """Plot one axis: a line per contestant, the floor dashed."""
    names = list(dict.fromkeys(name for result in results for name in result.seconds))
    further = cycle(FURTHER)
    for name in names:
        there = [result for result in results if name in result.seconds]
        style = {"color": COLORS.get(name) or next(further), "marker": "o", "markersize": 3}
        if name == results[0].floor:
            style = {"color": "black", "linestyle": "--"}
        panel.plot([r.sizes[axis] for r in there], [1e3 * r.median(name) for r in there], label=name, **style)
    fixed = ", ".join(f"{other} = {size}" for other, size in results[0].sizes.items() if other != axis)
    panel.set(xscale="log", yscale="log", xlabel=f"{axis} ({fixed})")
    panel.grid(alpha=0.2)
