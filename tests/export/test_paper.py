"""The graphs and traces of the NIR paper, which are not part of the project: SPIKELOOM_DATA names their folder."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import spikeloom as snn

from .graphs import outputs

DATA = Path(os.environ.get("SPIKELOOM_DATA", "")) / "nir"
pytestmark = pytest.mark.skipif(
    not (os.environ.get("SPIKELOOM_DATA") and DATA.is_dir()),
    reason="the NIR paper's files are not here; set SPIKELOOM_DATA to a folder that contains nir/",
)


def traces(name):
    """Input, membrane and spikes, each [T]."""
    return np.loadtxt(DATA / f"{name}.csv", delimiter=",").T


def test_the_lif_gives_the_traces_of_the_platforms_within_their_spread():
    net = snn.import_from_nir(DATA / "lif_norse.nir", dt=1e-4)
    drive, _, wanted = traces("lif_norse")
    x = torch.tensor(drive, dtype=torch.float32).view(-1, 1, 1)
    spk = outputs(net, x).flatten().numpy()
    counts = [int((traces(path.stem)[2] > 0).sum()) for path in sorted(DATA.glob("lif_*.csv"))]
    assert min(counts) <= spk.sum() <= max(counts)
    at = np.flatnonzero(wanted > 0)
    assert len(at) == spk.sum()
    assert np.abs(np.flatnonzero(spk) - at).max() <= 1


def test_the_convolutional_network_loads_and_runs():
    net = snn.import_from_nir(DATA / "cnn_sinabs.nir")
    x = (torch.rand(20, 2, 2, 34, 34) < 0.2).float()
    spk = outputs(net, x)
    assert spk.shape == (20, 2, 10)
    assert set(spk.unique().tolist()) <= {0.0, 1.0}
    neurons = [module for module in net.modules() if isinstance(module, snn.Leaky)]
    assert len(neurons) == 5
    assert all(bool((neuron.beta == 1).all()) for neuron in neurons)


@pytest.mark.parametrize("name", ["bias_zero", "noBias_subtract"])
def test_the_braille_networks_load_and_run_flat_and_with_subgraphs(name):
    reset = "subtract" if "subtract" in name else "zero"
    flat = snn.import_from_nir(DATA / f"braille_noDelay_{name}.nir", reset=reset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its edges name a node by another name
        nested = snn.import_from_nir(DATA / f"braille_noDelay_{name}_subgraph.nir", reset=reset)
    x = (torch.rand(50, 3, 12) < 0.3).float()
    spk = outputs(flat, x)
    assert spk.shape == (50, 3, 7)
    assert 0 < spk.sum() < spk.numel()
    assert torch.equal(outputs(nested, x), spk)
    assert sum(isinstance(module, snn.RSynaptic) for module in flat.modules()) == 1


def test_the_other_graphs_load():
    for name in ("lif_rockpool", "two_lif_neurons"):
        net = snn.import_from_nir(DATA / f"{name}.nir")
        assert net(torch.ones(1, 1))[0].shape == (1, 1)
