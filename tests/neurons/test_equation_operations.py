"""What an equation says means on the kernels what it means on tensors, or is refused with its line."""

import copy
import math
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import spikeloom as snn
from spikeloom import ops, surrogate

from ..oracle import Outcome, assert_same

X = 2 * torch.rand(9, 2, 4, generator=torch.Generator().manual_seed(3)) - 0.7
PER_NEURON = {"p": torch.tensor([0.3, -0.4, 0.5, 0.0]), "q": torch.tensor([0.4, 0.4, 0.2, -0.5])}
GAIN, SETTINGS = 0.75, SimpleNamespace(gain=0.75)


def counted(condition, like):
    return ops.where(condition, ops.full_like(like, 1), 0.0)


def conditions(u, p, q):
    a, b = u > 0, u < 0.5
    whole = counted((a & b) | (a ^ b), u) + 2 * counted(~a, u) + 4 * counted(a == b, u) + 8 * counted(a != b, u)
    return u + 0.1 * (whole + counted(a + b, u) + counted(a * b, u))


def equalities(u, p, q):
    rounded = ops.where(u > 0.3, ops.full_like(u, 2), 0.0)
    return u + ops.where(rounded == 2, p, q) + counted(rounded != 0, u)


def on_parameters(u, p, q):
    return ops.where(p > q, u, 0.5 * u) + ops.where(p == 0.3, 1.0, u) + ops.where((p < 0) | (q != 0.4), p, u)


def conditions_beside_values(u, p, q):
    return (u > 0) * u + (u > 0.5) * p + (u < p) / (u * u + 1) + ops.where(u > 1, u > 0, u) + ((u > 0) < u) * p


def bounds(u, p, q):
    held = ops.clamp(u, -0.2, p) + ops.clamp(u, q, p) + ops.clamp(u, 0.6, 0.2)
    return held + ops.clamp(0.1, u, q) + ops.clamp(p, q, u)


def extremes(u, p, q):
    return ops.minimum(u, 0.5) + ops.maximum(0.25, u) + ops.minimum(u, p) + ops.maximum(q, u) + ops.minimum(p, 0.35)


def full(u, p, q):
    return ops.full_like(u, 0.1) * 3 + u + ops.full_like(p, 0.2) * u + ops.detach(+u)


def spikes_of_parameters(u, p, q):
    return u + ops.spike(p) * u + ops.spike(q - 0.5) + ops.spike(p - 0.3) * q


def numpy_numbers(u, p, q):
    return np.float64(0.3) * u + u * np.float64(0.7)


def squares(u, p, q):
    return 0.3 * u**2 + 0.1 * abs(u) ** 3 - (2 - u) + 1 / (1 + u * u) + p**2


IN_FLOAT32_BY_STEPS = ((equalities, full, numpy_numbers), (conditions_beside_values, spikes_of_parameters))
IN_FLOAT64_AT_ONCE = ((conditions, bounds), (on_parameters, extremes, squares))
"""Words that are in one equation, for each equation has kernels of its own."""


def neuron_of(part, **options):
    @snn.cell
    def neuron(x, mem, *, p=0.3, q=0.4):
        charged = 0.5 * mem + x
        mem = sum(equation(charged, p, q) for equation in part) / len(part)
        return ops.spike(mem - 0.5), 0.5 * mem

    return neuron(**options)


def outcome(part, backend, dtype, step_by_step, **options):
    with snn.backend(backend):
        lif, x = neuron_of(part, **options), X.clone().to(dtype).requires_grad_()
        if step_by_step:
            spk, mem, state = [], [], None
            for each in x:
                fired, state = lif(each, state)
                spk.append(fired)
                mem.append(state)
            spk, mem = torch.stack(spk), torch.stack(mem)
        else:
            spk, mem = snn.unroll(lif, x)
        (spk * 0.5 + mem).square().sum().backward()
    return Outcome({"spk": spk}, {"mem": mem}, {n: p.grad for n, p in lif.named_parameters()} | {"x": x.grad})


@pytest.mark.parametrize(
    "part",
    [*IN_FLOAT32_BY_STEPS, *IN_FLOAT64_AT_ONCE],
    ids=lambda part: ", ".join(equation.__name__ for equation in part),
)
def test_an_operation_is_the_same_on_tensors_and_in_kernels(part):
    """With numbers by steps, or with a value per neuron at once; tests/fuzz draws any of them."""
    by_steps = part in IN_FLOAT32_BY_STEPS
    dtype, values = (torch.float32, {}) if by_steps else (torch.float64, PER_NEURON)
    got, wanted = (outcome(part, name, dtype, by_steps, learn=("p", "q"), **values) for name in ("numba", "loop"))
    assert_same(got, wanted, exact_states=True)


@snn.cell
def Bounded(x, held, most, mem):
    held, most, mem = ops.clamp(x, -0.5, 0.5) + 0 * held, ops.maximum(x, 0.25) + 0 * most, ops.minimum(0.5, x) + 0 * mem
    return ops.spike(held + most + mem - 0.5), held, most, mem


def test_bounds_that_are_met_and_values_that_are_no_numbers_are_the_same_in_kernels():
    results = []
    for backend in ("numba", "loop"):
        x = torch.tensor([[-0.5, 0.5, 0.25, 0.1, math.nan, math.inf, -math.inf]], requires_grad=True)
        with snn.backend(backend):
            outs = Bounded()(x)
        sum(outs).sum().backward()
        results.append((*(out.detach() for out in outs), x.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True)


@snn.cell
def Waiting(x, mem, wait, *, beta=0.9):
    mem = ops.where(wait == 0, beta * mem + x, 0.0)
    spk = ops.spike(mem - 1)
    return spk, mem, ops.where(ops.detach(spk) > 0, ops.full_like(x, 2), ops.maximum(wait - 1, 0 * wait))


@snn.cell
def Flagged(x, mem, *, flag=-1.0, beta=0.9):
    mem = ops.where(flag > 0, beta * mem + x, x)
    return ops.spike(mem - 1), mem


@snn.cell
def Held(x, mem, *, low=-0.5, high=0.5, beta=0.9):
    mem = ops.clamp(beta * mem + x, low, high)
    return ops.spike(mem), mem


@pytest.mark.parametrize("backend", ["numba", "loop"])
def test_a_refractory_time_a_flag_and_learned_bounds(backend):
    torch.manual_seed(0)
    x = 2 * torch.rand(6, 1, 3)
    with snn.backend(backend):
        assert snn.unroll(Waiting(), x)[0].sum() == 6
        assert snn.unroll(Flagged(), x)[0].sum() == 7
        flags = Flagged(flag=torch.tensor([1e9, -1e9, 0.0]))
        assert snn.unroll(flags, x)[0].sum() == 10
        lif = Held(learn=("low", "high"))
        snn.unroll(lif, x)[1].sum().backward()
    torch.testing.assert_close(torch.stack([lif.low.grad, lif.high.grad]), torch.tensor([0.0, 16.9]))


def refused(equation):
    with pytest.raises(TypeError) as error:
        neuron_of((equation,))
    return str(error.value)


REFUSED = {
    "a condition plus a number": (lambda u, p, q: (u > 0) + 1 + u, "got a condition"),
    "a condition times a number": (lambda u, p, q: (u > 0) * 0.1 + u, "got a condition"),
    "one less a condition": (lambda u, p, q: u + (1 - (u > 0)), "got a condition"),
    "a value less a condition": (lambda u, p, q: u - (u > 0), "got a condition"),
    "less a condition": (lambda u, p, q: u * -(u > 0), "got a condition"),
    "a condition by a condition": (lambda u, p, q: u * ((u > 0) / (u > 1)), "got a condition"),
    "exp of a condition": (lambda u, p, q: u * ops.exp(u > 0), "got a condition"),
    "a spike of a condition": (lambda u, p, q: u * ops.spike(u > 0), "got a condition"),
    "two conditions to choose from": (lambda u, p, q: u + ops.where(u > 0, u > 1, u < 2), "got a condition"),
    "a condition and a number to choose from": (lambda u, p, q: ops.where(u > 0, u > 1, 0.5), "got a condition"),
    "full_like a condition": (lambda u, p, q: ops.full_like(u > 0, 1) + u, "full_like got a condition"),
    "full_like with a parameter": (lambda u, p, q: ops.full_like(u, p), "full_like takes a number"),
    "a value for a condition": (lambda u, p, q: ops.where(u, p, q), "where takes a condition first"),
    "a parameter for a condition": (lambda u, p, q: ops.where(p, u, q), "where takes a condition first"),
    "& of values": (lambda u, p, q: u + (u & p), "& takes conditions"),
    "& of a condition and a number": (lambda u, p, q: counted((u > 0) & 1, u), "& takes conditions"),
    "~ of a value": (lambda u, p, q: ~u, "~ takes conditions"),
    "a chained comparison": (lambda u, p, q: counted(0 < u < 1, u), "use ops.where"),
    "and": (lambda u, p, q: counted(u > 0 and u < 1, u), "use ops.where"),
    "not": (lambda u, p, q: u * (not u), "use ops.where"),
    "if": (lambda u, p, q: u if u == 0 else p, "use ops.where"),
    "in": (lambda u, p, q: u * (u in (p, q)), "use ops.where"),
    "min": (lambda u, p, q: min(u, p) + u, "use ops.where"),
    "max": (lambda u, p, q: max(u, 0.0), "use ops.where"),
    "//": (lambda u, p, q: u // 2, "// is not supported in an equation"),
    "% of a number": (lambda u, p, q: 3 % u, "% is not supported in an equation"),
    "divmod": (lambda u, p, q: divmod(u, 2)[0], "divmod is not supported in an equation"),
    "@": (lambda u, p, q: u @ p, "@ is not supported in an equation"),
    "** of a value": (lambda u, p, q: u**p, "is not supported in an equation"),
    "** of a number": (lambda u, p, q: 2**u, "is not supported in an equation"),
    "round": (lambda u, p, q: round(u), "round is not supported in an equation"),
    "floor": (lambda u, p, q: math.floor(u) * u, "math.floor is not supported in an equation"),
    "int": (lambda u, p, q: int(u) * u, "int needs a number"),
    "float": (lambda u, p, q: float(p) * u, "float or a function of math needs a number"),
    "math.exp": (lambda u, p, q: math.exp(p) * u, "float or a function of math needs a number"),
    "range": (lambda u, p, q: u * sum(range(p)), "an index or a range needs a number"),
    "np.exp": (lambda u, p, q: np.exp(u), "ufunc"),
    "np.asarray": (lambda u, p, q: np.asarray(u) * u, "__array"),
    "len": (lambda u, p, q: u * len(u), "len wants the elements"),
    "an index": (lambda u, p, q: u[0] + u, "an index wants the elements"),
    "a loop": (lambda u, p, q: sum(u), "a loop or unpacking wants the elements"),
    ".sum": (lambda u, p, q: u.sum() + u, ".sum is not supported in an equation"),
    ".shape": (lambda u, p, q: u * u.shape[0], ".shape is not supported in an equation"),
    "isinstance": (lambda u, p, q: u if isinstance(u, torch.Tensor) else 2 * u, "isinstance asks for the type"),
    "None": (lambda u, p, q: counted(u == None, u), "a NoneType None enters"),  # noqa: E711
    "a large integer": (lambda u, p, q: u * (2**53 + 1), "enters the equation"),
    "random numbers": (lambda u, p, q: u * random.random(), "when it is called again"),
    "a parameter as a state": (lambda u, p, q: p, "neither on x nor on a state"),
    "a condition as a state": (lambda u, p, q: u > 0, "got a condition"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_kernels_cannot_say_is_refused(name):
    equation, expected = REFUSED[name]
    message = refused(equation)
    assert expected in message
    shapeless = ("neither on x", "called again")
    assert any(part in expected for part in shapeless) or __file__ in message


@pytest.mark.parametrize("sign", ["+", "-", "*", "/", "//", "%", "**", "&", "|", "^", "<<", ">>", "@"])
def test_an_operator_that_changes_a_tensor_in_place_is_refused(sign):
    space = {}
    exec(f"def equation(u, p, q):\n    u {sign}= p\n    return u", space)
    assert f"{sign}= changes a tensor in place" in refused(space["equation"])


def test_conditions_and_numbers_are_no_results():
    with pytest.raises(TypeError, match=r"its spikes are a condition, .*ops.spike"):
        snn.cell(lambda x, mem: (mem > 1, mem + x))
    with pytest.raises(TypeError, match=r"its state mem depends neither on x nor on a state.*ops.full_like"):
        snn.cell(lambda x, mem: (ops.spike(mem + x), 0.0))


@pytest.mark.parametrize("once", [True, False])
def test_an_equation_of_the_loop_changes_nothing_that_others_hold(once):
    @snn.cell(loop=True)
    def in_place(x, mem, *, beta=0.9):
        mem *= beta
        beta *= 2
        x += mem
        return ops.spike(x.clamp(min=0) - 1), x

    lif, given, state = in_place(), X.clone(), torch.full((2, 4), 0.5)
    if once:
        _, mem = lif(given[0], state)
    else:
        mem = snn.unroll(lif, given)[1][0]
        assert torch.equal(mem, X[0])
    assert torch.equal(given, X)
    assert lif.beta == torch.tensor(0.9)
    assert bool((state == 0.5).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sign_of_a_zero_is_heeded_at_single_steps(dtype):
    @snn.cell
    def signed(x, mem, *, zero=0.0):
        mem = ops.clamp(x, 1.0, 1.0) / zero
        return ops.spike(mem), mem

    x = torch.ones(2, dtype=dtype)
    for zero, wanted in ((0.0, torch.inf), (-0.0, -torch.inf), (0.0, torch.inf)):
        assert bool((signed(zero=zero)(x)[1] == wanted).all())


def test_numbers_from_outside_are_fixed_when_the_neuron_is_defined(monkeypatch):
    far = {"gain": 0.75}
    near = 0.75

    def helper(u):
        return GAIN * u

    def equation(u, p, q):
        return GAIN * u + SETTINGS.gain * p + far["gain"] * q + near * u + helper(u)

    @snn.cell
    def neuron(x, mem, *, p=0.3, q=0.4):
        mem = 0.5 * mem + equation(x, p, q)
        return ops.spike(mem - 1), mem

    first = snn.unroll(neuron(), X)[1]
    monkeypatch.setitem(globals(), "GAIN", 5.0)
    monkeypatch.setattr(SETTINGS, "gain", 5.0)
    far["gain"] = near = 5.0
    for name in ("numba", "loop"):
        with snn.backend(name):
            assert torch.equal(snn.unroll(neuron(), X)[1], first)


WIDTH = 0.5


def hill(u, height):
    return height * WIDTH / (WIDTH + u**2)


def test_a_spike_function_does_not_change(monkeypatch):
    spike = surrogate.Spike("hill", hill, {"height": 1.0})
    for name in ("name", "derivative", "constants"):
        with pytest.raises(AttributeError, match=rf"its {name} cannot be assigned; create another"):
            setattr(spike, name, getattr(spike, name))
    with pytest.raises(TypeError):
        spike.constants["height"] = 2.0
    u = torch.tensor([0.5], requires_grad=True)
    before = torch.autograd.grad(spike(u), u)[0]
    monkeypatch.setitem(globals(), "WIDTH", 3.0)
    for same in (spike, copy.deepcopy(spike), pickle.loads(pickle.dumps(spike))):
        assert same == spike
        assert torch.equal(torch.autograd.grad(same(u), u)[0], before)
    assert surrogate.LSO(slope=0.0) != surrogate.LSO(slope=-0.0)


class Steeper(surrogate.Spike):
    def backward(self, u, grad):
        return 7 * grad


@pytest.mark.parametrize("init_hidden", [True, False])
def test_a_subclass_of_a_spike_function_is_honored(init_hidden):
    gradients = []
    for name in ("loop", None):
        lif, x = snn.Leaky(beta=0.5, spike_grad=Steeper("steeper", hill, {"height": 1.0})), X.clone().requires_grad_()
        lif.init_hidden = init_hidden
        out = snn.unroll(lif, x)
        (out if init_hidden else out[0]).sum().backward()
        gradients.append(x.grad)
        assert name is None or snn.explain(lif, X).rows[0].backend == name
    assert torch.equal(*gradients)
    assert gradients[0][-1].max() == 7
