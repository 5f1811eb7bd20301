"""What holds for every code: time first, dtype kept, input untouched, nothing repeated, draws that can be repeated."""

import pytest
import torch

from spikeloom import spikegen

from .cases import CODES, numbers

BY_CODE = pytest.mark.parametrize("code", CODES.values(), ids=CODES)
RANDOM = {name: code for name, code in CODES.items() if code.random}
BY_RANDOM = pytest.mark.parametrize("code", RANDOM.values(), ids=RANDOM)
CERTAIN = {name: code for name, code in CODES.items() if not code.random}
BY_CERTAIN = pytest.mark.parametrize("code", CERTAIN.values(), ids=CERTAIN)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@BY_CODE
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4, 5), (0, 4), (1, 1)])
def test_time_is_first_and_the_shape_of_the_data_follows(code, shape):
    x = numbers(*shape)
    assert code(x).shape == code.shape(x)


@pytest.mark.parametrize("code", [code for code in CODES.values() if not code.sequence], ids=lambda code: code.name)
def test_a_single_number_is_a_train(code):
    x = torch.tensor(0.5)
    assert code(x).shape == code.shape(x)


@BY_CODE
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_dtype_of_the_data_is_kept(code, dtype):
    assert code(numbers(3, 4, dtype=dtype)).dtype == dtype


@BY_CODE
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64], ids=str)
def test_integers_are_taken(code, dtype):
    ones = torch.tensor([[0, 1], [1, 0]])
    torch.manual_seed(1)
    taken = code(ones.to(dtype))
    torch.manual_seed(1)
    assert torch.equal(taken.float(), code(ones.float()))


@BY_CERTAIN
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_half_precision_computes_in_float32(code, dtype):
    """The same numbers in float32 give the same spikes; draws go by the dtype, as in torch.bernoulli."""
    x = numbers(6, 50, dtype=dtype)
    assert torch.equal(code(x), code(x.float()).to(dtype))


@BY_CODE
def test_the_data_are_left_as_they_are(code):
    x = numbers(3, 4)
    before = x.clone()
    code(x)
    assert torch.equal(x, before)


@BY_CODE
def test_the_layout_in_memory_changes_nothing(code):
    x = numbers(6, 4)
    torch.manual_seed(1)
    flat = code(x)
    torch.manual_seed(1)
    assert torch.equal(code(x.T.contiguous().T), flat)


@BY_CODE
def test_data_that_need_gradients_are_taken(code):
    x = numbers(3, 4)
    torch.manual_seed(1)
    wanted = code(x)
    torch.manual_seed(1)
    assert torch.equal(code(x.clone().requires_grad_()).detach(), wanted)


@pytest.mark.parametrize("name", ["population", "phase", "burst"])
def test_each_sample_is_coded_by_itself(name):
    code = CODES[name]
    x = numbers(3, 4)
    assert torch.equal(code(x), torch.stack([code(row) for row in x], dim=1))


@BY_RANDOM
def test_a_generator_repeats_the_draws_and_leaves_that_of_torch_alone(code):
    x, before = numbers(5, 40), torch.get_rng_state()
    one, other = (code(x, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(one, code(x, generator=torch.Generator().manual_seed(4)))


@BY_RANDOM
def test_draws_follow_the_seed_of_torch(code):
    x = numbers(5, 40)
    torch.manual_seed(3)
    one, other = code(x), code(x)
    torch.manual_seed(3)
    assert torch.equal(code(x), one)
    assert not torch.equal(one, other)


@BY_CODE
def test_spikes_do_not_hold_the_memory_of_more(code):
    spk = code(numbers(3, 4))
    assert spk.is_contiguous()
    assert spk.untyped_storage().nbytes() == spk.numel() * spk.element_size()


# -- what is refused ---------------------------------------------------------------------------------------------------

X = numbers(3, 4)
NAN = torch.tensor([0.5, float("nan")])
BAD = {
    "a list": (lambda: spikegen.rate([0.5], 5), TypeError, "rate expects a tensor, got list"),
    "complex numbers": (lambda: spikegen.phase(X + 0j, 5), TypeError, "real numbers, got torch.complex64"),
    "rate of NaN": (lambda: spikegen.rate(NAN, 5), ValueError, "NaN in the data"),
    "rate without steps": (lambda: spikegen.rate(X), ValueError, "needs num_steps; or set time_var_input"),
    "rate of half a step": (lambda: spikegen.rate(X, 2.5), TypeError, "num_steps is 2.5; pass an integer"),
    "rate of True steps": (lambda: spikegen.rate(X, True), TypeError, "num_steps is True; pass an integer"),
    "rate with its own time and steps": (
        lambda: spikegen.rate(X, 3, time_var_input=True),
        ValueError,
        "dimension 0 of the data is time",
    ),
    "rate that starts late": (lambda: spikegen.rate(X, 5, first_spike_time=5), ValueError, "pass at most 4"),
    "a number with its own time": (
        lambda: spikegen.rate(X[0, 0], first_spike_time=2, time_var_input=True),
        ValueError,
        "got a single number",
    ),
    "latency beyond one": (
        lambda: spikegen.latency(X + 1, 5),
        ValueError,
        r"in \[0, 1\], got 1.* scale the data",
    ),
    "latency of NaN": (lambda: spikegen.latency(NAN, 5), ValueError, r"in \[0, 1\], got nan"),
    "latency without steps": (lambda: spikegen.latency(X), ValueError, "needs num_steps; or set bypass=True"),
    "latency too late": (lambda: spikegen.latency(X * 0, 12), ValueError, "after the last step of num_steps=12"),
    "threshold of one": (
        lambda: spikegen.latency(X, 5, threshold=1),
        ValueError,
        "threshold is 1; pass a number above 0",
    ),
    "tau of zero": (lambda: spikegen.latency_code(X, tau=0), ValueError, "tau is 0; pass a number above 0"),
    "latency before the start": (lambda: spikegen.latency(X, 5, first_spike_time=-1), ValueError, "pass 0 or more"),
    "normalized to nothing": (lambda: spikegen.latency_code_log(X, normalize=True), ValueError, "pass num_steps"),
    "stretched alone": (lambda: spikegen.latency(X, 50, stretch=True), ValueError, "set normalize=True too"),
    "delta of one number": (lambda: spikegen.delta(X[0, 0]), ValueError, "with time in dimension 0"),
    "a ramp downwards": (
        lambda: spikegen.latency_interpolate(X, 5, on_target=0, off_target=1),
        ValueError,
        "needs an on_target above off_target",
    ),
    "two neurons": (lambda: spikegen.receptive_fields(X, 2), ValueError, "num_neurons is 2; pass 3 or more"),
    "fields of no width": (
        lambda: spikegen.receptive_fields(X, 5, beta=0),
        ValueError,
        "beta is 0; pass a number above",
    ),
    "an empty range": (
        lambda: spikegen.receptive_fields(X, 5, low=1),
        ValueError,
        "low=1 to high=1.0; pass a high above",
    ),
    "population of NaN": (lambda: spikegen.population(NAN, 5, 5), ValueError, "NaN in the data"),
    "population of no steps": (lambda: spikegen.population(X, 0, 5), ValueError, "num_steps is 0; pass 1 or more"),
    "an unknown population": (
        lambda: spikegen.population(X, 5, 5, code="burst"),
        ValueError,
        "pass 'latency' or 'rate'",
    ),
    "phase below zero": (lambda: spikegen.phase(X - 1, 5), ValueError, r"phase expects data in \[0, 1\]"),
    "too many digits": (lambda: spikegen.phase(X, 5, period=25), ValueError, "pass at most 24"),
    "no digits": (lambda: spikegen.phase(X, 5, period=0), ValueError, "period is 0; pass 1 or more"),
    "burst of NaN": (lambda: spikegen.burst(NAN, 9), ValueError, r"burst expects data in \[0, 1\], got nan"),
    "a burst that does not fit": (lambda: spikegen.burst(X, 8), ValueError, "5 spikes, 2 to 1 steps apart, do not fit"),
    "intervals in the wrong order": (
        lambda: spikegen.burst(X, 50, min_interval=5, max_interval=4),
        ValueError,
        "min_interval <= max_interval",
    ),
    "a label too large": (lambda: spikegen.to_one_hot(torch.tensor([1, 3]), 3), ValueError, "3 is not one of 3"),
    "a label below zero": (lambda: spikegen.to_one_hot(torch.tensor([-1]), 3), ValueError, "-1 is not one of 3"),
    "a row of zeros": (
        lambda: spikegen.from_one_hot(torch.zeros(2, 3)),
        ValueError,
        r"\[0.0, 0.0, 0.0\] is not one-hot",
    ),
    "a row of two": (lambda: spikegen.from_one_hot(torch.ones(1, 2)), ValueError, "is not one-hot; .* argmax"),
    "a row of numbers": (lambda: spikegen.from_one_hot(torch.tensor([[1.0, 0.5]])), ValueError, "is not one-hot"),
    "no row": (lambda: spikegen.from_one_hot(torch.tensor(1)), ValueError, "got a single number"),
    "an unknown code": (
        lambda: spikegen.targets_convert(torch.tensor([0]), 2, code="x"),
        ValueError,
        "'rate' or 'latency'",
    ),
    "an unknown pattern": (
        lambda: spikegen.targets_rate(torch.tensor([0]), 2, firing_pattern="x"),
        ValueError,
        "pass one of 'regular', 'uniform', 'poisson'",
    ),
    "rates in the wrong order": (
        lambda: spikegen.targets_rate(torch.tensor([0]), 2, 5, correct_rate=0.1, incorrect_rate=0.2),
        ValueError,
        "pass 0 <= incorrect <= correct <= 1",
    ),
    "targets without steps": (
        lambda: spikegen.targets_rate(torch.tensor([0]), 2, correct_rate=0.5),
        ValueError,
        "needs num_steps",
    ),
    "a rate above one": (lambda: spikegen.target_rate_code(5, rate=2), ValueError, "rate is 2; pass 0 to 1"),
    "a train that starts late": (lambda: spikegen.target_rate_code(5, 6), ValueError, "pass at most 5"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_coded_is_refused_in_a_sentence(name):
    call, error, words = BAD[name]
    with pytest.raises(error, match=words):
        call()
