"""A network, its NIR graph in a file, and the network that is made from it again: the same values everywhere."""

import warnings

import nir
import numpy as np
import pytest
import torch
from torch import nn

import spikeloom as snn
from tests.neurons.zoo import ZOO

from .graphs import NIR_RESET, Residual, leaky, outputs, through_file


def test_a_million_values_are_the_same(tmp_path):
    net = nn.Sequential(nn.Linear(50, 100), leaky(), nn.Linear(100, 100), leaky(torch.rand(100), torch.rand(100) + 0.2))
    x = torch.rand(100, 100, 50) * 4 - 1
    again = snn.import_from_nir(through_file(snn.export_to_nir(net, x[0]), tmp_path))
    with snn.backend("auto"):
        wanted, got = outputs(net, x), outputs(again, x)
    assert wanted.numel() == 1_000_000
    assert 10_000 < wanted.sum() < 900_000
    assert torch.equal(got, wanted)


NETWORKS = {
    "scalar": (lambda: nn.Sequential(nn.Linear(6, 4), leaky()), (6,)),
    "no bias": (lambda: nn.Sequential(nn.Linear(6, 4, bias=False), leaky()), (6,)),
    "synaptic": (lambda: nn.Sequential(nn.Linear(6, 4), snn.Synaptic(0.5, 0.8, **NIR_RESET)), (6,)),
    "integrator": (lambda: nn.Sequential(snn.IF(**NIR_RESET)), (6,)),
    "some do not decay": (lambda: nn.Sequential(leaky(torch.tensor([0.5, 1.0, 1.2]))), (3,)),
    "a current that does not decay": (lambda: nn.Sequential(snn.Synaptic(1.0, 0.8, 4.0, **NIR_RESET)), (3,)),
    "no reset": (lambda: nn.Sequential(snn.Leaky(0.8, reset_mechanism="none", init_hidden=True)), (6,)),
    "one to one": (lambda: nn.Sequential(snn.RLeaky(0.8, V=-0.5, all_to_all=False, **NIR_RESET)), (6,)),
    "recurrent": (lambda: nn.Sequential(snn.RSynaptic(0.5, 0.8, linear_features=6, **NIR_RESET)), (6,)),
    "recurrent image": (lambda: snn.RLeaky(0.8, conv2d_channels=2, kernel_size=3, **NIR_RESET), (2, 4, 5)),
    "one to one image": (lambda: snn.RSynaptic(0.5, 0.8, V=0.2, all_to_all=False, **NIR_RESET), (2, 4, 5)),
    "images": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            leaky(0.5, torch.rand(4, 1, 1)),
            nn.AvgPool2d(2, 2, 1),
            nn.Conv2d(4, 4, (1, 3), stride=(2, 1), padding=(0, 1), groups=2),
            leaky(0.5, 0.1),
            nn.AvgPool2d((2, 1), divisor_override=1),
            nn.Flatten(),
            nn.Linear(4 * 1 * 5, 3),
            snn.LI(0.9, init_hidden=True),
        ),
        (2, 8, 8),
    ),
    "series": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), leaky(0.5, 0.2), nn.Conv1d(4, 2, 3, padding="same")
        ),
        (2, 9),
    ),
    "delays": (
        lambda: nn.Sequential(leaky(), snn.SynapticDelay(6, 4, learn_delay=True), nn.Linear(6, 3), leaky(0.5, 0.1)),
        (6,),
    ),
    "graded": (
        lambda: nn.Sequential(leaky(0.5), snn.GradedSpikes(2, None, dim=1), nn.Conv2d(2, 2, 3), leaky(0.5, 0.1)),
        (2, 5, 5),
    ),
    "dilated": (lambda: nn.Sequential(nn.Conv2d(2, 2, 3, dilation=2, padding="same"), leaky(0.5, 0.1)), (2, 6, 6)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_come_back_the_same(name, tmp_path):
    make, shape = NETWORKS[name]
    net = make()
    x = torch.rand(30, 3, *shape) * 3 - 0.5
    wanted = outputs(net, x)
    assert len(wanted.unique()) > 1
    again = snn.import_from_nir(through_file(snn.export_to_nir(net, x[0]), tmp_path))
    assert torch.equal(outputs(again, x), wanted)
    layers = [type(layer) for layer in net.modules() if not isinstance(layer, nn.Sequential) and layer is not net]
    if name not in ("no reset", "graded"):  # which become another layer each
        assert [type(layer) for layer in again.modules()][1:][-len(layers) :] == layers or layers == []
        assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in net.parameters())


@pytest.mark.slow
def test_a_million_values_of_every_network_and_every_neuron_are_the_same(tmp_path):
    """By the metadata, also those of neurons that are written approximately."""
    made = {name: (make(), shape) for name, (make, shape) in NETWORKS.items()}
    for name, kind in ZOO.items():
        if not getattr(kind.make, "_without_steps", False) and kind.make is not snn.NoisyLeaky:
            neuron = kind.make(**{**kind.numbers, "init_hidden": True})
            made[name] = neuron if name == "DeltaLeaky" else nn.Sequential(neuron), kind.shape[1:]
    for name, (net, shape) in made.items():
        kind = ZOO.get(name, ZOO["Leaky"])
        width = outputs(net, torch.rand(1, 1, *shape)).numel()
        x = torch.rand(200, -(-5000 // width), *shape) * kind.scale + kind.shift
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the approximations
            graph = through_file(snn.export_to_nir(net, x[0], allow_approximate=True), tmp_path)
        with snn.backend("auto"):
            wanted, got = outputs(net, x), outputs(snn.import_from_nir(graph), x)
        assert wanted.numel() >= 1_000_000, name
        assert len(wanted.unique()) > 1, name
        assert torch.equal(got, wanted), name


def test_branches_sums_and_several_inputs_and_outputs(tmp_path):
    net = Residual().eval()
    x, y = torch.rand(30, 2, 5) * 3, torch.rand(30, 2, 7)
    graph = through_file(snn.export_to_nir(net, (x[0], y[0])), tmp_path)
    again = snn.import_from_nir(graph).eval()
    assert [name for name, node in graph.nodes.items() if isinstance(node, (nir.Input, nir.Output))] == [
        *("input_0", "input_1", "output_0", "output_1")
    ]
    with torch.no_grad():
        wanted = snn.unroll(net, x, y)
        got, _ = snn.unroll(again, x, y)
    for a, b in zip(got, (wanted["spk"], wanted["features"][0]), strict=True):
        assert 0 < b.sum() < b.numel()
        assert torch.equal(a, b)


def test_every_neuron_comes_back_the_same_with_its_options_and_learned_values(tmp_path):
    """Also those that NIR cannot express: the metadata hold them."""
    for name, kind in ZOO.items():
        if getattr(kind.make, "_without_steps", False):
            continue
        net = kind.make(**{**kind.numbers, **kind.learn, "init_hidden": True})
        x = torch.rand(20, *kind.shape) * kind.scale + kind.shift
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the approximations
            graph = through_file(snn.export_to_nir(net, x[0], allow_approximate=True), tmp_path)
        (again,) = [m for m in snn.import_from_nir(graph).modules() if type(m) is type(net)]
        wanted, got = dict(net.state_dict()), dict(again.state_dict())
        assert {key: value.shape for key, value in got.items()} == {key: v.shape for key, v in wanted.items()}, name
        assert all(torch.equal(got[key], wanted[key]) for key in wanted), name
        assert [key for key, _ in again.named_parameters()] == [key for key, _ in net.named_parameters()], name
        assert repr(again) == repr(net), name
        assert again.spike_grad == net.spike_grad, name
        again.load_state_dict(net.state_dict())


def test_frozen_recurrent_weights_stay_frozen():
    for options in ({"linear_features": 3}, {"V": 0.5, "all_to_all": False}):
        net = snn.RLeaky(0.9, learn_recurrent=False, **options, **NIR_RESET)
        again = snn.import_from_nir(snn.export_to_nir(net, torch.rand(1, 3)))
        assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in net.parameters()]


def test_surrogates_come_back():
    for spike_grad in (snn.surrogate.fast_sigmoid(slope=7), snn.surrogate.triangular(), snn.surrogate.atan(3.0)):
        graph = snn.export_to_nir(leaky(spike_grad=spike_grad), torch.rand(1, 3))
        assert snn.import_from_nir(graph).leaky.spike_grad == spike_grad
    graph = snn.export_to_nir(leaky(surrogate_disable=True), torch.rand(1, 3))
    assert snn.import_from_nir(graph).leaky.surrogate_disable


def test_double_precision_comes_back(tmp_path):
    net = nn.Sequential(nn.Linear(5, 4), leaky(1 / 3)).double()
    x = torch.rand(20, 2, 5, dtype=torch.float64) * 3
    again = snn.import_from_nir(through_file(snn.export_to_nir(net, x[0]), tmp_path))
    assert outputs(again, x).dtype is torch.float64
    assert torch.equal(outputs(again, x), outputs(net, x))


def test_half_precision_comes_back(tmp_path):
    for dtype in (torch.float16, torch.bfloat16):
        net = nn.Sequential(nn.Linear(5, 4), leaky(0.8, 0.3)).to(dtype)
        x = (torch.rand(20, 2, 5) * 3).to(dtype)
        again = snn.import_from_nir(through_file(snn.export_to_nir(net, x[0]), tmp_path))
        assert outputs(again, x).dtype is dtype
        assert torch.equal(outputs(again, x), outputs(net, x))


def test_what_others_change_in_a_node_is_read_and_said():
    graph = snn.export_to_nir(leaky(0.9), torch.rand(1, 2))
    graph.nodes["leaky"].v_threshold = np.array([0.25, 0.5], dtype=np.float32)
    with pytest.warns(UserWarning, match="'leaky' were changed"):
        net = snn.import_from_nir(graph)
    assert torch.equal(net.leaky.threshold, torch.tensor([0.25, 0.5]))
    with pytest.warns(UserWarning, match="or dt is another"):
        net = snn.import_from_nir(snn.export_to_nir(leaky(0.9), torch.rand(1, 2)), dt=5e-5)
    assert net.leaky.rate.item() == pytest.approx(0.05)


def test_export_leaves_the_network_alone():
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), leaky()).train()
    x = torch.rand(2, 3) * 4
    for _ in range(3):
        net(x)
    before = net[2].mem.clone()
    snn.export_to_nir(net, x)
    assert torch.equal(net[2].mem, before)
    assert net.training
    assert not net[0]._forward_hooks
    snn.export_to_nir(net, x)
    assert len([m for m in snn.Leaky.instances if m is net[2]]) == 1


def test_recurrent_neurons_without_a_reset_come_back_in_the_same_step():
    for net in (
        snn.RLeaky(0.8, linear_features=5, reset_mechanism="none", init_hidden=True),
        snn.RSynaptic(0.7, 0.8, linear_features=5, reset_mechanism="none", init_hidden=True),
    ):
        x = torch.randn(60, 4, 5) * 1.5
        wanted = outputs(net, x)
        assert 0 < wanted.sum() < wanted.numel()
        assert torch.equal(outputs(snn.import_from_nir(snn.export_to_nir(net, x[0])), x), wanted)


class TwoNamedOutputs(nn.Module):
    """A layer has the name that one of two outputs gets."""

    def __init__(self):
        super().__init__()
        self.output_0, self.output_1 = nn.Linear(3, 3), leaky(0.5)

    def forward(self, x):
        h = self.output_0(x)
        return self.output_1(h), h


def test_layers_with_the_names_of_outputs():
    net, x = TwoNamedOutputs(), torch.rand(20, 2, 3) * 4
    graph = snn.export_to_nir(net, x[0])
    assert sum(isinstance(node, nir.Output) for node in graph.nodes.values()) == 2
    assert sum(isinstance(node, nir.Affine) for node in graph.nodes.values()) == 1
    with torch.no_grad():
        got, _ = snn.unroll(snn.import_from_nir(graph), x)
        assert all(torch.equal(a, b) for a, b in zip(got, snn.unroll(net, x), strict=True))


def test_convolutions_that_others_change_are_read_and_said(tmp_path):
    def dense(node):
        node.weight = np.ones_like(node.weight)

    def wider(node):
        node.padding = (2, 2)

    for options, change in (({"groups": 2, "kernel_size": 3}, dense), ({"kernel_size": (1, 3)}, wider)):
        graph = snn.export_to_nir(nn.Sequential(nn.Conv2d(2, 2, padding=1, **options)), torch.rand(1, 2, 5, 5))
        change(graph.nodes["0"])
        graph.nodes["output"] = nir.Output(None)
        with pytest.warns(UserWarning, match="fields of a Conv2d were changed"):
            net = snn.import_from_nir(graph)
        node, x = graph.nodes["0"], torch.rand(1, 2, 5, 5)
        wanted = nn.functional.conv2d(
            x, torch.tensor(node.weight), torch.tensor(node.bias), padding=tuple(node.padding)
        )
        assert torch.allclose(net(x)[0], wanted, atol=1e-6)


def test_one_to_one_weights_that_others_change_are_read():
    graph = snn.export_to_nir(snn.RLeaky(0.8, V=-0.5, all_to_all=False, **NIR_RESET), torch.rand(1, 3))
    graph.nodes["rleaky.w_rec"].weight = np.eye(3, dtype=np.float32)
    assert torch.equal(snn.import_from_nir(graph).rleaky.recurrent.weight.detach(), torch.eye(3))


class Sums(nn.Module):
    """Sums in other orders than from left to right, and factors that float32 rounds."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(5, 5) for _ in range(3))
        self.gain = snn.GradedSpikes(5, None, dim=1)

    def forward(self, x):
        a, b, c = self.a(x), self.b(x), self.c(x)
        left = (a + b) + (c + a) + (a + (b + c)) - (x + a) / 3
        return self.gain(left * 0.1 + (x + x + x + x + x) * 0.7)


def test_sums_and_factors_are_rounded_as_in_the_network(tmp_path):
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        net, x = Sums().to(dtype), torch.randn(500, 4, 5, dtype=dtype)
        again = snn.import_from_nir(through_file(snn.export_to_nir(net, x[0]), tmp_path))
        assert outputs(again, x).dtype is dtype
        assert torch.equal(outputs(again, x), outputs(net, x)), dtype
        assert isinstance(again.gain, snn.GradedSpikes)
        assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in net.parameters())
        second = snn.import_from_nir(snn.export_to_nir(again, x[0]))
        assert torch.equal(outputs(second, x), outputs(net, x))


def test_a_network_of_buffers_alone_keeps_its_dtype():
    net = nn.Sequential(snn.RLeaky(0.9, V=0.3, all_to_all=False, learn_recurrent=False, **NIR_RESET)).double()
    x = torch.rand(5, 2, 3, dtype=torch.float64)
    assert outputs(snn.import_from_nir(snn.export_to_nir(net, x[0])), x).dtype is torch.float64


def test_a_target_gets_no_nodes_that_only_keep_the_order_of_sums():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x):
            return (self.a(x) + self.b(x)) + (x + self.a(x))

    kinds = {type(node).__name__ for node in snn.export_to_nir(Sum(), torch.rand(2, 5), target="norse").nodes.values()}
    assert kinds == {"Input", "Affine", "Output"}
