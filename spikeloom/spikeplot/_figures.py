"""Static figures: rasters, traces, learning curves, confusion matrices."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..spikegen._inputs import whole
from ._data import BLUE, INK, LEGIBLE, ORANGE, SHADE, needs_matplotlib, numbers, size_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.lines import Line2D

WIDEST = 16
"""Characters of a line of a layer's name."""

MARKED = 30
"""Epochs up to which a learning curve has markers."""

IGNORED = -100
"""The label of samples that are ignored, as in the losses."""


def raster(data: "Tensor | Mapping[str, Tensor]", ax: "Axes", **kwargs: Any) -> "PathCollection":
    """Draw a dot for every spike, at (step, neuron).

    Args:
        data: spikes of one sample, [T], [T, N] or [T, *N], further dimensions flattened; or a dict of these, one entry
            per layer. Layers are stacked in alternating colors, the first at the bottom.
        ax: the axes to draw on. Axes without labels are labeled "step" and "neuron".
        kwargs: passed to ``ax.scatter``: ``s`` is the size of a dot (default: fits the space per neuron and step),
            ``c`` its color, ``marker`` its shape.

    Returns:
        the dots.

    Raises:
        TypeError: if data is not numeric.
        ValueError: if data has no step or no neuron, or if layers differ in the number of steps.

        >>> import matplotlib.figure, torch, spikeloom as snn
        >>> ax = matplotlib.figure.Figure().add_subplot()
        >>> dots = snn.spikeplot.raster(torch.eye(3), ax, s=5, c="black")
        >>> dots.get_offsets().tolist()
        [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    """
    needs_matplotlib()
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties
    from matplotlib.ticker import MaxNLocator

    layers = data if isinstance(data, Mapping) else {"": data}
    if not layers:
        raise ValueError("raster got no layers; pass a dict such as {'hidden': spk}")
    arrays = [numbers(spikes, "raster", "spikes [T], [T, N] or [T, *N]") for spikes in layers.values()]
    if len({len(array) for array in arrays}) != 1:
        lengths = ", ".join(f"{name!r}: {len(array)}" for name, array in zip(layers, arrays, strict=True))
        raise ValueError(f"raster got layers of different numbers of steps ({lengths}); pass the same for each")
    flat = [array.reshape(len(array), -1) for array in arrays]
    steps, neurons = np.nonzero(np.concatenate(flat, axis=1))
    edges = np.cumsum([0, *(array.shape[1] for array in flat)])
    if "s" not in kwargs:
        kwargs["s"] = _size_of_dots(ax, len(flat[0]), int(edges[-1]))
        kwargs.setdefault("linewidths", 0)
    if isinstance(data, Mapping):
        if not {"c", "color"} & kwargs.keys():
            layer = np.searchsorted(edges, neurons, side="right") - 1
            kwargs["color"] = np.array([BLUE, ORANGE])[layer % 2]
        labels = [fill(name, WIDEST) for name in layers]
        size = FontProperties(size=rcParams["ytick.labelsize"]).get_size_in_points()
        line = 1.3 * size / (72 * size_of(ax)[1]) * edges[-1]  # the height of a line of text, in neurons
        heights = [line * (label.count("\n") + 1) for label in labels]
        ax.set_yticks(_apart((edges[:-1] + edges[1:] - 1) / 2, heights), labels)
        ax.tick_params(axis="y", length=0)
        for edge in edges[1:-1]:
            ax.axhline(edge - 0.5, color=SHADE, linewidth=0.8)
    else:
        ax.yaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))  # 1: for a single neuron
        ax.set_ylabel(ax.get_ylabel() or "neuron")
    ax.set_xlabel(ax.get_xlabel() or "step")
    dots = ax.scatter(steps, neurons, **kwargs)
    ax.update_datalim([(0, 0), (len(flat[0]) - 1, edges[-1] - 1)])  # so that silent neurons are in the axis limits
    ax.autoscale_view()
    return dots


def traces(
    data: Tensor,
    spk: Tensor | None = None,
    dim: tuple[int, int] = (3, 3),
    spk_height: float = 5,
    titles: "list[str] | None" = None,
) -> None:
    """Draw the membranes of the first neurons over time, one panel each, in pyplot's current figure.

    Args:
        data: membranes of one sample, [T, N].
        spk: spikes, [T, N], added to the membranes. Default: None, which draws no spikes.
        dim: rows and columns of panels. Default: (3, 3).
        spk_height: height of a spike, in units of the membrane. Default: 5.
        titles: titles of the first panels.

    Raises:
        IndexError: for more panels than neurons, before anything is drawn.
        ValueError: for data of another shape, or if spikes and membranes differ in shape.

        >>> import matplotlib.pyplot as plt, torch, spikeloom as snn
        >>> fig = plt.figure()
        >>> spk, mem = snn.unroll(snn.Leaky(beta=0.9), torch.rand(50, 1, 4))
        >>> snn.spikeplot.traces(mem[:, 0], spk[:, 0], dim=(2, 2), titles=["first"])
        >>> len(fig.axes)
        4
        >>> plt.close(fig)
    """
    needs_matplotlib()
    from matplotlib import pyplot as plt
    from matplotlib.font_manager import FontProperties

    lines = numbers(data, "traces", "membranes [T, N]", 2)
    if len(dim) != 2 or min(whole(size, "a size in dim") for size in dim) < 1:
        raise ValueError(f"dim is {dim}; pass the rows and the columns of panels, 1 or more each")
    if lines.shape[1] < dim[0] * dim[1]:
        raise IndexError(f"{dim[0]} x {dim[1]} panels are too many for {lines.shape[1]} neurons; pass a smaller dim")
    if spk is not None:
        fired = numbers(spk, "traces", "spikes [T, N]", 2)
        if fired.shape != lines.shape:
            raise ValueError(f"spk has shape {fired.shape} for membranes of shape {lines.shape}; pass the same")
        lines = lines + spk_height * fired
    panels = plt.gcf().subplots(*dim, sharex=True, sharey=True, squeeze=False)
    title_size = FontProperties(size=plt.rcParams["axes.titlesize"]).get_size_in_points()
    for number, panel in enumerate(panels.flat):
        panel.plot(lines[:, number], color=BLUE, linewidth=1)
        panel.spines[["top", "right"]].set_visible(False)
        if titles and number < len(titles):
            room = 72 * size_of(panel)[0] / max(1, len(titles[number]))  # points per letter, which is 0.6 times as wide
            panel.set_title(titles[number], fontsize=max(LEGIBLE, min(title_size, room / 0.6)))
    for panel in panels[-1]:
        panel.set_xlabel("step")
    available = 0.55 * 72 * plt.gcf().get_figheight() / dim[0]  # the height of a panel, in points
    size = min(plt.rcParams["font.size"], available / 5)  # "membrane" is five times as long as its letters are high
    for panel in panels[:, 0]:
        panel.set_ylabel("membrane", fontsize=size)


def learning_curve(history: "Mapping[str, Sequence[float]]", ax: "Axes") -> "list[Line2D]":
    """Draw values per epoch, such as losses or accuracies, as one line each.

    Args:
        history: the values by name, each with one number per epoch.
        ax: the axes to draw on.

    Returns:
        the lines.

    Raises:
        ValueError: if there is nothing to draw.

        >>> import matplotlib.figure, spikeloom as snn
        >>> ax = matplotlib.figure.Figure().add_subplot()
        >>> lines = snn.spikeplot.learning_curve({"training": [2.3, 1.1, 0.6], "validation": [2.2, 1.3, 0.9]}, ax)
        >>> lines[1].get_xdata().tolist()
        [1, 2, 3]
    """
    needs_matplotlib()
    from matplotlib.ticker import MaxNLocator

    if not history:
        raise ValueError("learning_curve got no values; pass a dict such as {'training': [2.3, 1.1]}")
    lines = []
    for name, values in history.items():
        found = numbers(values, "learning_curve", f"numbers [epochs] for {name!r}", 1)
        marker = "o" if len(found) <= MARKED else ""
        lines += ax.plot(np.arange(1, len(found) + 1), found, marker=marker, markersize=3, linewidth=1.5, label=name)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return lines


def confusion_matrix(
    predicted: Tensor, targets: Tensor, ax: "Axes", labels: "list[str] | None" = None, cmap: str = "Blues"
) -> Any:
    """Draw how often each class was predicted for samples of each class.

    Args:
        predicted: predicted classes, [samples].
        targets: the classes, [samples]; samples with the label -100 are ignored.
        ax: the axes to draw on.
        labels: the names of the classes; None numbers them.
        cmap: the colormap. The color is the fraction of the samples of a class, the number their count.

    Returns:
        the counts, an array [C, C]: rows are targets, columns are predictions.

    Raises:
        ValueError: if the shapes differ, or if a class has no label.

        >>> import matplotlib.figure, torch, spikeloom as snn
        >>> ax = matplotlib.figure.Figure().add_subplot()
        >>> snn.spikeplot.confusion_matrix(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), ax, ["cat", "dog"])
        array([[1, 1],
               [0, 2]])
    """
    needs_matplotlib()
    found, wanted = (numbers(t, "confusion_matrix", "classes [samples]", 1) for t in (predicted, targets))
    if found.shape != wanted.shape:
        raise ValueError(f"predicted has shape {found.shape} and targets {wanted.shape}; pass one class per sample")
    found, wanted = found[wanted != IGNORED], wanted[wanted != IGNORED]
    if any((classes != np.floor(classes)).any() for classes in (found, wanted)):
        raise ValueError("confusion_matrix got classes that are not whole numbers; pass scores.argmax(-1), [samples]")
    found, wanted = found.astype(int), wanted.astype(int)
    count = len(labels) if labels else int(max([*found, *wanted], default=0)) + 1
    if len(found) and not 0 <= min(found.min(), wanted.min()) <= max(found.max(), wanted.max()) < count:
        cure = f"pass 0 to {count - 1}, one class per label" if labels else "pass numbers from 0 on"
        raise ValueError(f"classes go from {min(*found, *wanted)} to {max(*found, *wanted)}; {cure}")
    counts = np.zeros((count, count), dtype=int)
    np.add.at(counts, (wanted, found), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(shares, cmap=cmap, vmin=0, vmax=1)
    cell = 72 * min(size_of(ax)) / count  # in points
    size = min(8.5, 1.4 * cell / max(2, len(f"{counts.max()}")))
    for (row, column), number in np.ndenumerate(counts):
        if number and size >= LEGIBLE:
            color = "white" if shares[row, column] > 0.5 else INK
            ax.text(column, row, f"{number}", ha="center", va="center", color=color, fontsize=size)
    names = labels or [f"{n}" for n in range(count)]
    every = 1 if labels else int(np.ceil(14 / cell))  # numbers are legible from 14 points apart
    places, height = range(0, count, every), float(np.clip(0.9 * every * cell, LEGIBLE, 10))
    shown = [f"{names[place]}" for place in places]
    turned = max(map(len, shown)) * 0.6 * height > every * cell
    ax.set_xticks(places, shown, fontsize=height, rotation=90 if turned else 0)
    ax.set_yticks(places, shown, fontsize=height)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("class")
    return counts


def _apart(centers: "np.ndarray[Any, Any]", heights: "Sequence[float]") -> list[float]:
    """Positions at which labels of these heights do not overlap: each at its center, or as far below it as needed."""
    at = [float(center) for center in centers]
    for i in range(len(at) - 2, -1, -1):
        at[i] = min(at[i], at[i + 1] - (heights[i] + heights[i + 1]) / 2)
    return at


def _size_of_dots(ax: "Axes", steps: int, neurons: int) -> float:
    """The area of a dot in points^2 so that dots of adjacent steps and neurons touch at most."""
    width, height = size_of(ax)
    pitch = 72 * min(width / steps, height / neurons)
    return float(np.clip(pitch, 1, 6)) ** 2
