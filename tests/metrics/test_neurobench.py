"""The metrics equal NeuroBench's to the last digit: its answers, stored and live, and its definitions in loops."""

import importlib.util
import json
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

import spikeloom as snn

from .networks import NETWORKS, UNCOUNTED, UNSEEN_BY_ALIAS, by_steps, each, loader, made

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
FUSED = ("Leaky, subtract", "nested", "RLeaky")


def differences(ours: dict, theirs: dict, without: tuple[str, ...]) -> dict:
    """The metrics of NeuroBench that differ, without those that it cannot compute."""
    return {m: (ours[m], value) for m, value in theirs.items() if ours[m] != value and m not in without}


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_neurobench_of_snntorch(name):
    """For any length of a chunk, and in a loop over steps."""
    net, without = made(name, snn), ("NeuronOperations",) if name in UNCOUNTED else ()
    with nullcontext() if name in FUSED else snn.backend("loop"):  # compiling takes longer than the test
        whole = snn.metrics.measure(net, loader(name), time_first=False)
        in_chunks = snn.metrics.measure(net, loader(name), time_first=False, chunk=3)
        in_steps = snn.metrics.measure(net, loader(name), time_first=False, forward=by_steps)
    assert differences(whole.neurobench(), GOLDEN[name], without) == {}
    assert in_chunks.to_dict() == in_steps.to_dict() == whole.to_dict()


@pytest.mark.skipif(importlib.util.find_spec("neurobench") is None, reason="neurobench is not installed")
@pytest.mark.parametrize("library", ["snntorch", "spikeloom"])
def test_equals_neurobench_itself(library):
    """NeuroBench measures snnTorch's neurons, and those of spikeloom by the alias."""
    command = [sys.executable, "-m", "tests.metrics.neurobench_itself", library]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    answers = json.loads(done.stdout)
    assert list(answers) == list(GOLDEN) == list(each())
    for name, theirs in answers.items():
        unseen = ("SynapticOperations",) if library == "spikeloom" and name in UNSEEN_BY_ALIAS else ()
        assert differences(GOLDEN[name], theirs, unseen) == {}, name


def test_the_page_shows_these_values():
    """Every number of the table of docs/metrics.md, in pairs of rows."""
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    table = re.findall(r"^\| ([^|]*) \| (NeuroBench|spikeloom) \| ((?:[\d.]+(?: \| )?){7}) \|$", page, re.M)
    assert [name for name, by, _ in table if by == "NeuroBench"] == list(GOLDEN)
    for (name, _, theirs), (_, by, ours) in zip(table[::2], table[1::2], strict=True):
        metrics, shown = GOLDEN[name], [float(value) for value in theirs.split("|")]
        operations = metrics["SynapticOperations"]
        expected = [metrics["ConnectionSparsity"], metrics["ActivationSparsity"], *operations.values()]
        assert shown[:6] == [*expected, metrics["MembraneUpdates"]]
        assert by == "spikeloom"
        assert ours.split("|")[:6] == theirs.split("|")[:6]
        assert (ours == theirs) == (name not in UNCOUNTED)


# -- by definition -----------------------------------------------------------------------------------------------------


def synaptic_operations(layer: nn.Linear, x: torch.Tensor) -> int:
    """Weights that are not zero and meet an input that is not zero, counted one by one."""
    rows, weight = x.tolist(), layer.weight.tolist()
    return sum(1 for row in rows for out in weight for a, w in zip(row, out, strict=True) if a and w)


def test_equals_the_definitions_on_a_graded_input():
    """Two layers with real weights; every step of every batch is counted by plain loops."""
    torch.manual_seed(7)
    first, second = snn.Leaky(beta=0.9, init_hidden=True), snn.Leaky(beta=0.8, init_hidden=True, output=True)
    net = nn.Sequential(nn.Linear(9, 8), first, nn.Linear(8, 3), second)
    with torch.no_grad():
        net[0].weight[:, 2], net[2].weight[1] = 0, 0
        net[0].bias += 0.5
    x = torch.randn(6, 4, 9) * (torch.rand(6, 4, 9) < 0.5)
    x[2] = (x[2] > 0).float()  # one step of spikes
    total = {"macs": 0, "acs": 0, "fired": 0, "updates": 0, "operations": 0}
    before: list[torch.Tensor | None] = [None, None]
    for step in x:
        inner = first(net[0](step))
        spk, _ = second(net[2](inner))
        graded = not ((step == 0) | (step.abs() == 1)).all()
        total["macs" if graded else "acs"] += synaptic_operations(net[0], step)
        total["acs"] += synaptic_operations(net[2], inner)
        total["fired"] += int(inner.sum() + spk.sum())
        for i, neuron in enumerate((first, second)):
            changed = neuron.mem.numel() if before[i] is None else int((neuron.mem != before[i]).sum())
            total["updates"], before[i] = total["updates"] + changed, neuron.mem.clone()
    measured = snn.metrics.measure(net, x)
    assert total["macs"]
    assert total["fired"]
    assert measured.synaptic_operations == {
        "Effective_MACs": total["macs"] / 4,
        "Effective_ACs": total["acs"] / 4,
        "Dense": 6 * (9 * 8 + 8 * 3),
    }
    assert measured.membrane_updates == total["updates"] / 4
    assert measured.activation_sparsity == (6 * 4 * 11 - total["fired"]) / (6 * 4 * 11)
    assert measured.neuron_operations["Effective Neuron Ops"] == total["updates"] * 4 / 4
    assert measured.connection_sparsity == round((8 + 8) / (72 + 24), 4)


def test_recurrent_cells_count_gates_as_defined():
    """LSTM, GRU and RNN cells in a network that loops over time itself."""

    class Recurrent(nn.Module):
        def __init__(self, cell):
            super().__init__()
            self.cell = cell

        def forward(self, x):
            state, seen = None, []
            for x_t in x:
                state = self.cell(x_t, state)
                seen.append(state[0] if isinstance(state, tuple) else state)
            return torch.stack(seen)

    x = (torch.rand(3, 2, 4) < 0.5).float()
    nonzero, steps = int(x.sum()), [int(x_t.sum()) for x_t in x]
    with_input = [int((x_t.sum(1) > 0).sum()) for x_t in x]
    for cell, gates in ((nn.RNNCell(4, 5), 1), (nn.LSTMCell(4, 5), 4), (nn.GRUCell(4, 5), 3)):
        measured = snn.metrics.measure(Recurrent(cell), x, forward=lambda net, x: net(x))
        products = gates * 5 * (nonzero + 2 * 5 * 2)  # of the inputs, and of the states of two steps
        assert min(steps) > 0
        assert min(with_input) > 0
        own = {1: 0, 4: 2 * 5 * 3 + 2 * 5 * 2 + 2 * 5 * 3}.get(gates)  # f * c, i * g, o * tanh(c)
        acs = measured.synaptic_operations["Effective_ACs"] * 2
        if own is not None:
            assert acs == products + own, cell
        else:
            assert products < acs <= products + 3 * 2 * 5 * 3, cell
