"""What NIR cannot express is refused by name, with the nearest that it can; or written approximately, with a report."""

import json
import warnings

import nir
import numpy as np
import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom.export.nir._metadata import seal
from spikeloom.export_nir import export_to_nir as as_snntorch_does

from .graphs import NIR_RESET, leaky, outputs, through_file

HIDDEN = {"init_hidden": True}


@snn.charge
def Keeping(x, mem, *, keep):
    """A neuron whose decay is not bounded."""
    return (keep * mem + x,)


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


def doubled(above):
    return 2 * (above > 0).float()


def straight_through(above):
    """A spike function of the user, with spikes like every other."""
    return (above > 0).float() + (above - above.detach())


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
    "threshold below the membrane after a reset; the nearest": lambda: leaky(threshold=-0.5),
    "ALIF.*threshold below the membrane": lambda: snn.ALIF(threshold=-0.5, **HIDDEN),
    "a decay of 1.25 per step; .*nearest is, one from 0 to 1": lambda: Keeping(keep=1.25, **NIR_RESET),
    "a decay of -0.5 per step": lambda: Keeping(keep=-0.5, **NIR_RESET),
    "state_quant is a user function": lambda: leaky(state_quant=torch.round),
    "the spike function doubled.*not 1 above 0.*nearest": lambda: leaky(spike_grad=doubled),
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
    "DeltaLeaky.*nearest": lambda: snn.DeltaLeaky(torch.rand(4), beta=0.9, **HIDDEN),
    "DeltaLeaky.*which fires": lambda: snn.DeltaLeaky(np.float32(0.5), beta=0.9, **HIDDEN),
}
ALWAYS = {
    "overrides the forward of Linear": lambda: Absolute(4, 4),
    "overrides the forward of Linear; write": assigned,
    "overrides the forward of Identity": Tripled,
    "overrides the forward of SynapticDelay": lambda: LateTwice(4, 2),
    "recurrent layer has a hook": hooked,
    "MaxPool1d.*nearest is AvgPool2d": lambda: nn.MaxPool1d(1),
    "BatchNorm1d.*fold it": lambda: nn.BatchNorm1d(4),
    "ReLU.*spiking neuron": lambda: nn.ReLU(),
    "DelayedLinear.*nearest is SynapticDelay": lambda: snn.DelayedLinear(4, 4, 2),
    "reshapes steps": lambda: nn.Unflatten(1, (2, 2)),
    "NIR has no primitive for it": lambda: nn.Softmax(1),
    "its beta is NaN": lambda: leaky(beta=float("nan")),
    "its threshold is not finite; the nearest": lambda: leaky(threshold=float("inf")),
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


X = torch.rand(2, 3)
ARGUMENTS = {
    "requires a network": (TypeError, lambda: snn.export_to_nir("net", torch.rand(3))),
    "sample_data is ndarray": (TypeError, lambda: snn.export_to_nir(leaky(), torch.rand(3).numpy())),
    "sample_data is empty": (TypeError, lambda: snn.export_to_nir(leaky(), ())),
    r"shape \(0, 3\); pass the input of one step": (ValueError, lambda: snn.export_to_nir(leaky(), torch.rand(0, 3))),
    r"shape \(\); pass the input of one step": (ValueError, lambda: snn.export_to_nir(leaky(), torch.tensor(1.0))),
    "the parameter 'weight' has no": (ValueError, lambda: snn.export_to_nir(nn.Linear(3, 3, device="meta"), X)),
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


def test_a_script_module_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        scripted = torch.jit.trace(nn.Linear(3, 3), X)
    with pytest.raises(TypeError, match="a ScriptModule, whose forward is not traced"):
        snn.export_to_nir(scripted, X)


def test_numbers_of_numpy_and_a_single_dimension_are_arguments():
    graph = snn.export_to_nir(leaky(), torch.rand(2, 3), ignore_dims=0, dt=np.float32(1e-3))
    assert json.loads(graph.metadata["spikeloom"])["dt"] == 1e-3
    assert graph.nodes["leaky"].tau.shape == (3,)
    assert isinstance(snn.import_from_nir(graph, dt=np.float32(1e-3)).leaky, snn.Leaky)
    assert snn.export_to_nir(leaky(), torch.rand(2, 3), ignore_dims=None).nodes["leaky"].tau.shape == (3,)


GATED = {
    "SLSTM": (lambda **o: snn.SLSTM(4, 5, **o), (4,)),
    "SLSTM without bias": (lambda **o: snn.SLSTM(4, 5, bias=False, memoryless=True, **o), (4,)),
    "SLSTM that subtracts": (lambda **o: snn.SLSTM(4, 5, reset_mechanism="subtract", learn_threshold=True, **o), (4,)),
    "SConv2dLSTM": (lambda **o: snn.SConv2dLSTM(2, 3, 3, **o), (2, 6, 8)),
    "SConv2dLSTM, max": (
        lambda **o: snn.SConv2dLSTM(2, 3, (1, 3), max_pool=2, stride=2, dilation=(1, 2), **o),
        (2, 6, 8),
    ),
    "SConv2dLSTM, average": (lambda **o: snn.SConv2dLSTM(2, 3, 3, avg_pool=2, bias=False, **o), (2, 6, 8)),
}


def test_spiking_lstms_are_written_to_first_order_and_come_back_the_same(tmp_path):
    for name, (make, shape) in GATED.items():
        torch.manual_seed(0)
        net = nn.Sequential(make(threshold=0.05, **HIDDEN), nn.Flatten())
        x = torch.randn(30, 3, *shape)
        with pytest.raises(ValueError, match=r"'0' .*LSTM.*the nearest is a leaky integrator that feeds itself"):
            snn.export_to_nir(net, x[0])
        with pytest.warns(UserWarning, match=r"'0' .*LSTM.*output values differ over 30 steps"):
            graph = snn.export_to_nir(net, x[0], allow_approximate=True, validation=x)
        report = json.loads(graph.metadata["spikeloom"])["report"]
        if "max" not in name and "subtract" not in name:  # what NIR omits beside the gates
            assert report["differing"] < 0.2 * report["values"], name
        wanted = outputs(net, x)
        assert 0 < wanted.sum() < wanted.numel(), name
        again = snn.import_from_nir(through_file(graph, tmp_path))
        assert torch.equal(outputs(again, x), wanted), name
        assert repr(again.get_submodule("0")) == repr(net[0]), name
        assert set(again.state_dict()) == set(net.state_dict()), name


def test_an_lstm_of_small_inputs_is_its_first_order():
    """The membranes themselves, of a reader that follows NIR."""
    net = snn.SLSTM(4, 5, threshold=0.05, **HIDDEN)
    with torch.no_grad():
        for weight in net.lstm_cell.parameters():
            weight.mul_(0.05 if weight.dim() > 1 else 0.0)
    x = 0.1 * torch.randn(20, 2, 4)
    graph = written(net, x)
    graph.nodes["output"] = nir.Output(np.array([5]))
    graph.edges = [edge for edge in graph.edges if edge[1] not in ("slstm.threshold", "output")]
    graph.edges.append(("slstm.li", "output"))
    del graph.nodes["slstm.threshold"]
    mem = outputs(snn.import_from_nir(graph, reset="zero"), x)
    net.reset_mem()
    with torch.no_grad():
        wanted = []
        for x_t in x:
            net(x_t)
            wanted.append(net.mem)
    assert torch.allclose(mem, torch.stack(wanted), rtol=0.02, atol=1e-5)


def written(net, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return snn.export_to_nir(net, x[0], allow_approximate=True, validation=x)


def test_a_changed_lstm_is_read_by_its_fields_and_a_damaged_one_is_said():
    x = torch.randn(10, 3, 4)
    graph = written(snn.SLSTM(4, 5, threshold=0.05, **HIDDEN), x)
    note = graph.nodes["slstm.w_in"].metadata["spikeloom"]
    for change in ('"hidden_size": 500000', '"hidden_size": -5', '"hidden_size": 4', '"hidden_size": null'):
        graph.nodes["slstm.w_in"].metadata["spikeloom"] = note.replace('"hidden_size": 5', change)
        seal(graph, 1e-4)  # as who means harm would
        with pytest.raises(ValueError, match=r"'slstm.w_in' .* cannot be rebuilt.*reset='zero'"):
            snn.import_from_nir(graph)
    graph.nodes["slstm.w_in"].metadata["spikeloom"] = note.replace('"parts": [', '"parts": 3, "others": [')
    seal(graph, 1e-4)
    with pytest.raises(ValueError, match=r"'slstm.w_in' has metadata that name no parts"):
        snn.import_from_nir(graph)
    graph.nodes["slstm.w_in"].metadata["spikeloom"] = note
    graph.nodes["slstm.li"].tau = 2 * graph.nodes["slstm.li"].tau
    with pytest.warns(UserWarning, match="the nodes of 'slstm' were changed"):
        assert not [m for m in snn.import_from_nir(graph).modules() if isinstance(m, snn.SLSTM)]


class Changes(nn.Module):
    """A neuron that always returns its states, between layers."""

    def __init__(self):
        super().__init__()
        self.fc, self.change, self.head = nn.Linear(4, 5), snn.DeltaLeaky(0.3, beta=0.5, **HIDDEN), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.change(self.fc(x))[0])


def test_a_neuron_that_always_returns_its_states_comes_back(tmp_path):
    net, x = Changes(), torch.randn(20, 3, 4) * 2
    again = snn.import_from_nir(through_file(written(net, x), tmp_path))
    assert torch.equal(outputs(again, x), outputs(net, x))
    alone = snn.import_from_nir(written(snn.DeltaLeaky(0.3, beta=0.5, **HIDDEN), x))
    assert alone(x[0, 0])[0].shape == (4,)


def test_what_metadata_leave_out_is_said_when_it_is_read():
    for net, message in (
        (leaky(state_quant=torch.round), "'leaky' .*omits .*state_quant"),
        (Doubled(0.9, **NIR_RESET), "'doubled' .*omits .*a forward of its own"),
        (leaky(spike_grad=straight_through), "'leaky' .*omits its spike function straight_through; atan replaces it"),
        (snn.SLSTM(4, 4, threshold=0.1, state_quant=torch.round, **HIDDEN), "'slstm.w_in' .*omits .*state_quant"),
    ):
        graph = written(net, torch.rand(5, 2, 4))
        with pytest.warns(UserWarning, match=message):
            snn.import_from_nir(graph)
