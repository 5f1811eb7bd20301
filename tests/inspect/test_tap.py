"""The tap gives the same record of a loop over steps and of an unrolled network, and disturbs neither."""

import copy
import pickle

import pytest
import torch
from torch import nn

import spikeloom as snn

from ..network.networks import NETWORKS, exact, leaky, quarters, stepped
from ..neurons.sequences import LAYERS, B, N, T, drawn, every_layer
from ..neurons.zoo import ZOO, made, sequence
from ..oracle import assert_close

SPIKING = [name for name in NETWORKS if name != "no neurons"]


class OwnForward(snn.Leaky):
    """A user's neuron whose forward knows one step, and fires by itself."""

    def forward(self, input_, mem=None):
        self.mem = (self.mem if self.mem.shape == input_.shape else torch.zeros_like(input_)) * 0.5 + input_
        return (self.mem > 1).float()


def recorded(net, x, run, **options):
    snn.utils.reset(net)
    with snn.tap(net, **options) as record:
        run(net, x)
    return record


def assert_same_record(ours, theirs, exact=True):
    assert list(ours) == list(theirs)
    for path in theirs:
        assert_close(ours[path].spk, theirs[path].spk, f"spikes of {path!r}", exact=True)
        assert_close(ours[path].input, theirs[path].input, f"inputs of {path!r}")
        assert list(ours[path].states) == list(theirs[path].states)
        for name, state in theirs[path].states.items():
            assert_close(ours[path].states[name], state, f"{name} of {path!r}", exact)


@pytest.mark.parametrize("network", SPIKING)
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
def test_unrolled_it_records_what_a_loop_over_steps_does(network, static):
    net = exact(NETWORKS[network]())
    x, steps = (quarters(4, 6), 7) if static else (quarters(7, 4, 6), None)
    unrolled = recorded(net, x, lambda net, x: snn.unroll(net, x, steps=steps), inputs=True)
    looped = recorded(net, x, lambda net, x: stepped(net, x, steps), inputs=True)
    assert_same_record(unrolled, looped)
    assert any(recording.spk.any() for recording in looped.values())


@pytest.mark.parametrize("output", [False, True], ids=["spikes", "all"])
@pytest.mark.parametrize("kind", [name for name in ZOO if name != "NoisyLeaky"])  # which draws in another order
def test_every_state_of_every_neuron_is_recorded(kind, output):
    lif, x = made(kind, init_hidden=True, output=output), sequence(kind)
    with snn.backend("loop"):  # for neurons whose kernels round another way
        unrolled = recorded(lif, x, snn.unroll, inputs=True)
        looped = recorded(lif, x, lambda lif, x: [lif(x_t) for x_t in x], inputs=True)
    assert tuple(unrolled[""].states) == lif._state_names()
    assert_same_record(unrolled, looped, exact="LSTM" not in kind)  # a product over T*B rows may round
    assert_close(unrolled[""].input, x, "inputs", exact=True)


@every_layer
def test_a_layer_that_takes_whole_sequences_is_recorded_alike_in_a_plain_call(name):
    layer, x = LAYERS[name](), drawn(T, B, N)
    out = layer(x)
    spk, *rest = out if isinstance(out, tuple) else (out,)
    plain = recorded(layer, x, lambda layer, x: layer(x), inputs=True)
    unrolled = recorded(layer, x, snn.unroll, inputs=True)
    assert plain[""].steps == T
    assert_close(plain[""].spk, spk.detach(), "spikes", exact=True)
    for mem in rest:
        assert_close(plain[""].mem, mem.detach(), "membranes", exact=True)
    assert_close(plain[""].input, x, "inputs", exact=True)
    assert list(unrolled[""].states) == list(plain[""].states)
    for name, state in {"spk": spk, "input": x, **plain[""].states}.items():  # a product over T*B rows may round
        assert_close(getattr(unrolled[""], name), state.detach(), name)


def test_a_neuron_with_a_forward_of_its_own_is_recorded():
    net, x = exact(nn.Sequential(nn.Linear(6, 6), OwnForward(beta=0.5, init_hidden=True))), quarters(5, 3, 6)
    looped = recorded(net, x, stepped, inputs=True)
    assert_same_record(recorded(net, x, snn.unroll, inputs=True), looped)


def test_spikes_have_the_dtype_of_the_input_both_ways():
    lif, x = leaky(), quarters(5, 3, 6).half()
    unrolled, looped = recorded(lif, x, snn.unroll), recorded(lif, x, stepped)
    assert unrolled[""].spk.dtype == looped[""].spk.dtype == torch.float16
    assert unrolled[""].mem.dtype == looped[""].mem.dtype == torch.float32


def test_calls_follow_one_another():
    """Chunks and steps, mixed, are one sequence."""
    net, x = exact(NETWORKS["a sequence of layers"]()), quarters(9, 4, 6)
    whole = recorded(net, x, snn.unroll, inputs=True)
    mixed = recorded(
        net, x, lambda net, x: (snn.unroll(net, x[:4]), stepped(net, x[4:6]), snn.unroll(net, x[6:])), inputs=True
    )
    assert_same_record(mixed, whole)
    assert [recording.steps for recording in mixed.values()] == [9, 9]


def test_the_graph_is_kept_where_it_is_asked_for():
    net, x = exact(NETWORKS["a sequence of layers"]()), quarters(7, 4, 6)
    grads = []
    for run in (snn.unroll, stepped):
        record = recorded(net, x, run, graph=True)
        snn.utils.detach(net)  # in place on the last states, which the record must not feel
        (record["1"].spk.sum() + (record["1"].mem ** 2).sum() + record["3"].mem.sum()).backward()
        grads.append([p.grad.clone() for p in net.parameters()])
        net.zero_grad()
    for ours, theirs in zip(*grads, strict=True):
        assert_close(ours, theirs, "gradient")
        assert ours.any()
    record = recorded(net, x, snn.unroll)
    assert not record["1"].spk.requires_grad
    assert not record["1"].mem.requires_grad


def test_what_is_recorded_does_not_change_what_runs():
    net, x = exact(NETWORKS["branches"]()), quarters(7, 4, 6)
    plain = snn.unroll(net, x)["spikes"][0]
    snn.utils.reset(net)
    with snn.tap(net, inputs=True, graph=True):
        tapped = snn.unroll(net, x)["spikes"][0]
    assert_close(tapped, plain, "spikes", exact=True)
    assert all(not module._forward_hooks for module in net.modules())


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch's compiler, about itself
def test_compiled_networks_are_recorded_too():
    net, x = exact(NETWORKS["a sequence of layers"]()), quarters(5, 4, 6)
    wanted = recorded(net, x, snn.unroll, inputs=True)
    whole = torch.compile(lambda x: snn.unroll(net, x), backend="eager", fullgraph=True)
    assert_same_record(recorded(net, x, lambda net, x: whole(x), inputs=True), wanted)


# -- what does not count -----------------------------------------------------------------------------------------------


class FailsLate(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif, self.fails = nn.Linear(6, 6), leaky(), True

    def forward(self, x):
        spk = self.lif(self.fc(x))
        if self.fails:
            raise RuntimeError("not now")
        return spk


def test_a_failed_run_leaves_no_record():
    net = FailsLate()
    with snn.tap(net) as record:
        with pytest.raises(RuntimeError, match="not now"):
            snn.unroll(net, quarters(5, 3, 6))
        net.fails = False
        snn.unroll(net, quarters(4, 3, 6))
    assert record["lif"].spk.shape == (4, 3, 6)


def test_a_trial_with_a_static_input_leaves_no_record():
    net = NETWORKS["residual"]()
    record = recorded(net, quarters(3, 6), lambda net, x: snn.unroll(net, x, steps=5))
    assert [recording.steps for recording in record.values()] == [5, 5]


def test_explain_check_and_copies_leave_no_record():
    net, x = exact(NETWORKS["a sequence of layers"]()), quarters(5, 3, 6)
    with snn.tap(net) as record:
        snn.explain(net, x)
        snn.diagnose(net, x)
        snn.diagnose(net, x, forward=stepped)
        twin, again = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
        snn.unroll(twin, x)
        snn.unroll(again, x)
        assert [recording.steps for recording in record.values()] == [0, 0]
        snn.utils.reset(net)
        snn.unroll(net, x, check=True)
    assert [recording.steps for recording in record.values()] == [5, 5]


def test_no_steps_are_no_steps():
    record = recorded(leaky(), quarters(0, 3, 6), snn.unroll)
    assert record[""].spk.shape == record[""].mem.shape == (0, 3, 6)


def test_closing_ends_it_and_clearing_forgets():
    net, x = nn.Sequential(leaky()), quarters(5, 3, 6)
    record = snn.tap(net)
    snn.unroll(net, x)
    record.clear()
    assert record["0"].steps == 0
    snn.unroll(net, x[:2])
    record.close()
    snn.unroll(net, x)
    assert record["0"].steps == 2
    assert repr(record["0"]) == "'0' (Leaky): 2 steps of spk, mem"


def test_two_taps_do_not_disturb_each_other():
    net, x = nn.Sequential(leaky()), quarters(5, 3, 6)
    with snn.tap(net) as outer:
        with snn.tap(net, inputs=True) as inner:
            snn.unroll(net, x)
        snn.unroll(net, x)
    assert (outer["0"].steps, inner["0"].steps) == (10, 5)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_refusals_say_what_to_do():
    with pytest.raises(TypeError, match="got list"):
        snn.tap([leaky()])
    with pytest.raises(ValueError, match="no spiking neurons in Linear"):
        snn.tap(nn.Linear(2, 2))
    net = nn.Sequential(leaky())
    with snn.tap(net) as record:
        with pytest.raises(RuntimeError, match="has not run since"):
            _ = record["0"].spk
        net(torch.rand(3, 6))
        snn.utils.reset(net)
        net(torch.rand(2, 6))
    with pytest.raises(RuntimeError, match=r"call clear\(\) between batches"):
        _ = record["0"].mem
    with pytest.raises(RuntimeError, match="inputs=True"):
        _ = record["0"].input
    with pytest.raises(AttributeError, match="has spk, input and mem"):
        _ = record["0"].syn
