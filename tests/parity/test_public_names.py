"""Attributes and module paths that public code reads, beside those of snnTorch."""

import importlib
import subprocess
import sys
from typing import Any

import pytest
import torch

import spikeloom as snn

from .running import snntorch

READ = ("surrogate_disable", "_reset_mechanism", "init_hidden", "output", "inhibition", "state_quant")
FEEDBACK = ("linear_features", "conv2d_channels", "kernel_size", "learn_recurrent", "all_to_all")
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "Leaky": ("Leaky", {"beta": 0.5, "surrogate_disable": True}),
    "Lapicque": ("Lapicque", {"beta": 0.5, "reset_mechanism": "zero"}),
    "Synaptic": ("Synaptic", {"alpha": 0.5, "beta": 0.5, "reset_mechanism": "none"}),
    "Alpha": ("Alpha", {"alpha": 0.9, "beta": 0.5}),
    "SLSTM": ("SLSTM", {"input_size": 2, "hidden_size": 3, "threshold": 0.1, "surrogate_disable": True}),
    "SConv2dLSTM": ("SConv2dLSTM", {"in_channels": 1, "out_channels": 2, "kernel_size": 3, "threshold": 0.1}),
    "StateLeaky": ("StateLeaky", {"beta": 0.5, "channels": 3}),
    "RLeaky, linear": ("RLeaky", {"beta": 0.5, "linear_features": 3}),
    "RLeaky, convolution": ("RLeaky", {"beta": 0.5, "conv2d_channels": 2, "kernel_size": (3, 5)}),
    "RLeaky, one to one": ("RLeaky", {"beta": 0.5, "all_to_all": False, "learn_recurrent": False}),
    "RSynaptic": ("RSynaptic", {"alpha": 0.5, "beta": 0.5, "linear_features": 3, "learn_recurrent": False}),
}


@pytest.mark.parametrize("name", MADE)
def test_attributes_that_public_code_reads(name):
    kind, options = MADE[name]
    ours, theirs = (getattr(library, kind)(**options) for library in (snn, snntorch))
    for attribute in (*READ, *(FEEDBACK if kind.startswith("R") else ())):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute


@pytest.mark.parametrize("make", [snn.ALIF, snn.IF, lambda: snn.NoisyLeaky(0.9), lambda: snn.LeakyParallel(2, 3)])
def test_neurons_of_ours_have_the_common_ones_too(make):
    assert [getattr(make(), name) for name in READ[:2]] == [False, "subtract"]


def test_the_reset_is_read_as_it_is_now():
    lif = snn.Leaky(0.5)
    lif.reset_mechanism = "zero"
    assert lif._reset_mechanism == "zero"


# -- a buffer with the name of a state --------------------------------------------------------------------------------


def registering(library: Any) -> Any:
    class Registering(library.Leaky):
        def __init__(self, size: int, **given: Any):
            super().__init__(0.5, **given)
            self.register_buffer("mem", torch.full((size,), 0.5), False)
            self.register_buffer("scale", torch.tensor(2.0))

    return Registering


@pytest.mark.parametrize("hidden", [False, True])
def test_a_subclass_may_register_its_membrane_as_a_buffer(hidden):
    ours, theirs = (registering(library)(4, init_hidden=hidden, output=True) for library in (snn, snntorch))
    x = torch.rand(4)
    for _ in range(3):
        for got, wanted in zip(ours(x), theirs(x), strict=True):
            assert torch.equal(got, wanted)
    assert "scale" in ours.state_dict()
    assert list(ours.state_dict()) == [key for key in theirs.state_dict() if key != "mem"]
    assert ours.double().mem.dtype == torch.float64


def test_a_buffer_of_none_is_a_state_of_nothing():
    lif = snn.Synaptic(0.5, 0.5)
    lif.register_buffer("syn", None)
    assert lif(torch.rand(2))[0].shape == (2,)


# -- module paths -----------------------------------------------------------------------------------------------------

PATHS = {
    "_neurons": (
        *("alpha.Alpha", "associative.AssociativeLeaky", "deltaleaky.DeltaLeaky", "lapicque.Lapicque", "leaky.Leaky"),
        *("leakyparallel.LeakyParallel", "linearleaky.LinearLeaky", "neurons.LIF", "neurons.SpikingNeuron"),
        *("rleaky.RLeaky", "rsynaptic.RSynaptic", "sconv2dlstm.SConv2dLSTM", "slstm.SLSTM", "stateleaky.StateLeaky"),
        "synaptic.Synaptic",
    ),
    "_layers": ("bntt.BatchNormTT1d", "bntt.BatchNormTT2d", "graded_spikes.GradedSpikes"),
}


@pytest.mark.parametrize(("package", "path"), [(package, path) for package, paths in PATHS.items() for path in paths])
def test_the_module_paths_of_snntorch_can_be_imported(package, path):
    module, name = path.split(".")
    for library in ("snntorch", "spikeloom"):
        root = importlib.import_module(library)
        found = importlib.import_module(f"{library}.{package}.{module}")
        assert getattr(found, name) is getattr(root, name)
        assert getattr(importlib.import_module(f"{library}.{package}"), name) is getattr(root, name)
        assert hasattr(getattr(root, module), name)


def test_a_module_path_may_be_the_first_that_is_imported():
    script = "import spikeloom._neurons.leaky, spikeloom._layers.bntt; print(spikeloom._neurons.leaky.Leaky(0.5))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Leaky(beta=0.5)"


def test_heaviside_has_its_present_home():
    from spikeloom.surrogate import Heaviside

    assert Heaviside.apply(torch.tensor([-1.0, 1.0])).tolist() == [0.0, 1.0]


def test_another_name_is_still_none():
    with pytest.raises(AttributeError, match="no attribute 'leeky'"):
        _ = snn.leeky
