"""Recurrent neurons with any recurrent layer: what NIR can represent comes back the same, and the rest is refused."""

import warnings

import pytest
import torch
from torch import nn

import spikeloom as snn

from .graphs import NIR_RESET, outputs, through_file

LAGS = torch.tensor([0.0, 1.0, 2.0, 3.0])


class Doubled(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


def delay(**options):
    return snn.SynapticDelay(4, 3, LAGS, **options)


LAYERS = {
    "several layers": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 4))), (4,)),
    "a delay": (delay, (4,)),
    "a delay, then weights": (lambda: nn.Sequential(delay(), nn.Linear(4, 4)), (4,)),
    "weights, then a delay": (lambda: nn.Sequential(nn.Linear(4, 4, bias=False), delay(learn_delay=True)), (4,)),
    "two delays": (lambda: nn.Sequential(delay(), nn.Linear(4, 4, bias=False), delay()), (4,)),
    "factors": (lambda: snn.GradedSpikes(4, None, dim=1), (4,)),
    "Conv1d": (lambda: nn.Conv1d(2, 2, 3, padding=1), (2, 7)),
    "any Conv2d": (lambda: nn.Conv2d(2, 2, (3, 5), padding=(2, 4), dilation=2, groups=2), (2, 5, 6)),
}


def recurrent(layer, kind=snn.RLeaky, **options):
    neuron = kind(**{"beta": 0.8, "threshold": 0.6, "all_to_all": False, **NIR_RESET, **options})
    neuron.recurrent = layer
    return nn.Sequential(neuron).eval()


@pytest.mark.parametrize("options", [{}, {"kind": snn.RSynaptic, "alpha": 0.6, "reset_mechanism": "none"}])
def test_a_recurrent_layer_comes_back_the_same(options, tmp_path):
    for name, (make, shape) in LAYERS.items():
        torch.manual_seed(0)
        net, x = recurrent(make(), **options), torch.randn(20, 2, *shape) + 0.4
        graph = through_file(snn.export_to_nir(net, x[0]), tmp_path)
        again = snn.import_from_nir(graph)
        wanted = outputs(net, x)
        assert torch.equal(outputs(again, x), wanted), name
        assert 0 < wanted.mean() < 1, name
        ours, theirs = net[0].recurrent, again.get_submodule("0").recurrent
        assert [type(p) for p in theirs.modules()][:1] == [type(ours)], name
        assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters()), name
        plain = snn.import_from_nir(graph, reset="zero")  # as any reader of NIR
        assert torch.equal(outputs(plain, x), wanted), name


def test_a_recurrent_layer_that_nir_cannot_represent_is_refused_by_name():
    for layer, message in (
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU()), r"has a ReLU; the nearest is nn.Linear, nn.Conv2d, SynapticDelay"),
        (snn.DelayedLinear(4, 4, 3), "has a DelayedLinear; the nearest"),
        (Doubled(nn.Linear(4, 4)), "has a Doubled; the nearest"),
        (nn.Sequential(nn.Linear(4, 4), snn.Leaky(0.5, init_hidden=True)), "has a Leaky; the nearest"),
        (nn.Linear(4, 1), r"returns \(1,\) for spikes of \(4,\)"),
        (nn.Dropout(), "is an identity; the nearest is V=1 and all_to_all=False"),
        (nn.Sequential(nn.Linear(4, 4), delay()), "a bias before a delay .* the nearest is a bias after the delay"),
    ):
        with pytest.raises(ValueError, match=rf"'0' \(RLeaky\) .*{message}"):
            snn.export_to_nir(recurrent(layer), torch.rand(2, 4))


def test_a_changed_recurrent_layer_is_read_by_its_fields():
    net = recurrent(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4)))
    graph = snn.export_to_nir(net, torch.rand(2, 4))
    graph.nodes["0.w_rec.1"].weight[:] = 0.5
    assert torch.equal(snn.import_from_nir(graph).get_submodule("0").recurrent[1].weight, torch.full((4, 5), 0.5))
    graph.nodes["0.lif"].v_threshold[:] = 2.0
    with pytest.warns(UserWarning, match=r"'0\.lif' were changed"):
        again = snn.import_from_nir(graph)
    neuron = again.get_submodule("0")
    assert isinstance(neuron, snn.RLeaky)
    assert neuron.threshold == 2


def test_a_recurrent_neuron_without_a_reset_comes_back(tmp_path):
    for options in ({"linear_features": 4}, {"V": LAGS / 4, "all_to_all": False, "learn_recurrent": False}):
        net = nn.Sequential(snn.RLeaky(0.8, **options, **{**NIR_RESET, "reset_mechanism": "none"}))
        again = snn.import_from_nir(through_file(snn.export_to_nir(net, torch.rand(2, 4)), tmp_path))
        assert repr(again.get_submodule("0")) == repr(net[0])


def test_a_recurrent_neuron_in_a_larger_cycle_is_one_neuron(tmp_path):
    """Its own weights and a second way back, by edges that were added to the graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = snn.export_to_nir(recurrent(nn.Linear(4, 4)), torch.rand(2, 4))
        back = snn.export_to_nir(nn.Sequential(nn.Linear(4, 4)), torch.rand(2, 4)).nodes["0"]
        graph.nodes["back"] = back
        graph.edges += [("0.lif", "back"), ("back", "0.lif")]
        own = snn.import_from_nir(graph)
        x = torch.rand(30, 2, 4)
        wanted = outputs(own, x)
        assert torch.equal(
            outputs(snn.import_from_nir(through_file(snn.export_to_nir(own, x[0]), tmp_path)), x), wanted
        )
    assert 0 < wanted.mean() < 1
