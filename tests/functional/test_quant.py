"""state_quant: every value goes to the nearest level, whatever the options, dtype and shape; the gradient passes."""

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import spikeloom as snn
from spikeloom.functional.quant import Quantizer, StateQuant, state_quant

from ..each import for_each
from ..oracle import assert_close

KINDS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "around the threshold": {"uniform": False},
    "around zero": {"uniform": False, "thr_centered": False},
}
RANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "wide": {"threshold": 1.7, "lower_limit": 0.3, "upper_limit": 0.5},
    "negative threshold": {"threshold": -0.5, "lower_limit": 0.1, "upper_limit": 0.1},
}


def values(dtype: torch.dtype = torch.float32) -> Tensor:
    """Values over and beyond all levels, many of them close to the centers."""
    near = torch.randn(2000, dtype=torch.float64) * torch.logspace(-7, 0, 2000, dtype=torch.float64)
    return torch.cat((torch.linspace(-4, 4, 1000, dtype=torch.float64), near, near + 1, near + 1.7)).to(dtype)


def nearest(x: Tensor, levels: Tensor) -> Tensor:
    """By comparing all with all, in float64."""
    return levels.double()[(x.double()[:, None] - levels.double()).abs().argmin(1)].to(levels.dtype)


def clear_of_boundaries(x: Tensor, levels: Tensor) -> Tensor:
    """Values that do not lie half-way between two levels but for rounding."""
    if levels.numel() < 2:
        return x
    halfway = (levels[1:].double() + levels[:-1].double()) / 2
    distance = (x.double()[:, None] - halfway).abs().amin(1)
    return x[distance > 4 * torch.finfo(levels.dtype).eps * x.abs().double().clamp(min=1)]


@for_each("dtype", [torch.float32, torch.float64])
@for_each("bits", [1, 2, 3, 5, 8])
@for_each("span", RANGES)
@for_each("kind", KINDS)
def test_every_value_goes_to_the_nearest_level(kind, span, bits, dtype):
    q = state_quant(bits, **KINDS[kind], **RANGES[span])
    levels = q.levels(dtype).sort().values
    assert len(levels) == 2**bits
    x = clear_of_boundaries(values(dtype), levels)
    assert_close(q(x), nearest(x, levels), "values", exact=True)
    assert_close(q(levels), levels, "levels", exact=True)


@for_each("multiplier", [0.05, 0.3, 0.7, 1.0, 1.4])
@for_each("bits", [3, 8, 10])
@for_each("centered", [True, False])
def test_so_does_it_with_every_multiplier(bits, multiplier, centered):
    q = state_quant(bits, uniform=False, thr_centered=centered, multiplier=multiplier)
    levels = q.levels()
    x = clear_of_boundaries(values(), levels)
    assert_close(q(x), nearest(x, levels), "values", exact=True)


def test_levels_are_those_of_the_formula():
    """Four levels below a threshold of 1, at 2 * (1, 3, 7, 15) / 15; four above it, at 2 * the same."""
    q = state_quant(3, uniform=False, lower_limit=0, upper_limit=2, multiplier=0.5)
    ladder = torch.tensor([1.0, 3.0, 7.0, 15.0]) / 15
    assert_close(q.levels(), torch.cat((1 - 2 * ladder.flip(0), 1 + 2 * ladder)), "levels")
    assert_close(state_quant(2, lower_limit=0.5, upper_limit=1).levels(), torch.linspace(-1.5, 2, 4), "levels")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_dtype_stays(kind, dtype):
    q = state_quant(8, **KINDS[kind])
    x = torch.linspace(-1.5, 1.5, 50, dtype=dtype, requires_grad=True)
    out = q(x)
    assert out.dtype == dtype
    assert_close(out.detach(), q(x.detach().double()).to(dtype), "values")
    out.sum().backward()
    assert x.grad.dtype == dtype


def test_whole_numbers_become_the_default_dtype():
    assert state_quant(2)(torch.tensor([-3, 0, 1])).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_nan_stays_nan_and_infinities_go_to_the_ends(kind):
    q = state_quant(4, **KINDS[kind])
    x = torch.tensor([torch.nan, -torch.nan, torch.inf, -torch.inf, 1e30, -1e30])
    low, high = q.levels()[[0, -1]].tolist()
    assert_close(q(x), torch.tensor([torch.nan, torch.nan, high, low, high, low]), "ends")


@pytest.mark.parametrize(("kind", "ties"), [("uniform", [-1.0, 0.0, 1.0]), ("around zero", [-1.0, 0.0, 1.0])])
def test_exactly_half_way_the_lower_level_is_taken(kind, ties):
    # levels -1.5, -0.5, 0.5, 1.5
    q = state_quant(2, threshold=1.5, lower_limit=0, upper_limit=0)
    levels = q.levels()
    if kind != "uniform":
        q = state_quant(
            2, uniform=False, thr_centered=False, threshold=2, lower_limit=-0.25, upper_limit=0, multiplier=1
        )
        levels = q.levels()
        ties = ((levels[1:] + levels[:-1]) / 2).tolist()
    assert_close(q(torch.tensor(ties)), levels[:-1], "ties", exact=True)
    assert_close(q(torch.tensor(ties) + 1e-5), levels[1:], "just above", exact=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_passes_straight_through_and_twice(kind):
    x = torch.tensor([-9.0, 0.1, 9.0], requires_grad=True)
    (grad,) = torch.autograd.grad((state_quant(3, **KINDS[kind])(x) * x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), x)
    assert_close(grad, (state_quant(3, **KINDS[kind])(x) + x).detach(), "first", exact=False)
    assert_close(second, torch.full((3,), 2.0), "second")


def test_torch_func_sees_the_same():
    q = state_quant(3)
    x = torch.rand(4, 5)
    assert_close(torch.func.vmap(q)(x), q(x), "vmap", exact=True)
    assert_close(torch.func.grad(lambda x: q(x).sum())(x), torch.ones(4, 5), "grad")


@pytest.mark.parametrize("kind", KINDS)
def test_any_shape_and_layout(kind):
    q = state_quant(3, **KINDS[kind])
    x = torch.randn(4, 6, 5)
    for view in (x.transpose(0, 2), x[:, ::2], x[0, 0, 0], x[:0], torch.randn(5).expand(3, 5)):
        assert_close(q(view), q(view.contiguous().flatten()).view(view.shape), "view", exact=True)


class Largest(TorchDispatchMode):
    """Notes how many elements the largest result of any operation has."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return out


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_number_of_levels(kind):
    q, x = state_quant(8, **KINDS[kind]), torch.randn(100_000)
    with Largest() as largest:
        q(x)
    assert largest.elements == x.numel()


# -- as an object ------------------------------------------------------------------------------------------------------


def test_it_pickles_compares_and_prints_as_its_call():
    q = state_quant(4, uniform=False, threshold=torch.tensor(0.5))
    q(torch.rand(3))
    again = pickle.loads(pickle.dumps(q))
    assert again == q
    assert hash(again) == hash(q)
    assert again != state_quant(4)
    assert eval(repr(q)) == q
    x = torch.randn(50)
    assert_close(again(x), q(x), "after pickling", exact=True)


def test_a_network_that_quantises_pickles():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True, state_quant=state_quant(4)))
    again = pickle.loads(pickle.dumps(net))
    x = torch.rand(6, 2, 3)
    assert_close(snn.unroll(again, x), snn.unroll(net, x), "spikes", exact=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_neuron_keeps_its_membrane_on_the_levels(kind):
    q = state_quant(4, **KINDS[kind])
    lif = snn.Leaky(beta=0.8, state_quant=q, init_hidden=True, output=True)
    x = torch.rand(20, 3, 7)
    spk, mem = snn.unroll(lif, x)
    assert torch.isin(mem, q.levels()).all()
    assert 0 < spk.mean() < 1
    snn.utils.reset(lif)
    steps = [lif(x_t) for x_t in x]
    assert_close(spk, torch.stack([s for s, _ in steps]), "spikes", exact=True)
    assert_close(mem, torch.stack([m for _, m in steps]), "membranes", exact=True)


# -- StateQuant --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_any_levels_in_any_order_and_the_first_of_two_equally_near(order):
    levels = torch.tensor([-1.0, 0.0, 2.0, 3.0])
    levels = {"rising": levels, "falling": levels.flip(0), "mixed": levels[[2, 0, 3, 1]]}[order]
    x = torch.tensor([-0.5, 1.0, 2.5, 2.6, -8.0, 8.0, torch.nan], requires_grad=True)
    out = StateQuant.apply(x, levels)
    wanted = levels[(x.detach()[:, None] - levels).abs().argmin(1)]
    wanted[-1] = torch.nan
    assert_close(out.detach(), wanted, "values", exact=True)
    out[:-1].sum().backward()
    assert_close(x.grad, torch.tensor([1.0] * 6 + [0.0]), "gradient")


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no bits": ({"num_bits": 0}, ValueError, "pass 1 to 24"),
    "too many bits": ({"num_bits": 25}, ValueError, "pass 1 to 24"),
    "half a bit": ({"num_bits": 2.0}, TypeError, "pass an integer"),
    "a truth": ({"num_bits": True}, TypeError, "pass an integer"),
    "no range": ({"threshold": 0}, ValueError, "pass limits with a range"),
    "several thresholds": ({"threshold": torch.ones(3)}, TypeError, "pass one number"),
    "a word": ({"upper_limit": "wide"}, TypeError, "upper_limit='wide'"),
    "a negative multiplier": ({"uniform": False, "multiplier": -0.5}, ValueError, "above 0"),
    "levels all above the center": ({"uniform": False, "lower_limit": -3}, ValueError, "do not include their center"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_levels_is_refused(name):
    options, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        state_quant(**options)


def test_what_state_quant_returns_checks_its_arguments_too():
    with pytest.raises(ValueError, match="pass 1 to 24"):
        Quantizer(0, True, True, 1, 0, 0, None)
    with pytest.raises(TypeError, match="threshold='high'"):
        Quantizer(8, True, True, "high", 0, 0, None)
