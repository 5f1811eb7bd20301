"""Neurons of the user's own: an equation becomes a layer, or is refused in a sentence."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom import ops
from spikeloom.engine.jit import kernel_cache

from ..oracle import assert_close


@snn.cell
def Adaptive(x, mem, adapt, *, beta=0.9, rho=0.8, kappa=0.3, threshold=1.0):
    """An adaptive neuron."""
    fired = ops.detach(ops.spike(mem - threshold - adapt))
    adapt = rho * adapt + kappa * fired
    mem = beta * mem + x - fired * threshold
    return ops.spike(mem - threshold - adapt), mem, adapt


@snn.charge(decays=("slow", "fast"))
def TwoTimescales(x, trace, mem, *, slow=0.99, fast=0.8):
    trace = slow * trace + x
    return trace, fast * mem + x + 0.1 * trace


@snn.cell(loop=True)
def WithTorch(x, mem, *, beta=0.9):
    mem = beta * mem + torch.nn.functional.softplus(x)
    return ops.spike(mem - 1), mem * (mem <= 1)


@snn.cell
def Rested(x, mem=-0.5, *, leak):
    mem = mem - leak * (mem + 0.5) + x
    spk = ops.spike(mem)
    return spk, mem - ops.detach(spk) * (mem + 0.5)


XS = torch.rand(12, 3, 4, generator=torch.Generator().manual_seed(1)) * 2 - 0.5


def steps(lif, xs=XS):
    return [torch.stack(each) for each in zip(*[lif(x) for x in xs], strict=True)]


MADE = {
    "Adaptive": lambda **options: Adaptive(beta=torch.tensor([0.5, 0.6, 0.7, 0.8]), **options),
    "TwoTimescales": lambda **options: TwoTimescales(0.9, threshold=1.5, **options),
    "WithTorch": WithTorch,
    "Rested": lambda **options: Rested(0.1, **options),
}


@pytest.mark.parametrize("name", MADE)
def test_it_runs_step_by_step_and_at_once_to_the_same_results(name):
    by_steps, at_once = MADE[name](output=True, init_hidden=True), MADE[name](output=True, init_hidden=True)
    for got, wanted in zip(snn.unroll(at_once, XS), steps(by_steps), strict=True):
        assert_close(got, wanted, name, exact=True)
    assert 0.02 < snn.unroll(MADE[name](), XS)[0].mean().item() < 0.95
    assert snn.explain(MADE[name](), XS).rows[0].backend == ("loop" if name == "WithTorch" else "numba")


@pytest.mark.parametrize("name", MADE)
def test_it_copies_and_pickles_with_its_state(name):
    lif = MADE[name](output=True, init_hidden=True)
    lif(XS[0])
    for twin in (copy.deepcopy(lif), pickle.loads(pickle.dumps(lif))):
        assert type(twin) is type(lif)
        for got, wanted in zip(twin(XS[1]), copy.deepcopy(lif)(XS[1]), strict=True):
            assert torch.equal(got, wanted)


def test_it_says_what_it_is():
    assert Adaptive.__name__ == "Adaptive"
    assert Adaptive.__doc__.startswith("An adaptive neuron.\n\nStates, in order: mem, adapt;")
    assert Adaptive.__module__ == __name__
    assert issubclass(Adaptive, snn.EquationNeuron)
    names = list(inspect.signature(Adaptive).parameters)
    assert names == ["beta", "rho", "kappa", "threshold", "learn", *names[5:]]
    assert repr(Adaptive()) == "Adaptive()"


def test_what_it_learns_are_parameters_and_the_rest_buffers():
    lif = Adaptive(learn=("rho", "beta"))
    assert set(dict(lif.named_parameters())) == {"rho", "beta"}
    assert set(lif.state_dict()) == {"beta", "rho", "kappa", "threshold"}
    assert list(dict(Adaptive(learn="kappa").named_parameters())) == ["kappa"]


def test_a_state_starts_at_its_default_and_reset_goes_back_there():
    lif = Rested(leak=0.1, init_hidden=True)
    lif(torch.zeros(2, 3))
    assert torch.equal(lif.mem, torch.full((2, 3), -0.5))
    lif(torch.ones(2, 3) / 4)
    snn.utils.reset(lif)
    assert torch.equal(lif.mem, torch.full((2, 3), -0.5))


def test_it_learns_by_gradient_descent():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), Adaptive(learn=("beta", "kappa"), init_hidden=True), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    x, wanted = torch.rand(64, 4), torch.arange(64) % 2
    x[:, 0] = wanted.float()
    losses = []
    for _ in range(40):
        snn.utils.reset(net)
        loss = nn.functional.cross_entropy(snn.unroll(net, x, steps=10).mean(0), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert net[1].beta != 0.9


def test_neurons_of_equal_equations_share_their_kernels():
    Adaptive()(XS[0])
    before = kernel_cache.compilations()
    Adaptive(beta=0.3)(XS[1])
    assert kernel_cache.compilations() == before


@pytest.mark.parametrize("decay", ["sigmoid", "tau"])
def test_its_decays_can_be_kept_otherwise(decay):
    lif = TwoTimescales(slow=0.75, decay=decay, learn=("slow", "fast"))
    assert sorted(dict(lif.named_parameters())) == [f"fast_{'logit' if decay == 'sigmoid' else decay}",
                                                    f"slow_{'logit' if decay == 'sigmoid' else decay}"]  # fmt: skip
    assert_close(lif.slow.detach(), torch.tensor(0.75), "the decay in force")
    for got, wanted in zip(snn.unroll(lif, XS), snn.unroll(TwoTimescales(slow=0.75), XS), strict=True):
        torch.testing.assert_close(got, wanted)


def test_charge_has_every_reset():
    with_zero = TwoTimescales(reset_mechanism="zero", reset_delay=False)
    _, _, mem = snn.unroll(with_zero, XS)
    assert bool((mem <= 1).all())
    with_zero.reset_mechanism = "none"
    assert bool((snn.unroll(with_zero, XS)[2] > 1).any())


# -- what is refused -------------------------------------------------------------------------------------------------


def branching(x, mem):
    if mem > 1:
        mem = mem * 0
    return ops.spike(mem - 1), mem


def with_a_torch_function(x, mem):
    mem = torch.relu(mem + x)
    return ops.spike(mem - 1), mem


def with_a_tensor_from_outside(x, mem):
    mem = mem + x * XS
    return ops.spike(mem - 1), mem


def with_a_method(x, mem):
    mem = (mem + x).clamp(0, 1)
    return ops.spike(mem - 1), mem


def with_too_few_results(x, mem, other):
    return ops.spike(mem - 1), mem


def without_a_star(x, mem, beta=0.9, threshold=1.0):
    mem = beta * mem + x
    return ops.spike(mem - threshold), mem


def with_states_alone(x, mem, *, beta=0.9):
    return (beta * mem + x,)


def with_a_power(x, mem, *, beta=0.9):
    mem = mem**beta + x
    return ops.spike(mem - 1), mem


def that_compares(x, mem, *, beta=0.9):
    mem = beta * mem + x
    return mem > 1, mem


def with_one_result(x, mem):
    return ops.spike(mem + x - 1)


def with_a_list(x, mem):
    return [ops.spike(mem + x - 1), mem]


def without_a_return(x, mem):
    mem = mem + x


def without_states(x, *, beta=0.9):
    return ops.spike(x)


def with_a_taken_name(x, mem, *, reset=0.0):
    return ops.spike(mem - 1), mem * reset


def with_an_option_for_a_name(x, mem, *, learn=0.0):
    return ops.spike(mem - 1), mem * learn


REFUSED = {
    branching: r"a Python branch depends on the data; use ops.where \(.*if mem > 1:\).*@snn.cell\(loop=True\)",
    with_a_torch_function: r"torch.relu is not supported in an equation.*mem = torch.relu\(mem \+ x\)",
    with_a_tensor_from_outside: r"a Tensor of shape \(12, 3, 4\) enters the equation; pass it as a parameter.*x \* XS",
    with_a_method: r"\.clamp is not supported in an equation.*\.clamp\(0, 1\)",
    with_too_few_results: r"returned a tuple of 2; return \(spk, mem, other\); or, if other is a parameter, write",
    without_a_star: r"if beta and threshold are parameters, write \* before: \(x, mem, \*, beta=0.9, threshold=1.0\)",
    with_states_alone: r"returned a tuple of 1; return \(spk, mem\); or, if the layer .* @snn.cell\(charge=True\)",
    with_a_power: r"ops.exp\(b \* ops.log\(a\)\).*mem\*\*beta \+ x",
    that_compares: r"its spikes are a condition, and a comparison has no gradient; write ops.spike\(mem - threshold\)",
    with_one_result: r"returned one value, which is not a tuple; return \(spk, mem\)",
    with_a_list: r"returned a list, which is not a tuple; return \(spk, mem\)",
    without_a_return: r"returned a NoneType, which is not a tuple; return \(spk, mem\)",
    without_states: r"is not the equation of a neuron; write it as \(x, state, ..., \*, parameter, ...\)",
    with_a_taken_name: r"has a state or parameter named reset, a name of every layer",
    with_an_option_for_a_name: r"has a state or parameter named learn, a name of every layer",
}


@pytest.mark.parametrize("equation", REFUSED, ids=lambda equation: equation.__name__)
def test_what_no_kernel_can_be_made_of_is_refused_in_a_sentence_that_names_the_line(equation):
    with pytest.raises(TypeError, match=REFUSED[equation]):
        snn.cell(equation)


@pytest.mark.parametrize("equation", [branching, with_a_torch_function, with_a_method], ids=lambda e: e.__name__)
def test_the_same_runs_through_the_loop_when_asked_to(equation):
    lif = snn.cell(loop=True)(equation)(init_hidden=True)
    xs = XS[:, :1, :1]  # one neuron: a Python branch can decide about it
    assert snn.unroll(lif, xs).shape == xs.shape
    assert snn.explain(lif, xs).rows[0].backend == "loop"


@pytest.mark.parametrize("equation", [with_one_result, with_a_list, without_a_return], ids=lambda e: e.__name__)
def test_what_the_loop_gets_back_is_checked_as_well(equation):
    with pytest.raises(TypeError, match=REFUSED[equation]):
        snn.cell(loop=True)(equation)()(XS[0])


@pytest.mark.parametrize("loop", [False, True])
def test_a_charge_of_one_state_returns_a_tuple(loop):
    """A tensor of one row would unpack into a membrane without the dimension of the batch."""
    with pytest.raises(TypeError, match=r"one value, which is not a tuple; return \(mem,\)"):
        snn.charge(loop=loop)(lambda x, mem, *, beta=0.9: beta * mem + x)()(XS[0, :1])


SCALE = 1.0


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("make", ["cell", "charge"])
def test_what_asks_for_the_loop_runs_it_and_reads_its_globals_live(make, hidden, monkeypatch):
    @snn.cell(loop=True)
    def scaled(x, mem, *, beta=0.5):
        mem = beta * mem + SCALE * x
        return ops.spike(mem - 9), mem

    @snn.charge(loop=True)
    def charged(x, mem, *, beta=0.5):
        return (beta * mem + SCALE * x,)

    lif = {"cell": scaled, "charge": charged}[make](init_hidden=hidden, output=True)
    x = torch.full((1, 1, 1), 0.25)
    message = snn.explain(lif, x)
    assert (message.rows[0].backend, "created with loop=True" in str(message)) == ("loop", True)
    for scale in (1.0, 2.0):
        monkeypatch.setitem(globals(), "SCALE", scale)
        snn.utils.reset(lif)
        assert snn.unroll(lif, x)[1].item() == 0.25 * scale
        snn.utils.reset(lif)
        assert lif(x[0])[1].item() == 0.25 * scale


def test_a_decay_must_be_a_parameter():
    with pytest.raises(TypeError, match="has no parameter gamma that could be a decay"):
        snn.charge(decays=("gamma",))(lambda x, mem, *, beta=0.9: (beta * mem + x,))


def compares(x, mem, *, threshold=1.0, height=1.0):
    mem = 0.9 * mem + x
    return ops.where(mem > threshold, ops.full_like(mem, 1), 0.0) * height, mem


def detaches(x, mem):
    return ops.detach(ops.spike(mem + x - 1)), mem + x


@pytest.mark.parametrize("equation", [compares, detaches], ids=lambda equation: equation.__name__)
@pytest.mark.parametrize("recurrent", [False, True])
def test_spikes_without_a_gradient_are_warned_of_at_the_line_of_the_decorator(equation, recurrent):
    message = f"{equation.__name__}: the spikes have no gradient.*Write spk = ops.spike"
    with pytest.warns(UserWarning, match=message) as found:
        layer = snn.cell(recurrent=recurrent)(equation)
    assert found[0].filename == __file__
    assert issubclass(layer, snn.EquationNeuron)
    with pytest.warns(UserWarning, match=message) as found:
        snn.cell(equation)
    assert found[0].filename == __file__


def test_spikes_without_a_gradient_on_the_loop_are_warned_of_at_the_first_run():
    layer = snn.cell(loop=True)(lambda x, mem: ((mem + x > 1).to(x), 0.5 * mem + x))
    net = nn.Sequential(nn.Linear(4, 4), layer(init_hidden=True))
    with torch.no_grad():
        snn.unroll(net, XS)
    snn.unroll(nn.Sequential(nn.Linear(4, 4), layer(init_hidden=True, surrogate_disable=True)), XS)
    with pytest.warns(UserWarning, match="the spikes have no gradient"):
        snn.unroll(net, XS)
    snn.unroll(net, XS)  # once


def test_a_charge_that_returns_its_spikes_or_has_a_threshold_gets_the_advice_to_use_cell():
    with pytest.raises(TypeError, match=r"return \(mem,\); or, if it returns its spikes too, decorate it with @snn.ce"):
        snn.charge(lambda x, mem: (ops.spike(mem - 1), mem + x))
    with pytest.raises(TypeError, match="has a state or parameter named threshold, which the layer adds itself"):
        snn.charge(lambda x, mem, *, threshold=1.0: (ops.spike(mem - threshold), mem + x))


CALLS = {
    "an unknown argument": (lambda: Adaptive(gamma=1), TypeError, "Adaptive: got an unexpected keyword argument"),
    "an argument twice": (lambda: Adaptive(0.9, beta=0.9), TypeError, "Adaptive: multiple values for argument 'beta'"),
    "a missing argument": (lambda: Rested(), TypeError, "Rested: missing a required argument: 'leak'"),
    "an unknown name to learn": (lambda: Adaptive(learn="gamma"), ValueError, "it has no gamma, choose from beta, rho"),
    "an unknown decay": (lambda: TwoTimescales(decay="log"), ValueError, "decay='log'; choose one of 'clamp'"),
    "no number": (lambda: Adaptive(beta="high"), TypeError, "beta='high'; pass a number"),
    "too many states": (lambda: Adaptive()(XS[0], *XS[:3]), TypeError, "got 3 states; it has 2: mem, adapt"),
    "a reset": (lambda: setattr(Adaptive(), "reset_mechanism", "zero"), AttributeError, "resets by its own equation"),
    "no function": (lambda: snn.cell(3), TypeError, "cell got 3; decorate a function (x, state"),
    "the base": (lambda: snn.EquationNeuron(), NotImplementedError, "snn.cell"),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call_is_reported_in_a_sentence(call):
    action, error, message = CALLS[call]
    with pytest.raises(error, match=message.replace("(", r"\(")):
        action()
