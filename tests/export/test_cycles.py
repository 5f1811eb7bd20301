"""Cycles in graphs: a neuron and its weights become a recurrent neuron, others run step by step, and go out again."""

import copy
import pickle
import warnings
from functools import partial

import nir
import numpy as np
import pytest
import torch
from torch import nn

import spikeloom as snn

from .graphs import DT, cycle, outputs, through_file

RNG = np.random.default_rng(0)
ONE = np.ones(3)


def by_hand(graph, x):
    """The cycle of `cycle`: spikes come back one step later, the bias acts at every step."""
    w, v, spk, outs = graph.nodes["w_rec"], np.zeros(3), np.zeros(3), []
    for drive in x[:, 0].numpy():
        v = 0.9 * v + drive + w.weight @ spk + w.bias
        spk = (v > 1).astype(float)
        v = v * (1 - spk)
        outs.append(spk)
    return np.stack(outs)


def test_a_neuron_that_feeds_itself_becomes_a_recurrent_neuron():
    for bias in (0.0, 0.2):
        graph, x = cycle(bias), torch.rand(50, 1, 3)
        net = snn.import_from_nir(graph)
        assert isinstance(net.lif, snn.RLeaky)
        assert np.array_equal(outputs(net, x)[:, 0].numpy(), by_hand(graph, x))


def test_other_cycles_run_step_by_step():
    """Here the weights are two layers, so that no neuron of the library is that cycle."""
    plain, x = cycle(0.2), torch.rand(50, 2, 3)
    nodes = {**plain.nodes, "eye": nir.Linear(np.eye(3))}
    edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "eye"), ("eye", "lif"), ("lif", "output")]
    net = snn.import_from_nir(nir.NIRGraph(nodes, edges))
    wanted = outputs(snn.import_from_nir(plain), x)
    assert torch.equal(outputs(net, x), wanted)
    snn.utils.reset(net)
    with torch.no_grad():
        steps = torch.stack([net(x_t)[0] for x_t in x])
    assert torch.equal(steps, wanted)
    snn.utils.reset(net)
    parts = [out for out, _ in snn.stream(net, x.split(20))]
    assert torch.equal(torch.cat(parts).detach(), wanted)
    net(x[0])
    twin = copy.deepcopy(net)  # with its state
    assert torch.equal(twin(x[1])[0], net(x[1])[0])
    assert torch.equal(pickle.loads(pickle.dumps(net))(x[2])[0], net(x[2])[0])


def test_two_layers_that_feed_each_other():
    """The edge forward carries the spikes of this step, the edge back those of the step before."""
    one = np.ones(2)
    lif = {name: nir.LIF(2 * DT * one, 2 * one, 0 * one, one) for name in ("first", "second")}
    nodes = {"input": nir.Input(np.array([2])), **lif, "output": nir.Output(np.array([2]))}
    edges = [("input", "first"), ("first", "second"), ("second", "first"), ("second", "output")]
    nodes["gain"] = nir.Scale(2 * one)
    edges = [("input", "first"), ("first", "gain"), ("gain", "second"), ("second", "first"), ("second", "output")]
    net = snn.import_from_nir(nir.NIRGraph(nodes, edges))
    x = torch.zeros(4, 1, 2)
    x[0] = 1.5
    # step 0: both fire; step 1: the spike of the second gives the first 1.0, which is not above its threshold
    assert outputs(net, x)[:, 0, 0].tolist() == [1.0, 0.0, 0.0, 0.0]
    x[1] = 0.25
    assert outputs(net, x)[:, 0, 0].tolist() == [1.0, 1.0, 0.0, 0.0]


def lif(beta=0.9, threshold=1.0):
    return nir.LIF(DT / (1 - beta) * ONE, 1 / (1 - beta) * ONE, 0 * ONE, threshold * ONE)


def weights(bias=None):
    matrix = RNG.normal(size=(3, 3)).astype(np.float32)
    return nir.Linear(matrix) if bias is None else nir.Affine(matrix, bias * np.ones(3, dtype=np.float32))


def delay(*steps):
    return nir.Delay(DT * np.array(steps, dtype=np.float64))


def graph(edges, **nodes):
    """A graph from a text such as "input-a a-b b-output"; it has one input and one output."""
    ends = {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([3]))}
    return nir.NIRGraph({**ends, **nodes}, [tuple(edge.split("-")) for edge in edges.split()], type_check=False)


def cycles():
    silent, block = nir.LI(1e-3 * ONE, 5 * ONE, 0.1 * ONE), graph("input-x x-y y-output", x=lif(), y=weights())
    any_lif = nir.LIF(1e-3 * ONE, 5 * ONE, 0.1 * ONE, ONE, -0.1 * ONE)
    return {
        "two neurons": graph(
            "input-a a-w w-b b-v v-a b-output a-output", a=lif(), b=lif(0.8, 0.3), w=weights(), v=weights()
        ),
        "three neurons": graph("input-a a-b b-c c-a b-a c-b c-output", a=lif(), b=lif(), c=lif()),
        "itself": graph("input-a a-a a-output", a=lif()),
        "two weights": graph("input-a a-w w-v v-a a-output", a=lif(), w=weights(), v=weights()),
        "the weights are the output": graph("input-a a-w w-a w-output", a=lif(), w=weights()),
        "a bias": graph("input-a a-b b-w w-a b-output", a=lif(), b=lif(), w=weights(0.2)),
        "any values": graph("input-a a-w w-a a-output", a=any_lif, w=weights()),
        "an integrator and a threshold": graph(
            "input-a a-t t-w w-a t-output", a=silent, t=nir.Threshold(0.4 * ONE), w=weights()
        ),
        "a membrane": graph("input-a a-w w-a a-output", a=silent, w=nir.Scale(-0.3 * ONE)),
        "through a subgraph": graph("input-s s-b b-s b-output", s=block, b=lif()),
        "a delay": graph("input-a a-d d-w w-a a-output", a=lif(), d=delay(1, 2, 3), w=weights()),
        "a delay of less": graph("input-a a-d d-w w-a a-output", a=lif(), d=delay(0, 0.2, 3), w=weights()),
        "a delay with an input": graph("input-d a-d d-w w-a a-output d-output", a=lif(), d=delay(1, 2, 3), w=weights()),
        "two delays": graph(
            "input-a a-d d-e e-w w-a a-output", a=lif(), d=delay(1, 2, 3), e=delay(3, 2, 1), w=weights()
        ),
        "delays alone": graph("input-d d-w w-d d-output", d=delay(1, 2, 3), w=nir.Scale(0.5 * ONE)),
        "names": graph("input-a.1 a.1-é/ü é/ü-b b-a.1 b-output", **{"a.1": lif(), "é/ü": weights(), "b": lif()}),
    }


def test_cycles_go_out_and_come_back_the_same(tmp_path):
    x = torch.rand(60, 2, 3) * 1.5
    for name, given in cycles().items():
        net = snn.import_from_nir(given)
        wanted = outputs(net, x)
        assert len(wanted.unique()) > 1, name
        again = snn.import_from_nir(through_file(snn.export_to_nir(net, x[0]), tmp_path))
        assert torch.equal(outputs(again, x), wanted), name
        third = snn.import_from_nir(snn.export_to_nir(again, x[0]), reset="zero")  # as any reader of NIR
        assert torch.allclose(outputs(third, x), wanted, atol=1e-5), name


def test_a_delay_in_a_cycle_takes_as_many_steps_as_it_has():
    """A spike comes back at once in continuous time, so one step later at least."""
    for steps, period in ((0, 1), (1, 1), (2, 2), (5, 5)):
        node = nir.LIF(DT * ONE, ONE, 0 * ONE, 0.5 * ONE)  # fires for each spike that it gets
        for edges in ("input-a a-d d-w w-a a-output", "input-a a-w w-d d-a a-output"):
            net = snn.import_from_nir(graph(edges, a=node, d=delay(*[steps] * 3), w=nir.Linear(np.eye(3))))
            x = torch.zeros(12, 1, 3)
            x[0] = 1.0
            fired = outputs(net, x)[:, 0, 0].nonzero().flatten().tolist()
            assert fired == list(range(0, 12, period)), (steps, edges)
    net = snn.import_from_nir(graph("input-a a-d d-a a-output", a=node, d=delay(2, 2, 2)))
    nodes = snn.export_to_nir(net, torch.rand(1, 3)).nodes
    assert np.allclose(nodes["d"].delay, 2 * DT)
    mixed = graph("input-d a-d d-a a-output", a=node, d=delay(0, 1, 2))
    with pytest.raises(ValueError, match=r"'d' \(Delay\) is in a cycle.*others by more; delay all by a step or more"):
        snn.import_from_nir(mixed)


def test_two_delays_in_a_cycle_take_as_many_steps_as_both_have(tmp_path):
    node = nir.LIF(DT * ONE, ONE, 0 * ONE, 0.5 * ONE)  # fires for each spike that it gets
    x = torch.zeros(13, 1, 3)
    x[0] = 1.0
    for one, two, period in ((0, 0, 1), (0, 1, 1), (1, 0, 1), (0, 2, 2), (2, 0, 2), (1, 2, 3), (2, 2, 4)):
        given = graph("input-a a-d d-e e-a a-output", a=node, d=delay(*[one] * 3), e=delay(*[two] * 3))
        net = snn.import_from_nir(given)
        wanted = list(range(0, 13, period))
        assert outputs(net, x)[:, 0, 0].nonzero().flatten().tolist() == wanted, (one, two)
        back = through_file(snn.export_to_nir(net, x[0]), tmp_path)
        assert np.allclose(back.nodes["d"].delay, one * DT), (one, two)
        assert np.allclose(back.nodes["e"].delay, two * DT), (one, two)
        assert outputs(snn.import_from_nir(back), x)[:, 0, 0].nonzero().flatten().tolist() == wanted, (one, two)


class FedBack(nn.Module):
    """A layer and a spiking LSTM, whose spikes come back to the layer's sum one step later."""

    def __init__(self, layer, lstm, back):
        super().__init__()
        self.layer, self.lstm, self.back, self.spk = layer, lstm, back, None

    def forward(self, x):
        x = self.layer(x)
        out = self.lstm(x if self.spk is None else x + self.back(self.spk))
        self.spk = out[0] if isinstance(out, tuple) else out
        return self.spk


def test_a_spiking_lstm_in_a_larger_cycle_is_its_neuron(tmp_path):
    linear, conv = partial(nn.Linear, bias=False), partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)
    hidden = {"threshold": 0.03, "init_hidden": True}
    for make, lstm, shape in (
        (linear, snn.SLSTM(4, 5, **hidden), (4,)),
        (conv, snn.SConv2dLSTM(4, 5, 3, **hidden), (4, 6, 6)),
    ):
        net, x = FedBack(make(4, 4), lstm, make(5, 4)), torch.randn(20, 2, *shape)
        with torch.no_grad():
            wanted = torch.stack([net(x_t) for x_t in x])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = snn.export_to_nir(nn.Sequential(net.layer, lstm), x[0], allow_approximate=True)
            sent = snn.export_to_nir(nn.Sequential(lstm, net.back), x[0], allow_approximate=True)
        given.nodes["back"] = sent.nodes["1"]
        given.edges += [("1.threshold", "back"), ("back", "1.w_in")]
        again = snn.import_from_nir(through_file(given, tmp_path))
        assert any(type(layer) is type(lstm) for layer in again.modules())
        assert 0 < wanted.mean() < 1
        assert torch.equal(outputs(again, x), wanted)
        with pytest.warns(UserWarning, match="'1' .*LSTM.*output values differ"):
            third = snn.export_to_nir(again, x[0], allow_approximate=True)
        assert torch.equal(outputs(snn.import_from_nir(through_file(third, tmp_path)), x), wanted)


def test_a_target_refuses_cycles_that_its_reader_is_not_known_to_run():
    net = snn.import_from_nir(cycles()["two neurons"])
    with pytest.raises(ValueError, match=r"'a', 'b', 'v', 'w' form a cycle; Norse 1.1.0 is known to run only"):
        snn.export_to_nir(net, torch.rand(1, 3), target="norse")
