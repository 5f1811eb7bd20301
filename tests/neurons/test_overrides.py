"""What a user overrides runs, is reported, and leaves no trace where it fails; what nothing would call is refused."""

import copy
import io
import types

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom import ops

from .running import at_once, by_steps, in_both_ways, unchanged


class Doubled(snn.Leaky):
    """Charges twice its input."""

    def _base_state_function(self, input_: Tensor) -> Tensor:
        return super()._base_state_function(2 * input_)


class Broken(snn.Synaptic):
    """Returns too little, or raises."""

    fault = ""

    def _base_state_function(self, input_: Tensor):
        if self.fault == "raises":
            raise KeyError("in the dynamics")
        syn, mem = super()._base_state_function(input_)
        return mem if self.fault == "returns one" else (syn, mem)


def test_explain_says_by_which_method_a_neuron_runs():
    net = nn.Sequential(nn.Linear(3, 4), Doubled(0.9, init_hidden=True))
    (row,) = [row for row in snn.explain(net, torch.rand(5, 2, 3)).rows if row.kind == "Doubled"]
    assert row.backend == "loop"
    assert "Doubled overrides _base_state_function" in "; ".join(row.refusals)


def test_explain_says_what_was_assigned():
    lif = snn.Leaky(0.9, init_hidden=True)
    lif.state_function = lambda input_: lif.mem + input_
    (row,) = snn.explain(lif, torch.rand(5, 2, 3)).rows
    assert "state_function was assigned to this Leaky" in "; ".join(row.refusals)


def test_a_kernel_that_is_asked_for_refuses_in_both_ways():
    for run in (by_steps, at_once):
        with snn.backend("numba"), pytest.raises(RuntimeError, match="Doubled overrides _base_state_function"):
            run(Doubled(0.9), torch.rand(5, 2, 3))


@pytest.mark.parametrize(("fault", "error"), [("raises", KeyError), ("returns one", TypeError)])
def test_dynamics_that_fail_leave_the_states(fault, error):
    neuron = Broken(alpha=0.8, beta=0.9)
    neuron(torch.rand(2, 3))
    neuron.fault = fault
    with unchanged(neuron), pytest.raises(error):
        neuron(torch.rand(2, 3))


def test_too_few_states_are_a_sentence():
    neuron = Broken(alpha=0.8, beta=0.9)
    neuron.fault = "returns one"
    with pytest.raises(TypeError, match="the dynamics of Broken returned Tensor; return syn, mem"):
        neuron(torch.rand(2, 3))


@pytest.mark.filterwarnings("ignore:.*is dropped")
@in_both_ways
def test_the_states_of_a_run_by_methods_carry_over_and_follow_the_shape(run):
    lif, plain = Doubled(0.9), snn.Leaky(0.9)
    for rows in (4, 4, 2):
        xs = torch.rand(3, rows, 5)
        for got, wanted in zip(run(lif, xs), run(plain, 2 * xs), strict=True):
            torch.testing.assert_close(got, wanted)
        assert lif.mem.shape == (rows, 5)


# -- where an override comes from -------------------------------------------------------------------------------------


@in_both_ways
def test_a_method_assigned_to_a_class_of_the_library_is_seen_and_forgotten(run, monkeypatch):
    xs = torch.rand(4, 2, 3)
    plain = run(snn.Leaky(0.9), xs)[1]
    with monkeypatch.context() as patch:
        patch.setattr(snn.Leaky, "_base_state_function", lambda self, input_: 0.5 * self.mem + input_)
        other = run(snn.Leaky(0.9), xs)[1]
    assert not torch.allclose(plain, other)
    torch.testing.assert_close(run(snn.Leaky(0.9), xs)[1], plain, rtol=0, atol=0)


@in_both_ways
def test_a_forward_assigned_to_a_class_or_to_one_neuron_sees_single_steps(run, monkeypatch):
    shapes = []

    def forward(self, input_, mem=None):
        shapes.append(tuple(input_.shape))
        return type(self)._run(self, 2 * input_, (mem,))

    xs = torch.rand(4, 2, 3)
    wanted = by_steps(snn.Leaky(0.9), 2 * xs)[1]
    lif = snn.Leaky(0.9)
    lif.forward = types.MethodType(forward, lif)
    torch.testing.assert_close(run(lif, xs)[1], wanted)
    monkeypatch.setattr(snn.Leaky, "forward", forward)
    torch.testing.assert_close(run(snn.Leaky(0.9), xs)[1], wanted)
    assert set(shapes) == {(2, 3)}


class Counting:
    """A mixin with a forward that knows single steps."""

    calls = 0

    def forward(self, input_):
        self.calls += 1
        return super().forward(input_ * self.calls)


class Counted(Counting, snn.Leaky):
    """A neuron of that mixin."""


def test_the_forward_of_a_mixin_sees_single_steps():
    xs = torch.rand(4, 2, 3)
    for got, wanted in zip(at_once(Counted(0.9), xs), by_steps(Counted(0.9), xs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_copies_and_pickles_go_on_by_the_methods():
    xs = torch.rand(4, 2, 3)
    lif = Doubled(0.9)
    lif.fire = types.MethodType(snn.Leaky.fire, lif)
    by_steps(lif, xs)
    stored = io.BytesIO()
    torch.save(lif, stored)
    stored.seek(0)
    others = copy.deepcopy(lif), torch.load(stored, weights_only=False)
    assert all(other.fire.__self__ is other for other in others)
    wanted = by_steps(lif, xs)[1]
    for other in others:
        torch.testing.assert_close(by_steps(other, xs)[1], wanted, rtol=0, atol=0)


def test_the_mode_may_change_under_the_state_function():
    lif = snn.Leaky(0.9)
    assert lif.state_function == lif._base_sub
    lif.reset_mechanism = "zero"
    assert lif.state_function == lif._base_zero


@pytest.mark.parametrize(
    ("make", "alias"),
    [
        (lambda body: type("N", (snn.Leaky,), body)(0.9), "init_leaky"),
        (lambda body: type("N", (snn.Synaptic,), body)(0.9, 0.8), "init_synaptic"),
        (lambda body: type("N", (snn.Lapicque,), body)(0.9), "init_lapicque"),
        (lambda body: type("N", (snn.Alpha,), body)(0.9, 0.8), "init_alpha"),
        (lambda body: type("N", (snn.RLeaky,), body)(0.9, all_to_all=False), "init_rleaky"),
        (lambda body: type("N", (snn.RSynaptic,), body)(0.9, 0.8, all_to_all=False), "init_rsynaptic"),
        (lambda body: type("N", (snn.SLSTM,), body)(3, 3, threshold=0.1), "init_slstm"),
        (lambda body: type("N", (snn.SConv2dLSTM,), body)(1, 1, 3, threshold=0.1), "init_sconv2dlstm"),
    ],
)
def test_an_override_of_reset_mem_is_called_under_each_of_its_names(make, alias):
    calls = []
    neuron = make({"reset_mem": lambda self: calls.append(self)})
    getattr(neuron, alias)()
    type(neuron).reset_hidden()
    snn.utils.reset(nn.Sequential(neuron))
    assert calls == [neuron] * 3


# -- what nothing would call ------------------------------------------------------------------------------------------


@snn.cell
def Whole(x, mem, *, beta=0.9):
    """A neuron that fires by its own equation."""
    mem = beta * mem + x
    return ops.spike(mem - 1), mem


@pytest.mark.parametrize("base", [snn.DeltaLeaky, snn.ALIF, Whole], ids=lambda base: base.__name__)
@pytest.mark.parametrize("name", ["fire", "mem_reset", "_base_state_function"])
def test_an_equation_that_fires_by_itself_refuses_what_it_would_not_call(base, name):
    with pytest.raises(TypeError, match=f"Mine defines {name}, which nothing calls; override forward instead"):
        type("Mine", (base,), {name: lambda self, mem: mem})
    neuron = base(beta=0.9) if base is not snn.ALIF else base()
    with pytest.raises(TypeError, match=f"{name} was assigned to {base.__name__}, whose step does not call it"):
        setattr(neuron, name, lambda mem: mem)
    with pytest.raises(TypeError, match=f"{name} was assigned to {base.__name__}, whose step does not call it"):
        setattr(base, name, lambda self, mem: mem)
    type("Mine", (base,), {name: lambda self, mem: mem, "forward": lambda self, x: self.fire(x)})


def test_a_method_called_state_function_is_refused_as_snntorch_does_not_call_it():
    with pytest.raises(TypeError, match="name it _base_state_function, or assign"):
        type("Mine", (snn.Leaky,), {"state_function": lambda self, input_: input_})


# -- values that change between steps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [snn.Leaky, Doubled], ids=lambda kind: kind.__name__)
def test_values_assigned_per_step_act_from_the_next_step_on(kind):
    snntorch = pytest.importorskip("snntorch")
    body = {} if kind is snn.Leaky else {"_base_state_function": vars(Doubled)["_base_state_function"]}
    xs = torch.rand(6, 2, 3)
    outs = []
    for library in (snn, snntorch):
        base = library.Leaky
        if body:

            class Base(library.Leaky):
                def _base_state_function(self, input_):
                    return super()._base_state_function(2 * input_)

            base = Base
        w = torch.full((3,), 0.3, requires_grad=True)
        lif, mem, total = base(beta=0.9), torch.zeros(2, 3), 0
        for t, x in enumerate(xs):
            lif.beta = torch.sigmoid(w * t)
            if t == 2:
                lif.threshold = torch.tensor(0.7)
            if t == 3:
                lif.threshold.fill_(0.4)
            if t == 4:
                lif.spike_grad = library.surrogate.fast_sigmoid(5)
                lif.surrogate_disable = True  # read by the constructor alone
            spk, mem = lif(x, mem)
            total = total + (spk + mem).sum()
        total.backward()
        outs.append((total.detach(), w.grad))
        for wrong in (0.5, "high"):
            with pytest.raises(TypeError, match="cannot assign"):
                lif.threshold = wrong
    for got, wanted in zip(*outs, strict=True):
        torch.testing.assert_close(got, wanted)
