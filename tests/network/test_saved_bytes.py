"""How many bytes each neuron keeps for its backward, per neuron and step: the table of docs/memory.md."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import spikeloom as snn

from ..neurons.zoo import ZOO, made, sequence

ROOT = Path(__file__).parent.parent.parent
NEURONS = ["Leaky", "Synaptic", "RLeaky", "RSynaptic", "Lapicque", "Alpha", "NoisyLeaky", "DeltaLeaky", "SLSTM"]
NEURONS += ["RLeaky through Linear", "RSynaptic through Linear", "IF", "LI", "ParametricLIF", "ALIF", "AdLIF", "QIF"]
NEURONS += ["EIF", "Izhikevich", "ResonateFire", "CuBaLIF", "RALIF through Linear"]


def table() -> dict[str, tuple[int, int]]:
    """Of the page: bytes per neuron and step, the second number for a neuron that learns all it can."""
    rows = re.findall(r"^\| (`[^|]+) \| (\d+) \| (\d+) \|", (ROOT / "docs" / "memory.md").read_text(), re.M)
    return {
        name: (int(plain), int(learned)) for names, plain, learned in rows for name in re.findall("`([^`]+)`", names)
    }


def kept(name: str, steps: int, learn: bool) -> tuple[int, int]:
    """The bytes of all memory that autograd keeps of a run, without its input; and how many neurons there are."""
    lif = made(name, learn=learn, init_hidden=True)
    x = sequence(name, steps).requires_grad_()
    blocks: dict[int, torch.UntypedStorage] = {}

    def seen(t: Tensor) -> Tensor:
        blocks[t.untyped_storage().data_ptr()] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda t: t):
        out = snn.unroll(lif, x)
    blocks.pop(x.untyped_storage().data_ptr(), None)
    spk = out[0] if isinstance(out, tuple) else out
    return sum(block.nbytes() for block in blocks.values()), spk[0].numel()


@pytest.mark.parametrize("learn", [False, True], ids=["plain", "learning"])
@pytest.mark.parametrize("name", NEURONS)
def test_a_neuron_keeps_what_the_page_says(name: str, learn: bool):
    """The difference of two lengths, so that what does not grow with time is left out."""
    (short, neurons), (long, _) = kept(name, 4, learn), kept(name, 12, learn)
    assert (long - short) / (8 * neurons) == table()[name][learn]


def test_the_page_has_every_neuron():
    assert set(NEURONS) == set(table())
    assert {name.split()[0] for name in ZOO} - {name.split()[0] for name in NEURONS} == {"SConv2dLSTM"}


@pytest.mark.parametrize("name", ["Leaky", "Synaptic", "Lapicque", "Alpha", "IF", "AdLIF", "QIF", "EIF"])
def test_one_trace_is_all_that_is_kept_where_it_suffices(name: str):
    assert table()[name][0] == torch.float32.itemsize


@pytest.mark.parametrize(
    ("way", "steps", "most"),
    [pytest.param("chunks", "20000", 30, marks=pytest.mark.slow), ("checkpoint", "2000", 30)],
)
def test_the_example_trains_in_little_memory(way: str, steps: str, most: int):
    """Kept whole, 20,000 steps would take 260 MB, and their input 41."""
    pytest.importorskip("tqdm")
    command = [sys.executable, str(ROOT / "examples" / "long_sequence.py"), "--way", way, "--steps", steps]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    (grown,) = re.findall(r"grew by (\d+) MB", done.stdout)
    (right,) = re.findall(r"accuracy ([\d.]+)%", done.stdout)
    assert int(grown) < most
    assert float(right) > (70 if way == "chunks" else 25)
