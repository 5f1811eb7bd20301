"""The plot of a recording shows its spikes and the membranes of its most active neurons, at the width of a column."""

import sys

import pytest
import torch
from torch import nn

import spikeloom as snn

pytest.importorskip("matplotlib")


def recorded(last: nn.Module | None = None, steps: int = 30) -> snn.Tap:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Linear(8, 12), snn.Leaky(beta=0.9, init_hidden=True), nn.Linear(12, 3)),
        last or snn.Leaky(beta=0.9, threshold=0.2, init_hidden=True),
    )
    with snn.tap(net) as record:
        snn.unroll(net, 3 * torch.rand(steps, 2, 8))
    return record


def test_a_tap_draws_a_raster_and_membranes_of_every_layer():
    record = recorded()
    figure = record.plot(sample=1)
    spikes, membranes, out_spikes, out_membranes = figure.axes
    assert figure.get_figwidth() == pytest.approx(3.3)
    assert [spikes.get_title(loc="left"), out_spikes.get_title(loc="left")] == ["1 (Leaky)", "3 (Leaky)"]
    for panel, layer in ((spikes, "1"), (out_spikes, "3")):
        wanted = record[layer].spk[:, 1].nonzero().tolist()
        assert panel.collections[0].get_offsets().tolist() == wanted
        assert panel.get_ylabel() == "neuron"
    most = record["1"].spk[:, 1].sum(0).argsort(descending=True, stable=True)[:3].tolist()
    lines = {line.get_label(): line for line in membranes.lines}
    for neuron in most:
        assert lines[str(neuron)].get_ydata() == pytest.approx(record["1"].mem[:, 1, neuron].numpy())
    marks = [line for line in membranes.lines if line.get_marker() == "|"]
    assert [len(line.get_xdata()) for line in marks] == [int(record["1"].spk[:, 1, n].sum()) for n in most]
    assert out_membranes.get_xlabel() == "step"
    lif = snn.Leaky(beta=0.9)
    with snn.tap(lif) as always:
        snn.unroll(lif, torch.full((5, 1, 1), 9.0))
    (marks,) = (line for line in always.plot().axes[1].lines if line.get_marker() == "|")
    assert list(marks.get_xdata()) == [0, 1, 2, 3, 4]
    assert [panel.get_xlabel() for panel in figure.axes[:3]] == ["", "", ""]


def test_labels_of_a_figure_do_not_overlap():
    figure = recorded().plot()
    figure.draw_without_rendering()
    labels = [panel.yaxis.label.get_window_extent() for panel in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(labels) for b in labels[i + 1 :])


def test_a_recording_draws_its_layer_only():
    record = recorded()
    assert len(record["3"].plot().axes) == 2
    (spikes,) = record["3"].plot(neurons=0).axes
    assert spikes.get_xlabel() == "step"
    assert len(record["3"].plot(neurons=50).axes[1].get_legend().get_texts()) == 3, "as many as there are"


def test_a_readout_is_an_image_and_has_no_marks():
    record = recorded(snn.LI(beta=0.9, init_hidden=True))
    image, membranes = record["3"].plot().axes
    assert image.images[0].get_array().tolist() == record["3"].spk[:, 0].T.tolist()
    assert [line.get_marker() for line in membranes.lines] == ["None"] * 3


def test_layers_of_other_kinds():
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), snn.Leaky(beta=0.9, threshold=0.1, init_hidden=True))
    for net, x, panels in (
        (conv, torch.rand(5, 2, 1, 6, 6), 2),
        (snn.LeakyParallel(4, 4), torch.rand(5, 2, 4), 1),  # returns no membranes
        (snn.Leaky(beta=0.9), torch.zeros(5, 2, 4), 2),  # silent
        (snn.Leaky(beta=0.9), torch.ones(1, 1, 1), 2),
    ):
        with snn.tap(net) as record:
            snn.unroll(net, x)
        figure = record.plot()
        figure.draw_without_rendering()
        assert len(figure.axes) == panels


def test_what_cannot_be_drawn_is_reported_in_a_sentence(monkeypatch):
    record = recorded()
    with pytest.raises(IndexError, match="sample=2, but the batch has 2 rows"):
        record.plot(sample=2)
    for neurons in (-1, 1.5, True):
        with pytest.raises(ValueError, match=r"neurons=.*0 or more"):
            record.plot(neurons=neurons)
    record.clear()
    with pytest.raises(RuntimeError, match="nothing was recorded; run the network"):
        record.plot()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"spikeloom\[plot\]"):
        record.plot()
