"""The pictures: what is on them, and that nothing else has changed."""

import subprocess
import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.animation import ArtistAnimation
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from spikeloom import spikeplot

T, N = 20, 6


@pytest.fixture(autouse=True)
def clean():
    """A backend without windows, and no setting or figure of a test left behind."""
    with matplotlib.rc_context():
        plt.switch_backend("agg")
        before = dict(matplotlib.rcParams)
        yield
        assert dict(matplotlib.rcParams) == before
    plt.close("all")


def spikes(*shape: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(2)
    return (torch.rand(*(shape or (T, N)), generator=draw) > 0.6).float()


def canvas():
    fig = Figure()
    return fig, fig.add_subplot()


def frames_of(animation: ArtistAnimation) -> list:
    animation._draw_was_started = True  # or it warns that nobody saw it
    return list(animation.new_frame_seq())


FORMS = {
    "float": lambda spk: spk,
    "bool": lambda spk: spk > 0,
    "bfloat16": lambda spk: spk.bfloat16(),
    "with a graph": lambda spk: spk.clone().requires_grad_(),
    "array": lambda spk: spk.numpy(),
    "list": lambda spk: spk.tolist(),
}

# -- raster ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_raster_has_a_dot_at_step_and_neuron_of_every_spike(form):
    _, ax = canvas()
    dots = spikeplot.raster(FORMS[form](spikes()), ax)
    assert isinstance(dots, PathCollection)
    assert dots in ax.collections
    assert np.array_equal(dots.get_offsets(), spikes().nonzero().numpy())


def test_a_raster_of_one_neuron_and_of_images():
    _, ax = canvas()
    assert np.array_equal(spikeplot.raster(spikes(T), ax).get_offsets()[:, 0], spikes(T).nonzero()[:, 0])
    flat = spikeplot.raster(spikes(T, N), ax).get_offsets()
    assert np.array_equal(spikeplot.raster(spikes(T, N).view(T, 2, 3), ax).get_offsets(), flat)
    assert len(spikeplot.raster(torch.zeros(4, 3), ax).get_offsets()) == 0


def test_a_raster_takes_what_scatter_takes():
    _, ax = canvas()
    dots = spikeplot.raster(spikes(), ax, s=3, c="red", marker="|", label="spikes")
    assert dots.get_sizes() == [3]
    assert dots.get_label() == "spikes"


def test_layers_are_stacked_in_a_raster_by_name():
    _, ax = canvas()
    first, second = spikes(T, 4), spikes(T, 2)
    dots = spikeplot.raster({"first": first, "second": second}, ax)
    wanted = torch.cat((first, second), 1).nonzero().tolist()
    assert dots.get_offsets().tolist() == wanted
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    assert ax.get_yticks().tolist() == [1.5, 4.5]
    colors = {neuron: tuple(color) for (_, neuron), color in zip(wanted, dots.get_facecolors(), strict=True)}
    assert len({colors[n] for n in range(4)}) == len({colors[n] for n in (4, 5)}) == 1
    assert colors[0] != colors[4]


def test_labels_of_narrow_layers_do_not_overlap():
    figure, ax = plt.subplots(figsize=(3.4, 2.4))
    spikeplot.raster({name: torch.eye(20, n) for name, n in (("hidden", 500), ("second", 60), ("out", 10))}, ax)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["hidden", "second", "out"]
    assert all(upper.y0 >= lower.y1 for lower, upper in pairwise(boxes))


def test_a_raster_has_labels_and_space_for_silent_neurons_and_keeps_those_of_the_user():
    _, ax = canvas()
    spk = torch.zeros(T, N)
    spk[3, 2] = 1
    spikeplot.raster(spk, ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "neuron")
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left <= 0 < T - 1 <= right
    assert bottom <= 0 < N - 1 <= top
    ax.set(xlabel="time [ms]", ylabel="cell")
    spikeplot.raster(spk, ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time [ms]", "cell")


@pytest.mark.parametrize(("neurons", "largest"), [(5, 36), (2000, 1)])
def test_the_more_neurons_a_raster_has_the_smaller_are_its_dots(neurons, largest):
    _, ax = canvas()
    assert spikeplot.raster(torch.ones(10, neurons), ax).get_sizes().tolist() == [largest]


# -- animations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_an_animation_shows_the_images_in_their_order_in_one_scale_of_colours(form):
    fig, ax = canvas()
    images = spikes(5, 4, 3)
    images[1] = 0
    animation = spikeplot.animator(FORMS[form](images), fig, ax)
    frames = frames_of(animation)
    assert [len(frame) for frame in frames] == [1] * 5
    for (image,), wanted in zip(frames, images, strict=True):
        assert np.array_equal(image.get_array(), wanted)
        assert image.get_clim() == (0, 1)
        assert image.get_cmap().name == "plasma"
    assert not ax.axison
    assert animation._interval == 40


def test_an_animation_of_some_steps_in_other_colours():
    fig, ax = canvas()
    animation = spikeplot.animator(torch.rand(5, 4, 3), fig, ax, num_steps=3, interval=100, cmap="gray")
    assert len(frames_of(animation)) == 3
    assert animation._interval == 100
    assert ax.images[0].get_cmap().name == "gray"


def test_an_animation_is_saved_frame_by_frame(tmp_path):
    image = pytest.importorskip("PIL.Image")
    fig, ax = canvas()
    spikeplot.animator(torch.eye(4).view(4, 2, 2), fig, ax).save(tmp_path / "spikes.gif", writer="pillow")
    with image.open(tmp_path / "spikes.gif") as saved:
        assert saved.n_frames == 4


def test_a_camera_takes_what_was_drawn_since_the_last_frame():
    fig, ax = canvas()
    before = ax.axhline(1)
    camera = spikeplot.Camera(fig)
    first = ax.plot([0, 1])
    assert camera.snap() == [before, *first]
    drawn = [*ax.plot([1, 2]), ax.text(0, 0, "two"), ax.imshow(np.eye(2)), fig.text(0, 0, "below")]
    ax.set_title("no frame of its own")
    second = camera.snap()
    assert set(second) == set(drawn)
    third = [ax.plot([2, 3], label="three")[0], ax.legend()]
    assert camera.snap() == third
    animation = camera.animate(interval=33)
    assert isinstance(animation, ArtistAnimation)
    assert [set(frame) for frame in frames_of(animation)] == [{before, *first}, set(drawn), set(third)]
    assert animation._interval == 33


def test_a_camera_sees_every_panel():
    fig = Figure()
    panels = fig.subplots(1, 2)
    camera = spikeplot.Camera(fig)
    drawn = [panel.scatter([0], [0]) for panel in panels]
    assert camera.snap() == drawn


# -- spike counts ------------------------------------------------------------------------------------------------------

LABELS = [f"neuron {n}" for n in range(N)]


def shown(artists) -> tuple[list, list]:
    """The ends of the bars, and the dots on them."""
    (bars,) = (artist for artist in artists if isinstance(artist, LineCollection))
    (dots,) = (artist for artist in artists if getattr(artist, "get_marker", lambda: None)() == "o")
    return [segment[1].tolist() for segment in bars.get_segments()], dots.get_xydata().tolist()


@pytest.mark.parametrize("form", FORMS)
def test_a_count_has_a_bar_and_a_dot_per_neuron(form):
    fig, ax = canvas()
    assert spikeplot.spike_count(FORMS[form](spikes()), fig, ax, LABELS) is None
    wanted = [[count, n + 1] for n, count in enumerate(spikes().sum(0).tolist())]
    assert shown([*ax.collections, *ax.lines]) == (wanted, wanted)
    assert [label.get_text() for label in ax.get_yticklabels()] == LABELS
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("spike count", "neuron")
    assert ax.get_xlim() == (0, T)


def test_a_count_may_end_early():
    fig, ax = canvas()
    spikeplot.spike_count(spikes(), fig, ax, LABELS, num_steps=7)
    assert [bar[0] for bar in shown([*ax.collections, *ax.lines])[0]] == spikes()[:7].sum(0).tolist()
    assert ax.get_xlim() == (0, 7)


@pytest.mark.parametrize(("gridshader", "bands"), [(True, 4), (False, 0)])
def test_the_time_of_a_count_is_shaded_in_bands(gridshader, bands):
    fig, ax = canvas()
    spikeplot.spike_count(spikes(), fig, ax, LABELS, gridshader=gridshader)
    edges = [(band.get_x(), band.get_x() + band.get_width()) for band in ax.patches]
    assert edges == [(2.5, 5), (7.5, 10), (12.5, 15), (17.5, 20)][:bands]


@pytest.mark.parametrize("interpolate", [1, 3])
def test_an_animated_count_grows_behind_the_time(interpolate):
    fig, ax = canvas()
    animation = spikeplot.spike_count(spikes(), fig, ax, LABELS, animate=True, interpolate=interpolate, interval=50)
    frames = frames_of(animation)
    assert len(frames) == T * interpolate
    for number, frame in enumerate(frames):
        bars, dots = shown(frame)
        counts = spikes()[: number // interpolate + 1].sum(0).tolist()
        assert [bar[0] for bar in bars] == [dot[0] for dot in dots] == counts
        assert list(frame[-1].get_xdata()) == pytest.approx([number / interpolate] * 2)
    assert animation._interval == 50


def test_a_count_may_be_labelled_in_seconds():
    fig, ax = canvas()
    spikeplot.spike_count(spikes(), fig, ax, LABELS, time_step=1e-3)
    assert ax.get_xlabel() == "time [s]"
    assert ax.xaxis.get_major_formatter()(15, 0) == "0.015"


# -- traces ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_traces_have_a_panel_per_neuron_in_the_current_figure(form):
    mem = spikes()
    fig = plt.figure()
    spikeplot.traces(FORMS[form](mem), dim=(2, 3), titles=["first", "second"])
    assert plt.gcf() is fig
    assert [panel.get_title() for panel in fig.axes] == ["first", "second", "", "", "", ""]
    for n, panel in enumerate(fig.axes):
        assert np.array_equal(panel.lines[0].get_ydata(), mem[:, n])
    assert [panel.get_xlabel() for panel in fig.axes] == [*[""] * 3, *["step"] * 3]
    assert [panel.get_ylabel() for panel in fig.axes] == ["membrane", "", ""] * 2
    assert len({panel.get_ylim() for panel in fig.axes}) == 1


@pytest.mark.parametrize("form", FORMS)
def test_spikes_rise_from_the_traces(form):
    spikeplot.traces(torch.full((T, N), 0.5), FORMS[form](spikes()), dim=(1, 2), spk_height=3)
    assert len(plt.gcf().axes) == 2
    assert np.allclose(plt.gcf().axes[1].lines[0].get_ydata(), 0.5 + 3 * spikes()[:, 1])


# -- training ----------------------------------------------------------------------------------------------------------


def test_a_learning_curve_has_a_line_per_name_from_epoch_1_on():
    _, ax = canvas()
    lines = spikeplot.learning_curve({"training": [3.0, 2.0, 1.0], "validation": [3.0, 2.5]}, ax)
    assert [line.get_xydata().tolist() for line in lines] == [[[1, 3], [2, 2], [3, 1]], [[1, 3], [2, 2.5]]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation"]
    assert ax.get_xlabel() == "epoch"


def test_a_confusion_matrix_counts_predictions_by_class_and_leaves_out_ignored_labels():
    _, ax = canvas()
    predicted, targets = torch.tensor([0, 2, 1, 1, 1]), torch.tensor([0, 0, 1, 1, -100])
    counts = spikeplot.confusion_matrix(predicted, targets, ax, labels=["a", "b", "c"])
    assert counts.tolist() == [[1, 0, 1], [0, 2, 0], [0, 0, 0]]
    assert [(text.get_position(), text.get_text()) for text in ax.texts] == [
        ((0, 0), "1"),
        ((2, 0), "1"),
        ((1, 1), "2"),
    ]
    assert np.array_equal(ax.images[0].get_array(), [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 0]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "class")


# -- what does not work ------------------------------------------------------------------------------------------------

REFUSED = {
    "images of a batch": (lambda fig, ax: spikeplot.animator(torch.rand(5, 1, 4, 4), fig, ax), r"\(5, 1, 4, 4\)"),
    "no images": (lambda fig, ax: spikeplot.animator(torch.rand(0, 4, 4), fig, ax), r"\(0, 4, 4\)"),
    "too many images": (lambda fig, ax: spikeplot.animator(torch.rand(5, 4, 4), fig, ax, 6), "the data has 5"),
    "counts of a batch": (
        lambda fig, ax: spikeplot.spike_count(torch.rand(5, 2, 6), fig, ax, LABELS),
        "one sample of the batch",
    ),
    "labels": (lambda fig, ax: spikeplot.spike_count(torch.rand(5, 2), fig, ax, LABELS), "6 labels for 2 neurons"),
    "too many steps": (lambda fig, ax: spikeplot.spike_count(spikes(), fig, ax, LABELS, T + 1), "the data has 20"),
    "no frames": (lambda fig, ax: spikeplot.spike_count(spikes(), fig, ax, LABELS, interpolate=0), "interpolate is 0"),
    "traces of a batch": (lambda fig, ax: spikeplot.traces(torch.rand(5, 2, 9)), r"\(5, 2, 9\)"),
    "layers of other lengths": (
        lambda fig, ax: spikeplot.raster({"a": spikes(5, 2), "b": spikes(6, 2)}, ax),
        "'a': 5, 'b': 6",
    ),
    "no layers": (lambda fig, ax: spikeplot.raster({}, ax), "no layers"),
    "no history": (lambda fig, ax: spikeplot.learning_curve({}, ax), "got no values"),
    "other targets": (lambda fig, ax: spikeplot.confusion_matrix(torch.ones(2), torch.ones(3), ax), r"\(3,\)"),
    "a class without label": (
        lambda fig, ax: spikeplot.confusion_matrix(torch.tensor([2]), torch.tensor([0]), ax, ["a", "b"]),
        "pass 0 to 1",
    ),
    "a raster of no steps": (lambda fig, ax: spikeplot.raster(torch.zeros(0, 3), ax), r"raster draws .*\(0, 3\)"),
    "a raster of no neurons": (lambda fig, ax: spikeplot.raster(torch.zeros(3, 0), ax), r"raster draws .*\(3, 0\)"),
    "a raster of a number": (lambda fig, ax: spikeplot.raster(torch.tensor(1.0), ax), r"raster draws .*\(\)"),
    "a count of no steps": (lambda fig, ax: spikeplot.spike_count(torch.zeros(0, 6), fig, ax, LABELS), r"\(0, 6\)"),
    "traces of no steps": (lambda fig, ax: spikeplot.traces(torch.zeros(0, 9)), r"\(0, 9\)"),
    "no panels": (lambda fig, ax: spikeplot.traces(torch.rand(5, 9), dim=(0, 3)), "dim is|size in dim"),
    "negative steps": (lambda fig, ax: spikeplot.animator(torch.rand(5, 4, 4), fig, ax, -2), "num_steps is -2"),
    "other spikes": (lambda fig, ax: spikeplot.traces(torch.rand(5, 9), torch.rand(5, 8)), r"\(5, 8\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_drawn_is_reported_in_a_sentence(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call(*canvas())


MISTYPED = {
    "words": (lambda fig, ax: spikeplot.raster(["a", "b"], ax), "raster draws spikes .*real numbers"),
    "a list of unequal rows": (lambda fig, ax: spikeplot.raster([[1, 0], [1]], ax), "cannot read a list"),
    "complex numbers": (lambda fig, ax: spikeplot.raster(torch.zeros(3, 2).cfloat(), ax), "complex64"),
    "half a step": (lambda fig, ax: spikeplot.animator(torch.rand(5, 4, 4), fig, ax, 2.5), "num_steps is 2.5"),
    "frames": (lambda fig, ax: spikeplot.spike_count(spikes(), fig, ax, LABELS, interpolate=1.5), "interpolate is 1.5"),
    "panels": (lambda fig, ax: spikeplot.traces(torch.rand(5, 9), dim=(1.5, 2)), "size in dim is 1.5"),
}


@pytest.mark.parametrize("name", MISTYPED)
def test_what_is_of_another_type_is_refused_in_a_sentence(name):
    call, message = MISTYPED[name]
    with pytest.raises(TypeError, match=message):
        call(*canvas())
    assert not plt.get_fignums()


def test_a_count_in_half_precision_goes_beyond_2048():
    _, ax = canvas()
    spikeplot.spike_count(torch.ones(3000, 1).half(), ax.figure, ax, ["one"], gridshader=False)
    assert ax.lines[0].get_xdata().tolist() == [3000.0]


def test_more_panels_than_neurons_leave_no_figure():
    with pytest.raises(IndexError, match="3 x 3 panels are too many for 6 neurons"):
        spikeplot.traces(spikes())
    assert not plt.get_fignums()


@pytest.mark.parametrize("call", [lambda ax: spikeplot.raster(spikes(), ax), lambda ax: spikeplot.Camera(ax.figure)])
def test_without_matplotlib_the_extra_is_named(call, monkeypatch):
    _, ax = canvas()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'spikeloom\[plot\]'"):
        call(ax)


def test_the_module_loads_without_matplotlib_and_pandas():
    code = "import sys, spikeloom; spikeloom.spikeplot.raster; print({'matplotlib', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
