"""Animations, and the spike count, which can be animated."""

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..spikegen._inputs import given, whole
from ._data import BLUE, INK, LEGIBLE, ORANGE, SHADE, needs_matplotlib, numbers, size_of

if TYPE_CHECKING:
    from matplotlib.animation import ArtistAnimation
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BANDS = 8
"""Number of bands of the time axis of a spike count; every other one is shaded."""


def animator(
    data: Tensor, fig: "Figure", ax: "Axes", num_steps: int | bool = False, interval: float = 40, cmap: str = "plasma"
) -> "ArtistAnimation":
    """Animate a sequence of images.

    Args:
        data: [T, H, W].
        fig: the figure of `ax`.
        ax: the axes to draw on; their frame and ticks are switched off.
        num_steps: number of steps to show. Default: all.
        interval: time between frames, in milliseconds. Default: 40.
        cmap: name of a matplotlib colormap, which spans the range of `data`. Default: "plasma".

    Returns:
        the animation. Keep a reference until it is shown or saved: ``anim.save("spikes.gif")``.

    Raises:
        ValueError: for data of another shape, or fewer steps than requested.

        >>> import matplotlib.figure, torch, spikeloom as snn
        >>> fig = matplotlib.figure.Figure()
        >>> anim = snn.spikeplot.animator(torch.rand(5, 8, 8), fig, fig.add_subplot())
        >>> page = anim.to_jshtml()  # for a notebook
    """
    needs_matplotlib()
    images = numbers(data, "animator", "images [T, H, W]", 3)
    shown = images[: _steps(num_steps, len(images))]
    ax.axis("off")
    camera = Camera(fig)
    for image in shown:
        ax.imshow(image, cmap=cmap, vmin=images.min(), vmax=images.max())
        camera.snap()
    return camera.animate(interval=interval)


def spike_count(
    data: Tensor,
    fig: "Figure",
    ax: "Axes",
    labels: "list[str]",
    num_steps: int | bool = False,
    animate: bool = False,
    interpolate: int = 1,
    gridshader: bool = True,
    interval: float = 25,
    time_step: float | bool = False,
) -> "ArtistAnimation | None":
    """Draw the number of spikes of each neuron as a bar chart, optionally animated over time.

    Args:
        data: spikes of one sample, [T, N].
        fig: the figure of `ax`.
        ax: the axes to draw on.
        labels: one for each of the N neurons.
        num_steps: number of steps to count. Default: all.
        animate: if True, animates the counts, with a line at the current time.
        interpolate: frames per step; more frames give a smoother line. Default: 1.
        gridshader: if True, shades bands of the time axis.
        interval: time between frames, in milliseconds. Default: 25.
        time_step: length of a step in seconds, to label the time axis in seconds. Default: False, which labels steps.

    Returns:
        the animation, or None without `animate`. Only `fig` and `ax` are changed, not matplotlib's global settings.

    Raises:
        ValueError: for data of another shape, fewer steps than requested, another number of labels, or no frames.

        >>> import matplotlib.figure, torch, spikeloom as snn
        >>> fig = matplotlib.figure.Figure()
        >>> ax = fig.add_subplot()
        >>> snn.spikeplot.spike_count(torch.ones(6, 2), fig, ax, labels=["cat", "dog"])
        >>> ax.lines[0].get_xdata().tolist()
        [6.0, 6.0]
    """
    needs_matplotlib()
    spikes = numbers(data, "spike_count", "spikes [T, N]", 2)
    if len(labels) != spikes.shape[1]:
        raise ValueError(f"spike_count got {len(labels)} labels for {spikes.shape[1]} neurons; pass one for each")
    if whole(interpolate, "interpolate") < 1:
        raise ValueError(f"interpolate is {interpolate}; pass the number of frames per step, 1 or more")
    steps = _steps(num_steps, len(spikes))
    counts = spikes[:steps].cumsum(0, dtype=np.float64)  # float16 counts only to 2048
    _style_counts(ax, labels, steps, float(time_step), animate)
    if not animate:
        _draw_counts(ax, counts[-1])
        if gridshader:
            _shade(ax, steps)
        return None
    camera = Camera(fig)
    for frame in range(steps * interpolate):
        now = frame / interpolate
        _draw_counts(ax, counts[int(now)])
        if gridshader:
            _shade(ax, steps)
        ax.plot([now, now], [0, 1], transform=ax.get_xaxis_transform(), color=ORANGE, linewidth=2)
        camera.snap()
    return camera.animate(interval=interval)


class Camera:
    """Create an animation from successive drawings. Everything drawn since the last `snap` is a frame.

    Titles, ticks and the frames of the axes are visible in all frames.

    Args:
        figure: the figure to draw on.

        >>> import matplotlib.figure, spikeloom as snn
        >>> figure = matplotlib.figure.Figure()
        >>> ax = figure.add_subplot()
        >>> camera = snn.spikeplot.Camera(figure)
        >>> for end in range(5):
        ...     line = ax.plot([0, end], color="black")
        ...     frame = camera.snap()
        >>> anim = camera.animate(interval=50)
        >>> page = anim.to_jshtml()
    """

    def __init__(self, figure: "Figure") -> None:
        needs_matplotlib()
        self._figure = figure
        self._seen: set[Artist] = set()
        self._frames: list[list[Artist]] = []

    def snap(self) -> "list[Artist]":
        """Add everything drawn since the last call as a frame, and return it."""
        for axes in self._figure.axes:
            if (legend := axes.get_legend()) is not None and legend not in axes.artists:
                axes.add_artist(legend)  # the next call of `axes.legend` would remove it
        frame = [artist for artist in self._drawn() if artist not in self._seen]
        self._seen.update(frame)
        self._frames.append(frame)
        return frame

    def animate(self, *args: Any, **kwargs: Any) -> "ArtistAnimation":
        """Return the animation of the frames.

        Args:
            args: further positional arguments of ``matplotlib.animation.ArtistAnimation``.
            kwargs: its keyword arguments, such as ``interval``, in milliseconds.
        """
        from matplotlib.animation import ArtistAnimation

        return ArtistAnimation(self._figure, self._frames, *args, **kwargs)

    def _drawn(self) -> "list[Artist]":
        """The artists on the figure and its axes, without frames, ticks and titles."""
        drawn: list[Artist] = [*self._figure.texts, *self._figure.lines, *self._figure.patches, *self._figure.images]
        for axes in self._figure.axes:
            for kind in (axes.collections, axes.patches, axes.lines, axes.texts, axes.artists, axes.images):
                drawn.extend(kind)
        return drawn


def _style_counts(ax: "Axes", labels: "list[str]", steps: int, time_step: float, animate: bool) -> None:
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties

    ax.set_xlim(0, steps)
    ax.set_ylim(0.4, len(labels) + 0.6)
    pitch = 72 * size_of(ax)[1] / len(labels)  # points per label
    every = ceil(1.2 * LEGIBLE / pitch)
    letters = min(FontProperties(size=rcParams["ytick.labelsize"]).get_size_in_points(), every * pitch / 1.2)
    ax.set_yticks(range(1, len(labels) + 1, every), labels[::every], fontsize=letters)
    count = "spike count, step" if animate else "spike count"  # one axis: a neuron fires at most once per step
    ax.set_xlabel("time [s]" if time_step else count, color=INK)
    ax.set_ylabel("neuron", color=INK)
    if time_step:
        ax.xaxis.set_major_formatter(lambda step, _: f"{step * time_step:g}")
        above = ax.secondary_xaxis("top")
        above.set_xlabel("spike count", color=INK)
        above.tick_params(colors=INK)
        above.spines["top"].set_color(INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(INK)
    ax.tick_params(colors=INK)


def _draw_counts(ax: "Axes", counts: Any) -> None:
    rows = range(1, len(counts) + 1)
    width = float(np.clip(0.5 * 72 * size_of(ax)[1] / len(counts), 1, 8))
    ax.hlines(rows, 0, counts, color=BLUE, alpha=0.5, linewidth=width)
    ax.plot(counts, rows, "o", markersize=width, color=BLUE, alpha=0.6)


def _shade(ax: "Axes", steps: int) -> None:
    for band in range(1, BANDS, 2):
        begin, end = (steps * edge / BANDS for edge in (band, band + 1))
        ax.axvspan(begin, end, facecolor=SHADE, alpha=0.4, zorder=0)


def _steps(asked: int | bool, present: int) -> int:
    steps = given(asked)
    if steps is None:
        return present
    if steps > present:
        raise ValueError(f"num_steps is {steps}, but the data has {present} steps; pass at most {present}")
    return steps
