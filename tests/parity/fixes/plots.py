"""Plots."""

import importlib
import warnings
from types import ModuleType
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure

from .fix import Fix, error_of


def spikeplot(snn: ModuleType) -> Any:
    return importlib.import_module(f"{snn.__name__}.spikeplot")


def settings_changed(snn: ModuleType) -> int:
    """How many of matplotlib's global settings a spike count leaves changed."""
    fig = Figure()
    with matplotlib.rc_context():
        before = dict(matplotlib.rcParams)
        spikeplot(snn).spike_count(torch.ones(4, 2), fig, fig.add_subplot(), ["0", "1"])
        return sum(before[name] != matplotlib.rcParams[name] for name in before)


def array(snn: ModuleType) -> str:
    return error_of(lambda: spikeplot(snn).raster(torch.eye(3).numpy(), Figure().add_subplot()))


def images(snn: ModuleType) -> Any:
    """The neurons of a raster of images, [T, 2, 3]."""
    spikes = torch.zeros(2, 2, 3)
    spikes[1] = 1
    return spikeplot(snn).raster(spikes, Figure().add_subplot()).get_offsets()[:, 1].tolist()


def graph(snn: ModuleType) -> str:
    fig = Figure()

    def animate() -> None:
        data = torch.rand(2, 3, 3, requires_grad=True)
        spikeplot(snn).animator(data, fig, fig.add_subplot())._draw_was_started = True  # it is not shown

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what comes before the error
        return error_of(animate)


FIXES: dict[str, Fix] = {
    "global settings": Fix("`spike_count`", settings_changed, 4, 0),
    "a raster of an array": Fix("NumPy arrays", array, "TypeError", "nothing"),
    "a raster of images": Fix("`raster` of `[T, H, W]`", images, [0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 4, 5]),
    "an animation of a graph": Fix("`animator` of a tensor that requires grad", graph, "RuntimeError", "nothing"),
}
