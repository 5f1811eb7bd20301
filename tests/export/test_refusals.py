"""What NIR cannot express is refused by name, with the nearest that it can; or written approximately, with a report."""

import json

import nir
import numpy as np
import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom.export_nir import export_to_nir as as_snntorch_does

from .graphs import NIR_RESET, leaky, outputs

HIDDEN = {"init_hidden": True}


class Overridden(snn.Leaky):
    """A neuron with dynamics of its own."""

    def _base_state_function(self, input_):
        return super()._base_state_function(input_) * 0.5


class Doubled(snn.Leaky):
    """A neuron with a forward of its own."""

    def forward(self, x, mem=None):
        return super().forward(2 * x, mem)


class DoubledReadout(snn.LI):
    """A readout with a forward of its own."""

    def forward(self, x, mem=None):
        return super().forward(2 * x, mem)


class Absolute(nn.Linear):
    """A layer of torch with a forward of its own."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight.abs(), self.bias)


class Tripled(nn.Identity):
    def forward(self, x):
        return 3 * x


class LateTwice(snn.SynapticDelay):
    def forward(self, x):
        return 2 * super().forward(x)


def assigned():
    layer = nn.Linear(4, 4)
    layer.forward = torch.relu
    return layer


def hooked():
    neuron = snn.RLeaky(0.5, linear_features=4, **NIR_RESET)
    neuron.recurrent.register_forward_hook(lambda layer, args, out: out.relu())
    return neuron


REFUSED = {
    "a forward of its own .Doubled.;": lambda: Doubled(0.9, **NIR_RESET),
    "reset_mechanism='subtract'.*nearest is reset_mechanism='zero' and reset_delay=False": lambda: snn.Leaky(
        0.9, **HIDDEN
    ),
    "a reset one step after the spike.*reset_delay=False": lambda: snn.Leaky(0.9, reset_mechanism="zero", **HIDDEN),
    "one step after the spike": lambda: snn.Lapicque(0.9, reset_mechanism="zero", **HIDDEN),
    "graded spikes.*GradedSpikes": lambda: leaky(graded_spikes_factor=2.0),
    "negative threshold": lambda: leaky(threshold=-0.5),
    "state_quant is a user function": lambda: leaky(state_quant=torch.round),
    "overrides _base_state_function": lambda: Overridden(0.9, **NIR_RESET),
    "noise of NoisyLeaky.*nearest is Leaky": lambda: snn.NoisyLeaky(0.9, **NIR_RESET),
    "ALIF.*nearest is Leaky": lambda: snn.ALIF(**HIDDEN),
    "RALIF.*nearest is RLeaky": lambda: snn.RALIF(linear_features=4, **HIDDEN),
    "AdLIF.*nearest is ParametricLIF": lambda: snn.AdLIF(**HIDDEN),
    "Alpha.*nearest is Synaptic": lambda: snn.Alpha(0.9, 0.5, **HIDDEN),
    "CuBaLIF.*nearest is Synaptic": lambda: snn.CuBaLIF(**HIDDEN),
    "QIF.*nearest is leaky integrate-and-fire": lambda: snn.QIF(**HIDDEN),
    "EIF.*nearest": lambda: snn.EIF(**HIDDEN),
    "Izhikevich.*nearest": lambda: snn.Izhikevich(**HIDDEN),
    "ResonateFire.*nearest is Synaptic": lambda: snn.ResonateFire(**HIDDEN),
    "DeltaLeaky.*nearest is Leaky": lambda: snn.DeltaLeaky(0.5, beta=0.9, **HIDDEN),
}
ALWAYS = {
    "overrides the forward of Linear": lambda: Absolute(4, 4),
    "overrides the forward of Linear; write": assigned,
    "overrides the forward of Identity": Tripled,
    "overrides the forward of SynapticDelay": lambda: LateTwice(4, 2),
    "recurrent layer has a hook": hooked,
    "SLSTM.*nearest is a Linear and RSynaptic": lambda: snn.SLSTM(4, 4, threshold=0.1, **HIDDEN),
    "MaxPool1d.*nearest is AvgPool2d": lambda: nn.MaxPool1d(1),
    "BatchNorm1d.*fold it": lambda: nn.BatchNorm1d(4),
    "ReLU.*spiking neuron": lambda: nn.ReLU(),
    "DelayedLinear.*nearest is SynapticDelay": lambda: snn.DelayedLinear(4, 4, 2),
    "reshapes steps": lambda: nn.Unflatten(1, (2, 2)),
    "NIR has no primitive for it": lambda: nn.Softmax(1),
}


def test_neurons_are_refused_by_name_with_the_nearest():
    for match, make in {**REFUSED, **ALWAYS}.items():
        net = nn.Sequential(nn.Identity(), make())
        with pytest.raises(ValueError, match=f"'1' .*{match}" if match != "reshapes steps" else "'1' "):
            snn.export_to_nir(net, torch.rand(2, 4))


def test_approximations_say_how_many_values_differ():
    for match, make in REFUSED.items():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 4), make())
        with pytest.warns(UserWarning, match=f"approximate.*{match}.*of 800 output values differ over 100 steps"):
            graph = snn.export_to_nir(net, torch.rand(2, 4) * 3, allow_approximate=True)
        report = json.loads(graph.metadata["spikeloom"])["report"]
        assert report["values"] == 800
        assert 0 <= report["differing"] <= 800
    for make in ALWAYS.values():
        with pytest.raises(ValueError, match="'1'"):
            snn.export_to_nir(nn.Sequential(nn.Identity(), make()), torch.rand(2, 4), allow_approximate=True)


def test_the_report_is_right():
    net = nn.Sequential(nn.Linear(4, 4), snn.Leaky(0.9, init_hidden=True))
    x = torch.rand(40, 3, 4) * 3
    with pytest.warns(UserWarning, match="differ over 40 steps"):
        graph = snn.export_to_nir(net, x[0], allow_approximate=True, validation=x)
    here = outputs(net, x)
    there = outputs(snn.import_from_nir(graph, reset="zero"), x)
    report = json.loads(graph.metadata["spikeloom"])["report"]
    assert report["differing"] == (here != there).sum() > 0
    assert (report["spikes_here"], report["spikes_there"]) == (here.sum(), there.sum())
    assert torch.equal(outputs(snn.import_from_nir(graph), x), here)
    with pytest.raises(ValueError, match="validation has shape"):
        snn.export_to_nir(net, x[0], allow_approximate=True, validation=x[..., :2])


def test_own_neurons_export_by_their_equation():
    @snn.charge(decays=("keep",))
    def Half(x, mem, *, keep=0.75):
        return (keep * mem + 0.5 * x,)

    @snn.charge(recurrent=True)
    def Echo(x, mem, *, keep=0.75):
        return (keep * mem + x,)

    @snn.charge
    def Square(x, mem):
        return (0.5 * mem + x * x,)

    @snn.cell
    def Whole(x, mem, *, keep=0.75):
        mem = keep * mem + 0.5 * x
        return mem, mem

    graph = snn.export_to_nir(Half(**NIR_RESET), torch.rand(1, 3))
    (node,) = [node for node in graph.nodes.values() if isinstance(node, nir.LIF)]
    assert node.tau == pytest.approx(4e-4)
    assert node.r == pytest.approx(2.0)
    x = torch.rand(50, 2, 3) * 4
    assert torch.equal(outputs(snn.import_from_nir(graph), x), outputs(Half(**NIR_RESET), x))
    net = Echo(V=-0.5, all_to_all=False, **NIR_RESET)
    graph = snn.export_to_nir(net, x[0])
    assert {"echo.lif", "echo.w_rec"} < set(graph.nodes)
    assert torch.equal(outputs(snn.import_from_nir(graph), x), outputs(net, x))
    assert isinstance(snn.export_to_nir(Whole(init_hidden=True), torch.rand(1, 3)).nodes["whole"], nir.LI)
    with pytest.raises(ValueError, match=r"Square.*not that of a leaky integrator"):
        snn.export_to_nir(Square(**NIR_RESET), torch.rand(1, 3))


def test_snntorchs_module_approximates_with_a_warning():
    """snnTorch writes any reset without a word; scripts that rely on it run, with a warning."""
    net = nn.Sequential(nn.Linear(4, 3), snn.Leaky(0.9, init_hidden=True))
    with pytest.warns(UserWarning, match="approximate"):
        graph = as_snntorch_does(net, torch.rand(2, 4), "name", model_fwd_args=[], ignore_dims=[0])
    assert isinstance(graph.nodes["1"], nir.LIF)
    assert graph.nodes["1"].tau.shape == (3,)
    with pytest.raises(ValueError, match="'1' "):
        as_snntorch_does(net, torch.rand(2, 4), allow_approximate=False)


def test_a_readout_with_a_forward_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r"a forward of its own .DoubledReadout."):
        snn.export_to_nir(nn.Sequential(DoubledReadout(0.9, **HIDDEN)), torch.rand(2, 4))


ARGUMENTS = {
    "requires a network": (TypeError, lambda: snn.export_to_nir("net", torch.rand(3))),
    "sample_data is ndarray": (TypeError, lambda: snn.export_to_nir(leaky(), torch.rand(3).numpy())),
    "sample_data is empty": (TypeError, lambda: snn.export_to_nir(leaky(), ())),
    "at least one sample": (ValueError, lambda: snn.export_to_nir(leaky(), torch.rand(0, 3))),
    "dt is True": (ValueError, lambda: snn.export_to_nir(leaky(), torch.rand(3), dt=True)),
    "validation is str": (TypeError, lambda: snn.export_to_nir(leaky(), torch.rand(3), validation="s")),
    "validation is Tensor, int": (
        TypeError,
        lambda: snn.export_to_nir(leaky(), torch.rand(3), validation=(torch.rand(3), 1)),
    ),
    "at least one step": (
        ValueError,
        lambda: snn.export_to_nir(leaky(), torch.rand(2, 3), validation=torch.rand(0, 2, 3)),
    ),
    "ignore_dims is '0'": (TypeError, lambda: snn.export_to_nir(leaky(), torch.rand(2, 3), ignore_dims="0")),
    "model_fwd is 5": (TypeError, lambda: snn.export_to_nir(leaky(), torch.rand(2, 3), model_fwd=5)),
    "dt is 0": (ValueError, lambda: snn.export_to_nir(leaky(), torch.rand(3), dt=0)),
    "target is 'loihi'.*'norse'": (ValueError, lambda: snn.export_to_nir(leaky(), torch.rand(3), target="loihi")),
    "dimensions of the batch come first": (
        ValueError,
        lambda: snn.export_to_nir(leaky(), torch.rand(2, 3), ignore_dims=[1]),
    ),
    "has no values yet": (ValueError, lambda: snn.export_to_nir(nn.LazyLinear(3), torch.rand(2, 3))),
    "does not fit its input": (
        ValueError,
        lambda: snn.export_to_nir(nn.Sequential(nn.Identity(), leaky(torch.rand(2))), torch.rand(2, 3)),
    ),
}


def test_bad_arguments_get_a_sentence():
    for match, (kind, call) in ARGUMENTS.items():
        with pytest.raises(kind) as caught:
            call()
        if match != "does not fit its input":  # which the neuron itself refuses first, in its own words
            assert caught.match(match)


def test_numbers_of_numpy_and_a_single_dimension_are_arguments():
    graph = snn.export_to_nir(leaky(), torch.rand(2, 3), ignore_dims=0, dt=np.float32(1e-3))
    assert json.loads(graph.metadata["spikeloom"])["dt"] == 1e-3
    assert graph.nodes["leaky"].tau.shape == (3,)
    assert isinstance(snn.import_from_nir(graph, dt=np.float32(1e-3)).leaky, snn.Leaky)
    assert snn.export_to_nir(leaky(), torch.rand(2, 3), ignore_dims=None).nodes["leaky"].tau.shape == (3,)
