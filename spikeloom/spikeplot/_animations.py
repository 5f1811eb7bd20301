"""Animations, and the spike count, which may be one."""

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..spikegen._inputs import given, whole
from ._data import BLUE, INK, ORANGE, SHADE, needs_matplotlib, numbers

if TYPE_CHECKING:
    from matplotlib.animation import ArtistAnimation
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BANDS = 8
"""Between how many ticks the time of a spike count is shaded, every other band."""


def animator(
    data: Tensor, fig: "Figure", ax: "Axes", num_steps: int | bool = False, interval: float = 40, cmap: str = "plasma"
) -> "ArtistAnimation":
    """Animate a sequence of images.

    Args:
        data: [T, H, W].
        fig: the figure of `ax`.
        ax: where to draw; its axes are switched off.
        num_steps: how many steps to show; False shows all.
        interval: between the images, in milliseconds.
        cmap: the colours, by matplotlib's name. They span the whole of `data`.

    Returns:
        the animation. Keep it until it is shown or saved: ``anim.save("spikes.gif")``.

    Raises:
        ValueError: for data of another shape, or fewer steps than asked for.

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
    """Draw how often each neuron has fired, a bar per neuron; over time if animated.

    Args:
        data: spikes of one sample, [T, N].
        fig: the figure of `ax`.
        ax: where to draw.
        labels: one for each of the N neurons.
        num_steps: how many steps to count; False counts all.
        animate: whether to show the counts as they grow, behind a line that marks the time.
        interpolate: frames per step, for a smoother line.
        gridshader: whether to shade the time in bands.
        interval: between the frames, in milliseconds.
        time_step: the length of a step in seconds, to label time in seconds; False labels steps.

    Returns:
        the animation, or None if nothing moves. Only `fig` and `ax` are changed, no global settings.

    Raises:
        ValueError: for data of another shape, fewer steps than asked for, labels that do not fit, or no frames.

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
        raise ValueError(f"there are {len(labels)} labels for {spikes.shape[1]} neurons; give one for each")
    if whole(interpolate, "interpolate") < 1:
        raise ValueError(f"interpolate is {interpolate}; pass the number of frames per step, 1 or more")
    steps = _steps(num_steps, len(spikes))
    counts = spikes[:steps].cumsum(0, dtype=np.float64)  # float16 counts to 2048
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
    """Make an animation by drawing its frames one after the other: what was drawn since the last `snap` is a frame.

    The first frame is all that was drawn before it; titles, ticks and the frames of the axes stay throughout.

    Args:
        figure: on which you draw.

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
        """Take what was drawn since the last call as a frame, and return it."""
        frame = [artist for artist in self._drawn() if artist not in self._seen]
        self._seen.update(frame)
        self._frames.append(frame)
        return frame

    def animate(self, *args: Any, **kwargs: Any) -> "ArtistAnimation":
        """The animation of the frames.

        Args:
            args: of ``matplotlib.animation.ArtistAnimation``, after the figure and the frames.
            kwargs: likewise, as ``interval``, in milliseconds.
        """
        from matplotlib.animation import ArtistAnimation

        return ArtistAnimation(self._figure, self._frames, *args, **kwargs)

    def _drawn(self) -> "list[Artist]":
        """What is on the figure and its axes and comes and goes: not their frames, ticks and titles."""
        drawn: list[Artist] = [*self._figure.texts, *self._figure.lines, *self._figure.patches, *self._figure.images]
        for axes in self._figure.axes:
            for kind in (axes.collections, axes.patches, axes.lines, axes.texts, axes.artists, axes.images):
                drawn.extend(kind)
            drawn.extend([legend] if (legend := axes.get_legend()) else [])
        return drawn


def _style_counts(ax: "Axes", labels: "list[str]", steps: int, time_step: float, animate: bool) -> None:
    ax.set_xlim(0, steps)
    ax.set_ylim(0.4, len(labels) + 0.6)
    ax.set_yticks(range(1, len(labels) + 1), labels)
    count = "spike count, step" if animate else "spike count"  # one axis: a neuron fires at most once per step
    ax.set_xlabel("time [s]" if time_step else count, fontsize="large", fontweight="bold", color=INK)
    ax.set_ylabel("neuron", fontsize="large", fontweight="bold", color=INK)
    if time_step:
        ax.xaxis.set_major_formatter(lambda step, _: f"{step * time_step:g}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(INK)
    ax.tick_params(colors=INK)


def _draw_counts(ax: "Axes", counts: Any) -> None:
    rows = range(1, len(counts) + 1)
    ax.hlines(rows, 0, counts, color=BLUE, alpha=0.5, linewidth=8)
    ax.plot(counts, rows, "o", markersize=8, color=BLUE, alpha=0.6)


def _shade(ax: "Axes", steps: int) -> None:
    for band in range(1, BANDS, 2):
        begin, end = (steps * edge / BANDS for edge in (band, band + 1))
        ax.axvspan(begin, end, facecolor=SHADE, alpha=0.4, zorder=0)


def _steps(asked: int | bool, present: int) -> int:
    steps = given(asked)
    if steps is None:
        return present
    if steps > present:
        raise ValueError(f"num_steps is {steps}, and the data has {present}; pass at most as many")
    return steps
