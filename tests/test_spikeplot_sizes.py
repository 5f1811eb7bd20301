"""Plots stay legible at the width of a paper's column, 3.3 inches."""

import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from spikeloom import spikeplot

from .test_spikeplot import T, canvas, clean, spikes

__all__ = ["clean"]  # the fixture


@pytest.mark.parametrize(("classes", "numbers", "ticks"), [(10, 10, 10), (60, 0, 20)])
def test_a_confusion_matrix_of_many_classes_stays_legible(classes, numbers, ticks):
    fig = Figure(figsize=(3.3, 3.3))
    ax = fig.add_subplot()
    spikeplot.confusion_matrix(torch.arange(classes), torch.arange(classes), ax)
    assert len(ax.texts) == numbers
    assert len(ax.get_xticks()) <= ticks
    assert all(text.get_fontsize() >= 4 for text in (*ax.texts, *ax.get_xticklabels()))
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {0}
    _, named = canvas()
    spikeplot.confusion_matrix(torch.arange(4), torch.arange(4), named, labels=["a rather long name of a class"] * 4)
    assert {label.get_rotation() for label in named.get_xticklabels()} == {90}


def test_long_names_of_layers_and_long_histories():
    _, ax = canvas()
    spikeplot.raster({"features.encoder.block.0": spikes(), "output": spikes()}, ax)
    first, second = (label.get_text() for label in ax.get_yticklabels())
    assert (max(map(len, first.split("\n"))) <= 16, first.replace("\n", "")) == (True, "features.encoder.block.0")
    assert second == "output"
    many, few = spikeplot.learning_curve({"many": [1.0] * 100, "few": [1.0] * 5}, ax)
    assert (many.get_marker(), few.get_marker()) == ("", "o")


def test_labels_of_small_panels_fit():
    fig = plt.figure(figsize=(3.3, 2.6))
    spikeplot.traces(torch.rand(T, 9))
    sizes = {panel.yaxis.label.get_fontsize() for panel in fig.axes[::3]}
    assert all(size * 5 <= 0.56 * 72 * 2.6 / 3 for size in sizes)
    fig, ax = Figure(figsize=(3.3, 3.3)), None
    ax = fig.add_subplot()
    spikeplot.spike_count(torch.ones(5, 60), fig, ax, [str(n) for n in range(60)], time_step=1e-3)
    assert ax.lines[0].get_markersize() < 3
    (above,) = ax.child_axes
    assert (ax.get_xlabel(), above.get_xlabel()) == ("time [s]", "spike count")
    letters = ax.get_yticklabels()[0].get_fontsize()
    assert letters >= 4
    assert 1.1 * letters * len(ax.get_yticks()) <= 72 * 0.78 * 3.3, "the labels do not overlap"


def test_a_single_neuron_has_one_tick_and_a_long_title_fits_its_panel():
    ax = Figure(figsize=(3.3, 1)).add_subplot()
    spikeplot.raster((torch.arange(T) % 2).float(), ax)
    low, high = ax.get_ylim()
    assert [tick for tick in ax.get_yticks() if low <= tick <= high] == [0]
    fig = plt.figure(figsize=(3.3, 2.6))
    spikeplot.traces(torch.rand(T, 9), titles=["the most excitable", "b"])
    fig.canvas.draw()
    first, second, *_ = fig.axes
    assert first.title.get_window_extent().width <= 1.3 * first.get_window_extent().width
    assert second.title.get_fontsize() > first.title.get_fontsize()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda ax: spikeplot.raster({}, ax), "no layers; pass a dict"),
        (lambda ax: spikeplot.animator(torch.zeros(4, 4), ax.figure, ax), r"images \[T, H, W\].*pass 3 dimensions"),
        (lambda ax: spikeplot.confusion_matrix(torch.rand(4), torch.zeros(4), ax), r"pass scores.argmax\(-1\)"),
        (lambda ax: spikeplot.confusion_matrix(torch.tensor([-1]), torch.tensor([0]), ax), "pass numbers from 0 on"),
        (lambda ax: spikeplot.spike_count(torch.zeros(4, 2), ax.figure, ax, ["a"]), "got 1 labels for 2 neurons"),
    ],
)
def test_messages_name_the_cure(draw, message):
    with pytest.raises(ValueError, match=message):
        draw(canvas()[1])


def test_each_frame_has_its_legend():
    fig, ax = canvas()
    camera = spikeplot.Camera(fig)
    frames = []
    for name in ("one", "two"):
        ax.plot([0, 1], label=name)
        ax.legend()
        frames.append(camera.snap())
    legends = [[artist for artist in frame if isinstance(artist, Legend)] for frame in frames]
    assert [len(found) for found in legends] == [1, 1]
    assert all(found[0] in ax.artists for found in legends), "so that both are drawn"
