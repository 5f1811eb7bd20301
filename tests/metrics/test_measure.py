"""measure takes data in every form, counts the same in each, and leaves the network as it was."""

import copy
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import spikeloom as snn


def network(**options) -> nn.Sequential:
    neuron = snn.Leaky(beta=0.5, init_hidden=True)
    return nn.Sequential(nn.Linear(6, 8), neuron, nn.Linear(8, 3), snn.Leaky(beta=0.5, init_hidden=True, **options))


def spikes(steps: int = 12, rows: int = 8) -> torch.Tensor:
    return (torch.rand(steps, rows, 6) < 0.5).float()


def test_every_form_of_data_gives_the_same_counts():
    net, x, y = network(output=True), spikes(), torch.randint(0, 3, (8,))
    rows_first = TensorDataset(x.transpose(0, 1).contiguous(), y)
    forms = {
        "one batch": snn.metrics.measure(net, x, y),
        "a list": snn.metrics.measure(net, [(x, y)]),
        "a generator": snn.metrics.measure(net, (batch for batch in [[x, y]])),
        "a loader": snn.metrics.measure(net, DataLoader(rows_first, 8), time_first=False),
        "a tuple of inputs": snn.metrics.measure(net, (x,), y),
        "by steps": snn.metrics.measure(net, x, y, forward=lambda net, x: torch.stack([net(t)[0] for t in x])),
        "not strict": snn.metrics.measure(net, x, y, strict=False),
    }
    first = forms["one batch"].to_dict()
    assert {name: form.to_dict() == first for name, form in forms.items()} == dict.fromkeys(forms, True)
    assert forms["one batch"].samples == 8
    assert forms["one batch"].steps == 12
    without = snn.metrics.measure(net, x)
    assert without.classification_accuracy is None
    assert "ClassificationAccuracy" not in without.neurobench()
    assert without.synaptic_operations == forms["one batch"].synaptic_operations


def test_a_static_input_counts_at_every_step():
    net, x = network(output=True), torch.rand(4, 6)
    static, repeated = snn.metrics.measure(net, x, steps=10, chunk=4), snn.metrics.measure(net, x.expand(10, 4, 6))
    assert static.to_dict() == repeated.to_dict()
    assert static.layers[0].effective_macs == 10 * 6 * 8


def test_counts_do_not_depend_on_how_samples_are_batched():
    net, x, y = network(output=True), spikes(), torch.randint(0, 3, (8,))
    whole = snn.metrics.measure(net, x, y)
    parts = snn.metrics.measure(net, list(zip(x.split(3, 1), y.split(3), strict=True)))
    for layer, other in zip(whole.layers, parts.layers, strict=True):
        assert vars(layer) == vars(other)
    assert parts.classification_accuracy == pytest.approx(whole.classification_accuracy)


def test_kernels_count_as_torch_does(tuned):
    """Spikes, and values that are graded at some steps."""
    net, graded = network(output=True), torch.randn(12, 8, 6)
    graded[3:5] = graded[3:5].sign()
    by_torch = [snn.metrics.measure(net, x).to_dict() for x in (spikes(), graded)]
    torch.manual_seed(20)
    net, graded = network(output=True), torch.randn(12, 8, 6)
    graded[3:5] = graded[3:5].sign()
    tuned(counting_from=0)
    assert [snn.metrics.measure(net, x).to_dict() for x in (spikes(), graded)] == by_torch
    assert by_torch[1]["layers"][0]["effective_macs"] == 10 * 6 * 8
    assert by_torch[1]["layers"][0]["effective_acs"] == 96


def test_leaves_the_network_unchanged():
    net = nn.Sequential(network(), nn.Dropout(0.5))
    net[0].add_module("4", nn.BatchNorm1d(3))
    snn.unroll(net, spikes(3, 2))
    data = DataLoader(TensorDataset(spikes().transpose(0, 1)), 4, shuffle=True)
    before, state, seed = copy.deepcopy(net.state_dict()), net[0][1].mem, torch.get_rng_state()
    with snn.tap(net) as record:
        snn.metrics.measure(net, data, time_first=False)
    assert net.training
    assert net[0][4].training
    assert net[0][1].mem is state
    assert torch.equal(seed, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert record["0.1"].steps == 0
    assert not any(module._forward_hooks for module in net.modules())
    assert type(net[0][0]) is nn.Linear


def test_an_error_leaves_the_network_unchanged():
    net = network(output=True)
    with pytest.raises(RuntimeError) as raised:
        snn.metrics.measure(net, [(spikes(), None), (torch.rand(3, 2, 7), None)])
    assert "(in batch 2 of the measurement)" in raised.value.__notes__
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_a_network_with_its_own_loop_gets_the_advice_what_to_pass():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = snn.Leaky(beta=0.5)

        def forward(self, x):
            mem, seen = self.lif.init_leaky(), []
            for x_t in x:
                spk, mem = self.lif(x_t, mem)
                seen.append(spk)
            return torch.stack(seen)

    with pytest.raises(RuntimeError) as raised:
        snn.metrics.measure(Loop(), spikes())
    assert "forward=lambda net, x: net(x)" in raised.value.__notes__[-1]
    once = snn.metrics.measure(Loop(), spikes(), forward=lambda net, x: net(x))
    assert once.layers[0].neuron_steps == 12 * 6


def test_starts_every_batch_from_initial_states():
    net, x = network(output=True), spikes()
    once = snn.metrics.measure(net, x)
    snn.unroll(net, torch.rand(5, 8, 6))
    assert snn.metrics.measure(net, [x, x]).to_dict() == once.to_dict() | {"samples": 16}


def test_memory_is_that_of_a_chunk():
    """No layer sees more than a chunk of steps at a time, and nothing of it is kept."""
    seen: list[int] = []

    class Rows(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x

    net = nn.Sequential(Rows(), network(output=True))
    snn.metrics.measure(net, spikes(100, 2), torch.zeros(2, dtype=torch.int64), chunk=10)
    assert max(seen) == 10 * 2
    seen.clear()
    snn.metrics.measure(net, spikes(5000, 2))
    assert max(seen) == 4096


# -- predictions and scores --------------------------------------------------------------------------------------------


def test_predictions_and_scores():
    net, x = network(output=True), spikes()
    snn.utils.reset(net)
    spk, mem = (out.detach() for out in snn.unroll(net, x))
    snn.utils.reset(net)
    y = spk.sum(0).argmax(1)
    y[0] = (y[0] + 1) % 3
    assert snn.metrics.measure(net, x, y).classification_accuracy == 7 / 8
    target = torch.rand(8, 3)
    ways = {"sum": spk.sum(0), "last": spk[-1]}
    for predict, predicted in [*ways.items(), (lambda out: out[1].mean(0), mem.mean(0))]:
        measured = snn.metrics.measure(net, x, target, predict=predict, chunk=5)
        assert measured.mse == pytest.approx(float((predicted - target).square().mean()))
        absolute = 200 * ((predicted - target).abs() / (predicted.abs() + target.abs())).mean()
        assert measured.smape == pytest.approx(float(absolute))
        spread = (target - target.mean(0)).square().sum(0)
        assert measured.r2 == pytest.approx(float((1 - (predicted - target).square().sum(0) / spread).mean()), rel=1e-4)
    every = torch.rand(12, 8, 3)
    assert snn.metrics.measure(net, x, every).mse == pytest.approx(float((spk - every).square().mean()))
    turned = snn.metrics.measure(net, x.transpose(0, 1), every.transpose(0, 1), time_first=False)
    assert turned.mse == pytest.approx(float((spk - every).square().mean()))
    only = snn.metrics.measure(net, x, target, predict="sum", scores=["mse"])
    assert only.mse is not None
    assert only.smape is None
    assert only.r2 is None


def test_targets_may_be_integers_and_scores_a_single_name():
    net, x = network(output=True), spikes()
    target = torch.randint(0, 4, (8, 3))
    options = [{"predict": "sum"}, {"predict": lambda out: out[0].sum(0).long()}]
    wanted = snn.metrics.measure(net, x, target.float(), scores=["mse", "r2"], **options[0])
    for each in options:
        got = snn.metrics.measure(net, x, target, scores=["mse", "r2"], **each)
        assert (got.mse, got.r2) == (wanted.mse, wanted.r2)
    only = snn.metrics.measure(net, x, target, scores="mse", predict="sum")
    assert (only.mse, only.smape, only.r2) == (wanted.mse, None, None)


def test_a_reset_that_needs_an_argument_is_not_called():
    class Own(nn.Sequential):
        def reset(self, batch):
            raise AssertionError

    class Plain(nn.Sequential):
        def reset(self, batch=None):
            calls.append(batch)

    assert snn.metrics.measure(Own(*network()), spikes()).samples == 8
    calls = []
    snn.metrics.measure(Plain(*network()), spikes())
    assert calls == [None]


def test_a_mean_is_weighted_by_the_samples_seen():
    """Also where a loader drops the last batch: its dataset has more samples than were measured."""
    net, x = network(output=True), spikes(12, 7)
    y = snn.unroll(net, x)[0].sum(0).argmax(1)
    data = TensorDataset(x.transpose(0, 1), y)
    dropped = snn.metrics.measure(net, DataLoader(data, 3, drop_last=True), time_first=False)
    assert dropped.classification_accuracy == 1.0
    assert dropped.samples == 6


def test_bar_over_batches(monkeypatch, capsys):
    pytest.importorskip("tqdm")
    snn.metrics.measure(network(), [spikes()] * 3, progress=True)
    assert "measuring" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"spikeloom\[progress\]"):
        snn.metrics.measure(network(), [spikes()], progress=True)


def test_what_is_not_counted_is_said():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.lif = nn.ConvTranspose1d(2, 2, 3), snn.Leaky(beta=0.5, init_hidden=True)

        def forward(self, x):
            return self.lif(self.up(x))

    (note,) = snn.metrics.measure(Both(), torch.rand(4, 2, 2, 5)).notes
    assert note == "The synaptic operations of 'up' (ConvTranspose1d) are not counted."
    parallel = snn.LeakyParallel(3, 4, weight_hh_enable=True)
    with snn.backend("loop"):
        assert "recurrent operations" in snn.metrics.measure(parallel, torch.rand(4, 2, 3)).notes[0]


def test_layers_of_this_package_are_counted():
    x = spikes(5, 2)
    delayed = nn.Sequential(snn.DelayedLinear(6, 4, 3), snn.Leaky(beta=0.5, init_hidden=True))
    parallel, linear = snn.LeakyParallel(6, 4, beta=0.5), snn.LinearLeaky(0.5, 6, 4)
    with snn.backend("loop"):
        for net in (delayed, parallel, linear):
            measured = snn.metrics.measure(net, x)
            assert measured.synaptic_operations["Effective_ACs"] * 2 == 4 * x.sum()
            assert measured.notes == ()


def test_bad_input_is_refused_in_a_sentence():
    net, x = network(output=True), spikes()
    for args, options, error, message in (
        (("net", x), {}, TypeError, "measure got str"),
        ((net, 3), {}, TypeError, "the data is a int"),
        ((net, "x"), {}, TypeError, "the data is a str"),
        ((net, []), {}, ValueError, "no batches"),
        ((net, [(x, x, x)]), {}, TypeError, "3 parts"),
        ((net, [{"x": x}]), {}, TypeError, "a batch has a dict"),
        ((net, [(3, x)]), {}, TypeError, "the x of a batch is a int"),
        ((net, [(x, [1, 2])]), {}, TypeError, "the targets of a batch are a list"),
        ((net, [(x, x)], x), {}, TypeError, "targets belong to a single batch"),
        ((net, torch.rand(3)), {}, ValueError, r"shape \(3,\)"),
        ((net, torch.rand(0, 2, 6)), {}, ValueError, "0 steps of 2"),
        ((net, torch.rand(3, 0, 6)), {}, ValueError, "3 steps of 0"),
        ((net, x[0]), {"steps": 0}, ValueError, "0 steps"),
        ((net, x[0]), {"steps": -1}, ValueError, "steps is -1"),
        ((net, x[0]), {"steps": 2.5}, ValueError, "steps is 2.5"),
        ((net, x), {"scores": "f1"}, ValueError, "no score 'f1'"),
        ((net, x), {"convention": "mine"}, ValueError, "'neurobench' or 'equation'"),
        ((net, x), {"predict": "best"}, ValueError, "'count', 'sum', 'last', 'all'"),
        ((net, x), {"chunk": 0}, ValueError, "chunk is 0"),
        ((net, x), {"scores": ["f1"]}, ValueError, "no score 'f1'"),
        ((net, x, torch.zeros(7).long()), {}, ValueError, r"predictions have shape \(8,\)"),
        ((net, x, torch.rand(8, 3)), {}, ValueError, r"predictions have shape \(12, 8, 3\)"),
        ((net, x, torch.rand(12, 8, 3)), {"scores": ["r2"]}, ValueError, r"\[N, C\]"),
        ((net, x, torch.rand(8, 3)), {"predict": lambda out: 3}, TypeError, "predict returned a int"),
    ):
        with pytest.raises(error, match=message):
            snn.metrics.measure(*args, **options)
