"""Operations of neurons from their equations, and estimates of energy that can be worked out by hand."""

import json
import sys

import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom import ops


def test_operations_are_counted_on_the_equation():
    @snn.cell
    def TwoWays(x, mem, w, *, beta, threshold):
        mem = beta * mem + x - w  # 1 multiply, 2 add
        spk = ops.spike(mem - threshold)  # 1 compare
        w = ops.where(mem > 0.5, ops.exp(-mem), w)  # 2 compare, 1 function, 1 add
        return spk, mem - ops.detach(spk) * threshold, w  # 1 multiply, 1 add

    count = snn.metrics.neuron_operations
    assert count(TwoWays(beta=0.9, threshold=1.0)) == {"add": 4, "multiply": 2, "compare": 3, "function": 1}
    # beta * mem + x - R * threshold; R, a comparison, is known from the last step
    expected = {
        "subtract": {"add": 2, "multiply": 2, "compare": 1},
        "zero": {"add": 2, "multiply": 2, "compare": 1},
        "none": {"add": 1, "multiply": 1, "compare": 1},
    }
    for reset, operations in expected.items():
        assert count(snn.Leaky(beta=0.9, reset_mechanism=reset)) == operations
        assert count(snn.Leaky(beta=0.9, reset_mechanism=reset, decay="sigmoid", learn_beta=True)) == operations
    assert count(snn.Leaky(beta=0.9, graded_spikes_factor=0.5))["multiply"] == 3
    assert count(snn.Leaky(beta=0.9, spike_grad=lambda u: (u > 0).float())) == expected["subtract"]
    assert count(snn.Synaptic(alpha=0.5, beta=0.9)) == {"add": 3, "multiply": 3, "compare": 1}
    assert count(snn.RLeaky(beta=0.9, V=0.5, all_to_all=False)) == {"add": 3, "multiply": 3, "compare": 1}
    assert count(snn.SLSTM(2, 3, threshold=0.1))["function"] == 5
    with pytest.raises(TypeError, match="pass a neuron"):
        count(nn.ReLU())


def test_an_equation_that_cannot_be_traced_is_noted():
    @snn.cell(loop=True)
    def Branching(x, mem, *, beta):
        mem = beta * mem + x if x.sum() > 0 else mem
        return ops.spike(mem - 1.0), mem

    net = nn.Sequential(nn.Linear(2, 3), Branching(beta=0.5, init_hidden=True))
    with pytest.raises(ValueError, match="Branching cannot be counted"):
        snn.metrics.neuron_operations(net[1])
    measured = snn.metrics.measure(net, torch.rand(4, 1, 2))
    assert measured.neuron_operations["Neuron Dense Ops"] == 0
    assert any("Branching" in note for note in measured.notes)


def test_methods_that_are_not_in_the_equation_are_noted():
    class Own(snn.Leaky):
        def _base_state_function(self, x):
            return 0.5 * self.mem + x

    (note,) = snn.metrics.measure(nn.Sequential(Own(beta=0.5, init_hidden=True)), torch.rand(3, 2, 4)).notes
    assert note.startswith("'0': its operations are those of its equation alone, and ")


def test_conventions():
    """NeuroBench's constants for the neurons that it knows; equations for the others, or for all."""
    net = nn.Sequential(nn.Linear(2, 3), snn.Synaptic(alpha=0.5, beta=0.5, reset_mechanism="zero", init_hidden=True))
    other = nn.Sequential(nn.Linear(2, 3), snn.ALIF(beta=0.5, init_hidden=True))
    x, per_step = torch.rand(4, 2, 2), sum(snn.metrics.neuron_operations(other[1]).values())
    for model, convention, operations in (
        (net, "neurobench", 8),
        (net, "equation", 7),
        (other, "neurobench", per_step),
    ):
        with snn.backend("loop"):
            measured = snn.metrics.measure(model, x, convention=convention)
        assert measured.convention == convention
        assert measured.neuron_operations["Neuron Dense Ops"] == 4 * 3 * operations


def always_firing() -> nn.Sequential:
    """Two layers whose inputs are all spikes, and whose neurons always fire: 2 -> 3 -> 2."""
    net = nn.Sequential(
        *(nn.Linear(2, 3), snn.Leaky(beta=1.0, init_hidden=True)),
        *(nn.Linear(3, 2), snn.Leaky(beta=1.0, init_hidden=True, output=True)),
    )
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(5.0)
    return net


def test_energy_is_operations_times_coefficients():
    measured = snn.metrics.measure(always_firing(), torch.ones(10, 4, 2))
    (_, first, _, second), per_update = measured.layers, snn.metrics.neuron_operations(snn.Leaky(beta=1.0))
    assert (measured.activation_sparsity, measured.synaptic_operations["Effective_ACs"]) == (0.0, 10 * 12)
    energy = measured.energy(snn.metrics.Coefficients("mine", "a test", add=2.0, multiply=5.0))
    update = 2 * (per_update["add"] + per_update["compare"]) + 5 * per_update.get("multiply", 0)
    assert energy.acs == 10 * 12 * 2
    assert energy.macs == 0
    assert energy.neurons == (first.membrane_updates + second.membrane_updates) * update
    assert energy.total == energy.acs + energy.neurons == pytest.approx(sum(energy.by_layer.values()))
    assert energy.ann == 12 * 7
    assert measured.energy(energy.coefficients, ann_passes=10).ann == 10 * 12 * 7
    assert energy.activity == 1.0


def test_at_the_break_even_activity_both_cost_the_same():
    """One layer, no neuron costs: half of the inputs fire, and the ANN makes as many passes as it takes."""
    net = nn.Sequential(nn.Linear(4, 3, bias=False), snn.Leaky(beta=1.0, init_hidden=True))
    x = torch.zeros(8, 2, 4)
    x[..., :2] = 1.0
    measured = snn.metrics.measure(net, x)
    free = snn.metrics.Coefficients("free updates", "a test", add=1.0, multiply=3.0, update=0.0)
    energy = measured.energy(free)  # 8 steps * 12 * 0.5 = 48 against 12 * 4 = 48
    assert energy.activity == energy.break_even == 0.5
    assert energy.total == energy.ann
    assert "costs less below an activity of 50.0%" in str(energy)
    assert measured.energy(free, ann_passes=8).break_even == 1.0
    assert "costs less at any activity" in str(measured.energy(free, ann_passes=8))
    dear = snn.metrics.Coefficients("dear", "a test", add=1.0, multiply=3.0, update=1e6)
    assert measured.energy(dear).break_even == 0.0
    assert "costs more at any activity" in str(measured.energy(dear))


def test_coefficients_are_published_and_named():
    table = snn.metrics.COEFFICIENTS
    assert {name: (c.mac, c.ac) for name, c in table.items() if name.startswith("45nm")} == {
        "45nm float32": (4.6, 0.9),
        "45nm float16": (1.5, 0.4),
        "45nm int32": (3.2, 0.1),
        "45nm int8": (0.23, 0.03),
    }
    measured = snn.metrics.measure(always_firing(), torch.rand(3, 2, 2))
    for name, coefficients in table.items():
        energy = measured.energy(name)
        assert coefficients.source in str(energy)
        assert "leaves out" in str(energy)
        assert (energy.ann is None) == (energy.break_even is None) == (name in ("Loihi", "TrueNorth"))
    assert "no multiply-accumulate operations" in str(measured.energy("Loihi"))
    for wrong, message in (
        (lambda: measured.energy("3nm"), "'45nm float32'"),
        (lambda: measured.energy(ann_passes=0), "ann_passes is 0"),
        (lambda: snn.metrics.Coefficients("c", "s", add=-1.0, multiply=1.0), "add is -1.0"),
        (lambda: snn.metrics.Coefficients("c", "s", add=1.0), "pass multiply"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_table_and_json(tmp_path):
    measured = snn.metrics.measure(always_firing(), torch.ones(10, 4, 2), torch.ones(4, dtype=torch.int64))
    text = str(measured)
    assert "4 samples of 10 steps" in text
    assert "classification accuracy" in text
    assert repr(measured) == text
    assert [line.split()[:2] for line in text.splitlines() if line[:1].isdigit()][1:5] == [
        ["0", "Linear"],
        ["1", "Leaky"],
        ["2", "Linear"],
        ["3", "Leaky"],
    ]
    read = json.loads(measured.to_json(tmp_path / "measured.json"))
    assert json.loads((tmp_path / "measured.json").read_text()) == read == json.loads(json.dumps(measured.to_dict()))
    assert read["layers"][0]["effective_acs"] == 60
    assert read["energy"]["unit"] == "pJ"


def test_plot(monkeypatch):
    pytest.importorskip("matplotlib")
    measured = snn.metrics.measure(always_firing(), torch.ones(10, 4, 2))
    activity, operations, costs = measured.plot("7nm int8").axes
    assert [bar.get_width() for bar in activity.patches] == [0, 1, 0, 1]
    assert [bar.get_width() for bar in operations.containers[1]] == [60, 0, 60, 0]
    assert costs.get_title() == "energy, 7nm int8"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"spikeloom\[plot\]"):
        measured.plot()


def test_a_network_without_weights_or_spikes():
    alone = snn.metrics.measure(snn.Leaky(beta=0.5, init_hidden=True), torch.rand(4, 2, 3))
    assert alone.connection_sparsity is None
    assert alone.energy().activity is None
    assert alone.layers[0].path == ""
    ann = snn.metrics.measure(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.rand(2, 3) + 0.1, steps=1)
    assert ann.synaptic_operations == {"Effective_MACs": 12.0, "Effective_ACs": 0.0, "Dense": 12.0}
    assert ann.membrane_updates == 0
    assert ann.energy().total == ann.energy().ann == pytest.approx(12 * 4.6)
    with pytest.raises(TypeError, match="parameter_count got int"):
        snn.metrics.parameter_count(3)
