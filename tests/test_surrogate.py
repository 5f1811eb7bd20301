"""Every spike function against its formula, written here once more in numpy, and against snnTorch where that works."""

import copy
import pickle
import warnings
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from spikeloom import ops, surrogate
from spikeloom.cells.firing import Frame
from spikeloom.cells.leaky import LEAKY
from spikeloom.engine.graph.program import Program

from .each import for_each

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
FORMULAS = {
    "straight_through_estimator": lambda u: np.ones_like(u),
    "triangular": lambda u, threshold=1: np.where(u < 0, threshold, -threshold) * np.ones_like(u),
    "fast_sigmoid": lambda u, slope=25: (slope * np.abs(u) + 1) ** -2.0,
    "atan": lambda u, alpha=2.0: 0.5 * alpha / (1 + np.square(np.pi * alpha * u / 2)),
    "heaviside": lambda u: np.heaviside(u, 0.0),
    "sigmoid": lambda u, slope=25: slope / 4 / np.square(np.cosh(np.minimum(np.abs(slope * u), 700) / 2)),
    "spike_rate_escape": lambda u, beta=1, slope=25: slope * np.exp(-beta * np.abs(1 - u)),
    "LSO": lambda u, slope=0.1: slope + (1 - slope) * np.heaviside(u, 0.0),
    "SFS": lambda u, slope=25, B=1: np.heaviside(u - B, 0.0) / np.square(slope * np.abs(u) + 1),
    "gaussian": lambda u, sigma=0.4: np.exp(-np.square(u) / (2 * sigma * sigma)) / np.sqrt(2 * np.pi * sigma * sigma),
    "boxcar": lambda u, width=1.0: ((-width / 2 < u) & (u < width / 2)) / width,
    "triangle": lambda u, width=1.0: np.maximum(0, width - np.abs(u)) / (width * width),
    "exponential": lambda u, beta=5.0: beta * np.exp(-beta * np.abs(u)) / 2,
    "no_gradient": lambda u: np.zeros_like(u),
}


@dataclass(frozen=True)
class Row:
    """A spike function with its constants; kinks are where its formula is not smooth."""

    name: str
    constants: dict[str, float] = field(default_factory=dict)
    kinks: tuple[float, ...] = (0.0,)

    def make(self) -> surrogate.Spike:
        return getattr(surrogate, self.name)(**self.constants)

    def formula(self, u: np.ndarray) -> np.ndarray:
        return FORMULAS[self.name](u, **self.constants)

    def __str__(self) -> str:
        return repr(self.make())


ROWS = [
    *(Row(name) for name in ("straight_through_estimator", "heaviside", "no_gradient")),
    *(Row("triangular", c) for c in ({}, {"threshold": 0.3})),
    *(Row("fast_sigmoid", c) for c in ({}, {"slope": 100}, {"slope": 0.5})),
    *(Row("atan", c) for c in ({}, {"alpha": 100}, {"alpha": 0.5})),
    *(Row("sigmoid", c) for c in ({}, {"slope": 100}, {"slope": 1.5}, {"slope": -2})),
    *(Row("spike_rate_escape", c, (1.0,)) for c in ({}, {"beta": 100, "slope": 2})),
    *(Row("LSO", c) for c in ({}, {"slope": 0.5})),
    *(Row("SFS", c, (0.0, 1.0, 0.25)) for c in ({}, {"slope": 100, "B": 0.25})),
    *(Row("gaussian", c) for c in ({}, {"sigma": 0.01})),
    *(Row("boxcar", c, (-0.5, 0.5, -0.125, 0.125)) for c in ({}, {"width": 0.25})),
    *(Row("triangle", c, (0.0, -1.0, 1.0, -0.25, 0.25)) for c in ({}, {"width": 0.25})),
    *(Row("exponential", c) for c in ({}, {"beta": 100})),
]
BY_ROW = for_each("row", ROWS)
INPUTS = np.unique(
    np.concatenate([np.linspace(-100, 100, 1601), np.linspace(-2, 2, 801), [0.125, -0.125, 1e-8, -1e-8]])
)


def passed_by_reference(u, grad, spikes):
    """A user's rule of the form that `custom_surrogate` takes."""
    return 2 * grad * spikes + u


def gradient(spike, u: torch.Tensor, grad: torch.Tensor | None = None) -> torch.Tensor:
    u = u.detach().requires_grad_()
    return torch.autograd.grad(spike(u), u, torch.ones_like(u) if grad is None else grad)[0]


def test_every_factory_is_in_the_table():
    """A new spike function is tested by being listed; the three apart draw random numbers, take a rule, or help."""
    factories = {
        name for name, f in vars(surrogate).items() if getattr(f, "__annotations__", {}).get("return") is not None
    }
    made = {name for name in factories if vars(surrogate)[name].__annotations__["return"] is surrogate.Spike}
    assert made - {"SSO", "custom_surrogate"} == set(FORMULAS) == {row.name for row in ROWS}


# -- values ---------------------------------------------------------------------------------------------------------


@BY_ROW
def test_gradient_is_the_formula(row):
    u = torch.from_numpy(INPUTS)
    np.testing.assert_allclose(gradient(row.make(), u).numpy(), row.formula(INPUTS), rtol=1e-12, atol=1e-300)


@BY_ROW
def test_gradient_multiplies_what_comes_in(row):
    u, grad = torch.linspace(-3, 3, 101, dtype=torch.float64), torch.linspace(-2, 1, 101, dtype=torch.float64)
    assert torch.equal(gradient(row.make(), u, grad), grad * gradient(row.make(), u))


@for_each("dtype", DTYPES)
@BY_ROW
def test_dtype_is_kept_and_nothing_overflows(row, dtype):
    """On both sides up to |slope * u| = 1e4, where a plain exp(-slope * u) has long overflowed."""
    u = torch.from_numpy(INPUTS).to(dtype).requires_grad_()
    spk = row.make()(u)
    spk.sum().backward()
    assert spk.dtype == u.grad.dtype == dtype
    assert u.grad.isfinite().all()
    if dtype in (torch.float32, torch.float64):
        expected = row.formula(u.detach().double().numpy())
        np.testing.assert_allclose(u.grad.double().numpy(), expected, rtol=2e-4, atol=1e-7)


@for_each("dtype", DTYPES)
@BY_ROW
def test_forward_is_the_strict_step(row, dtype):
    tiny = torch.finfo(dtype).tiny
    u = torch.tensor([-torch.inf, -1, -tiny, -0.0, 0.0, tiny, 1, torch.inf, torch.nan], dtype=dtype)
    assert row.make()(u).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0]


@BY_ROW
def test_no_shape_is_special(row):
    for shape in ((), (0,), (0, 3), (2, 3, 4)):
        u = torch.randn(shape, dtype=torch.float64)
        np.testing.assert_allclose(gradient(row.make(), u).numpy(), row.formula(u.numpy()), rtol=1e-12)


NAN_PASSES = ("fast_sigmoid", "atan", "sigmoid", "spike_rate_escape", "SFS", "gaussian", "triangle", "exponential")


@pytest.mark.parametrize("name", NAN_PASSES)
def test_nan_comes_through_the_gradient(name):
    assert gradient(getattr(surrogate, name)(), torch.tensor([torch.nan])).isnan().all()


@pytest.mark.parametrize("name", ["gaussian", "boxcar", "triangle", "exponential"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_width_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"surrogate.{name} got .*={value}; pass a positive number"):
        getattr(surrogate, name)(value)


# -- derivatives of derivatives, and the transforms of torch.func -----------------------------------------------------


def away_from(kinks: tuple[float, ...]) -> np.ndarray:
    u = np.linspace(-1.5, 1.5, 73)
    return u[np.min(np.abs(u[:, None] - np.array(kinks)), axis=1) > 1e-3]


@BY_ROW
def test_double_backward_is_the_slope_of_the_formula(row):
    points, step = away_from(row.kinks), 1e-6
    u = torch.from_numpy(points).requires_grad_()
    grad = torch.linspace(1, 2, len(points), dtype=torch.float64).requires_grad_()
    (first,) = torch.autograd.grad(row.make()(u), u, grad, create_graph=True)
    to_u, to_grad = torch.autograd.grad(first.sum(), (u, grad), allow_unused=True, materialize_grads=True)
    to_u, to_grad = to_u.detach(), to_grad.detach()  # zeros that are made want a gradient in some releases
    numeric = (row.formula(points + step) - row.formula(points - step)) / (2 * step)
    scale = max(1.0, np.abs(numeric).max())
    np.testing.assert_allclose(to_u.numpy(), grad.detach().numpy() * numeric, rtol=1e-5, atol=1e-7 * scale)
    np.testing.assert_allclose(to_grad.numpy(), row.formula(points), rtol=1e-12)


@BY_ROW
def test_function_transforms_see_the_surrogate(row):
    spike, u = row.make(), torch.linspace(-1.7, 1.6, 12, dtype=torch.float64)
    expected = torch.from_numpy(row.formula(u.numpy()))
    torch.testing.assert_close(torch.func.grad(lambda v: spike(v).sum())(u), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(spike))(u), expected)
    torch.testing.assert_close(torch.func.vmap(spike, in_dims=1)(u.view(3, 4)), ops.heaviside(u).view(3, 4).T)


@pytest.mark.compile
def test_compiles_as_one_graph():
    spike, u = surrogate.atan(), torch.linspace(-1, 1, 9)
    torch._dynamo.reset()
    compiled = torch.compile(lambda v: spike(v) * 2, backend="aot_eager", fullgraph=True)
    assert torch.equal(gradient(compiled, u), gradient(lambda v: spike(v) * 2, u))


# -- as values: saved, compared, printed ------------------------------------------------------------------------------

EVERY = [
    *(row.make() for row in ROWS),
    surrogate.SSO(mean=0.1),
    surrogate.custom_surrogate(passed_by_reference),
    surrogate.Spike("mine", passed_by_reference, {"width": 0.5}),
]


@pytest.mark.parametrize("spike", EVERY, ids=repr)
def test_survives_pickle_and_deepcopy(spike):
    for twin in (pickle.loads(pickle.dumps(spike)), copy.deepcopy(spike), copy.copy(spike)):
        assert twin == spike
        assert hash(twin) == hash(spike)
        assert repr(twin) == repr(spike)


@pytest.mark.parametrize("spike", [*EVERY[:-2]], ids=repr)
def test_repr_makes_it_again(spike):
    assert eval(repr(spike), vars(surrogate)) == spike


def test_repr_of_a_users_rule_names_it():
    assert repr(surrogate.custom_surrogate(passed_by_reference)) == "custom_surrogate(passed_by_reference)"


def test_equality_is_by_formula_and_constants():
    assert surrogate.fast_sigmoid(25) == surrogate.fast_sigmoid(slope=25.0) == surrogate.fast_sigmoid()
    assert surrogate.fast_sigmoid(torch.tensor(25.0)) == surrogate.fast_sigmoid()
    assert surrogate.fast_sigmoid(25) != surrogate.fast_sigmoid(26)
    assert surrogate.fast_sigmoid(25) != surrogate.sigmoid(25)
    assert surrogate.atan() != "atan(alpha=2.0)"
    assert len({repr(spike) for spike in EVERY}) == len(set(EVERY)) == len(EVERY)


# -- both forms of snnTorch -------------------------------------------------------------------------------------------

CLASSES = {
    "StraightThroughEstimator": ("straight_through_estimator", ()),
    "Triangular": ("triangular", (0.5,)),
    "FastSigmoid": ("fast_sigmoid", (10,)),
    "ATan": ("atan", (3.0,)),
    "Heaviside": ("heaviside", ()),
    "Sigmoid": ("sigmoid", (5,)),
    "SpikeRateEscape": ("spike_rate_escape", (2, 5)),
    "StochasticSpikeOperator": ("SSO", (0.1, 0.3)),
    "LeakySpikeOperator": ("LSO", (0.2,)),
    "SparseFastSigmoid": ("SFS", (10, 0.5)),
    "CustomSurrogate": ("custom_surrogate", (passed_by_reference,)),
}


@pytest.mark.parametrize("name", CLASSES)
def test_apply_is_the_factory(name, seed):
    factory, constants = CLASSES[name]
    function, u = getattr(surrogate, name), torch.linspace(-2, 2, 41)
    torch.manual_seed(seed)
    by_apply = gradient(lambda v: function.apply(v, *constants), u)
    torch.manual_seed(seed)
    assert torch.equal(by_apply, gradient(getattr(surrogate, factory)(*constants), u))
    for twin in (pickle.loads(pickle.dumps(function.apply)), copy.deepcopy(function)):
        assert twin is function.apply is function
    assert repr(function.apply) == f"{name}.apply"


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "CustomSurrogate"])
def test_apply_without_constants_takes_the_defaults(name):
    function = getattr(surrogate, name)
    assert torch.equal(function.apply(torch.tensor([-1.0, 1.0])), torch.tensor([0.0, 1.0]))
    spike = surrogate.as_spike(function.apply)
    assert spike == (None if CLASSES[name][0] == "SSO" else getattr(surrogate, CLASSES[name][0])())


WORK_IN_SNNTORCH = [row for row in ROWS if row.name not in ("LSO", *(set(FORMULAS) - {f for f, _ in CLASSES.values()}))]


@pytest.mark.parametrize("row", WORK_IN_SNNTORCH, ids=str)
def test_same_as_snntorch(row):
    """In float32, where snnTorch's own formula does not overflow."""
    reference = pytest.importorskip("snntorch.surrogate")
    steepest = max(np.abs(list(row.constants.values() or [25])))
    u = torch.linspace(-80, 80, 2001) / (steepest if row.name == "sigmoid" else 1)
    odd = [0.0, -0.0, 1.0, 1e-30, torch.nan, torch.inf, -torch.inf]
    u = torch.cat([u, torch.tensor(odd[: 5 if row.name == "sigmoid" else 7])])
    theirs, ours = getattr(reference, row.name)(**row.constants), row.make()
    assert torch.equal(ours(u), theirs(u))
    torch.testing.assert_close(gradient(ours, u), gradient(theirs, u), rtol=2e-5, atol=1e-12, equal_nan=True)


# -- random and custom rules ------------------------------------------------------------------------------------------


def test_sso_draws_below_threshold_and_the_seed_repeats_it(seed):
    spike, u = surrogate.SSO(mean=0.5, variance=0.2), torch.linspace(-1, 1, 20001, dtype=torch.float64)
    torch.manual_seed(seed)
    first, second = gradient(spike, u), gradient(spike, u)
    torch.manual_seed(seed)
    assert torch.equal(gradient(spike, u), first)
    assert not torch.equal(first, second)
    assert (first[u > 0] == 1).all()
    drawn = first[u <= 0]
    assert 0.0 <= drawn.min() < 0.001
    assert 0.199 < drawn.max() <= 0.2
    assert abs(drawn.mean() - 0.1) < 0.002


def test_custom_rule_gets_input_gradient_and_spikes():
    u, grad = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 10.0, 100.0])
    got = gradient(surrogate.custom_surrogate(passed_by_reference), u, grad)
    assert got.tolist() == [-1.0, 0.0, 202.0]


@pytest.mark.parametrize("spike", EVERY, ids=repr)
def test_formulas_are_traceable_and_free_rules_say_why_not(spike):
    """What the fused kernels are made from: random and custom rules have a reason instead."""
    program = Program(LEAKY.cell(Frame()), spike)
    if isinstance(spike, surrogate._RandomSpike | surrogate._CustomSpike) or spike.name == "mine":
        assert program.derivation is None
        assert program.untraceable
    else:
        assert program.derivation is not None, program.untraceable


def test_no_warning_is_given():
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for row in ROWS:
            gradient(row.make(), torch.tensor([-1e4, 1e4, 0.0]))
