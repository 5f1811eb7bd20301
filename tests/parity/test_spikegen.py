"""Our spikegen against that of snnTorch 1.0.0 over the products of the options: from one seed, the same spikes."""

import importlib
import inspect
import warnings
from itertools import product
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor

from spikeloom import spikegen

from ..each import for_each
from ..oracle import assert_close
from .running import snntorch

theirs = importlib.import_module(f"{snntorch.__name__}.spikegen")

HALVES = (torch.float16, torch.bfloat16)
FLOATS = (*HALVES, torch.float32, torch.float64)
FULL = (torch.float32, torch.float64)
BOTH = (False, True)
PATTERNS = ("regular", "uniform", "poisson")
LEVELS = ((1, 0), (2, 0.5), (0.5, -1), (0.25, 0.5))
"""on_target and off_target."""

ADDED = {
    "rate": ["generator"],
    "rate_conv": ["generator"],
    "latency": ["stretch"],
    "latency_code": ["stretch"],
    "latency_code_linear": ["stretch"],
    "latency_code_log": ["stretch"],
    "target_rate_code": ["generator"],
    "targets_convert": ["generator"],
    "targets_rate": ["generator"],
}
"""What ours take after the arguments that they share, by keyword."""

NAMES = sorted(
    name for name, thing in vars(theirs).items() if isinstance(thing, FunctionType) and not name.startswith("_")
)


def by_name(**values: Any) -> list[dict[str, Any]]:
    """Every combination of the values of options."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def third_by_name(**values: Any) -> list[dict[str, Any]]:
    """A third of the combinations, in which any three options still meet in all their values."""
    numbered = product(*(range(len(each)) for each in values.values()))
    kept = [sum(numbers) % 3 == 0 for numbers in numbered]
    return [options for options, keep in zip(by_name(**values), kept, strict=True) if keep]


def with_levels(combinations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The combinations, with their `levels` passed as on_target and off_target."""
    for options in combinations:
        options["on_target"], options["off_target"] = options.pop("levels")
    return combinations


def outcome(library: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What a function returns from a known seed, as a tuple; or that it raises."""
    torch.manual_seed(4)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"rate got data (up|down) to")
            returned = getattr(library, name)(*args, **options)
    except Exception:
        return "an error"
    return returned if isinstance(returned, tuple) else (returned,)


def assert_agree(name: str, args: tuple[Any, ...], combinations: list[dict[str, Any]], exact: bool = True) -> None:
    """Both return the same, or both raise, for each combination of options; and not all of them raise."""
    returned = 0
    for options in combinations:
        ours, other = (outcome(library, name, args, options) for library in (spikegen, theirs))
        message = f"{name}, {options}"
        assert isinstance(ours, str) == isinstance(other, str), f"{message}: ours {ours}, theirs {other}"
        if not isinstance(ours, str):
            returned += 1
            for got, wanted in zip(ours, other, strict=True):
                assert_close(got.to(wanted.dtype), wanted, message, exact)
    assert returned, "every call raised, so nothing was compared"


def numbers(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * (high - low) + low


def intensities() -> Tensor:
    """0 to 1, with the ends, thresholds and halves that round to the even step among them."""
    special = torch.tensor([0.0, 0.005, 0.01, 0.1, 0.3, 0.5, 0.75, 1.0])
    return torch.cat([special, numbers(24)]).reshape(4, 8)


@pytest.mark.parametrize("name", NAMES)
def test_every_function_has_the_same_arguments_in_the_same_order_with_the_same_defaults(name):
    ours, other = (inspect.signature(getattr(library, name)).parameters for library in (spikegen, theirs))
    taken = [(p.name, p.default) for p in ours.values()]
    assert taken[: len(other)] == [(p.name, p.default) for p in other.values()]
    assert [p.name for p in list(ours.values())[len(other) :]] == ADDED.get(name, [])
    assert all(p.kind is p.KEYWORD_ONLY for p in list(ours.values())[len(other) :])


# -- rate --------------------------------------------------------------------------------------------------------------

VIEWS = {
    "a batch": lambda x: x,
    "transposed": lambda x: x.T,
    "images, channels last": lambda x: x.reshape(2, 2, 4, 2).to(memory_format=torch.channels_last),
    "a single number": lambda x: x[0, 0],
    "a batch of none": lambda x: x[:0],
}


@for_each(
    ("view", "dtype"),
    [
        (view, dtype)
        for i, view in enumerate(VIEWS)
        for k, dtype in enumerate(FLOATS)
        if view == "a batch" or k == i % len(FLOATS)
    ],
)
def test_rate_draws_the_same(view, dtype):
    options = by_name(num_steps=(False, 1, 7, -1), gain=(1, 0.5, 3), offset=(0, 0.2), first_spike_time=(0, 2, -1, 7))
    assert_agree("rate", (VIEWS[view](numbers(4, 8, low=-0.2, high=1.2)).to(dtype),), options)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rate_of_a_sequence_draws_the_same_and_ignores_gain_and_offset(dtype):
    options = by_name(time_var_input=(True,), num_steps=(False, 3), gain=(1, 0), offset=(0, 1), first_spike_time=(0, 2))
    assert_agree("rate", (numbers(5, 3, low=-0.2, high=1.2).to(dtype),), options)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rate_conv_draws_the_same(dtype):
    assert_agree("rate_conv", (numbers(5, 30, low=-1, high=2).to(dtype),), [{}])


# -- latency -----------------------------------------------------------------------------------------------------------

TIMES: dict[str, tuple[Any, ...]] = {
    "num_steps": (False, 5, 13, 100),
    "threshold": (0.01, 0.3, 0.9, 0),
    "tau": (0.5, 1, 7.3, 0),
    "first_spike_time": (0, 4, -1),
    "normalize": BOTH,
}
EPSILONS = (1e-7, 0.05)


@pytest.mark.parametrize(("dtype", "shift"), [(torch.float32, 0), (torch.float64, -0.2)], ids=str)
def test_spike_times_are_the_same_to_the_bit(dtype, shift):
    x = (intensities().to(dtype) + shift,)
    assert_agree("latency_code", x, third_by_name(**TIMES, linear=BOTH, epsilon=EPSILONS))
    assert_agree("latency_code_log", x, third_by_name(**TIMES, epsilon=EPSILONS))
    assert_agree("latency_code_linear", x, third_by_name(**TIMES))


@pytest.mark.parametrize("dtype", FULL, ids=str)
def test_spike_times_of_data_above_one_are_the_same(dtype):
    x = (intensities().to(dtype) + 0.4,)
    assert_agree("latency_code_log", x, third_by_name(**TIMES), exact=False)
    assert_agree("latency_code_linear", x, third_by_name(**TIMES), exact=False)


@pytest.mark.parametrize(
    ("dtype", "linear"), [(torch.float32, False), (torch.float64, False), (torch.float32, True)], ids=str
)
def test_latency_places_the_same_spikes(dtype, linear):
    combinations = with_levels(
        third_by_name(
            num_steps=(False, 5, 13, 20),
            threshold=(0.01, 0.3),
            tau=(1, 5),
            first_spike_time=(0, 3),
            levels=LEVELS,
            clip=BOTH,
            normalize=BOTH,
            linear=(linear,),
            bypass=BOTH,
        )
    )
    assert_agree("latency", (intensities().to(dtype),), combinations)


@pytest.mark.parametrize("dtype", FULL, ids=str)
def test_latency_makes_the_same_ramps(dtype):
    combinations = with_levels(
        third_by_name(
            num_steps=(False, 5, 13),
            tau=(1, 5),
            first_spike_time=(0, 3),
            levels=LEVELS,
            clip=BOTH,
            normalize=BOTH,
            linear=BOTH,
            interpolate=(True,),
            bypass=BOTH,
        )
    )
    assert_agree("latency", (intensities().to(dtype),), combinations, exact=False)


@pytest.mark.parametrize("data", [(-0.1, 0.5), (0.5, 1.1)], ids=["below 0", "above 1"])
def test_both_refuse_the_data(data):
    for library in (spikegen, theirs):
        assert outcome(library, "latency", (torch.tensor(data),), {"num_steps": 20}) == "an error"


# -- delta -------------------------------------------------------------------------------------------------------------

SEQUENCES = {
    "a batch": lambda x: x,
    "one number per step": lambda x: x[:, 0],
    "one step": lambda x: x[:1],
    "images": lambda x: x.reshape(12, 2, 1, 2),
}


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.int8], ids=str)
@pytest.mark.parametrize("shape", SEQUENCES)
def test_delta_finds_the_same_changes(shape, dtype):
    x = SEQUENCES[shape](numbers(12, 4, low=-10, high=10)).to(dtype)
    assert_agree("delta", (x,), by_name(threshold=(-0.5, 0, 0.1, 3, 100), padding=BOTH, off_spike=BOTH))


def test_a_change_of_exactly_the_threshold_is_a_spike_in_both():
    x = torch.tensor([0.0, 0.5, 0.0, 0.25, 0.75])
    assert_agree("delta", (x,), by_name(threshold=(0.5,), padding=BOTH, off_spike=BOTH))


# -- interpolation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, *FULL], ids=str)
@pytest.mark.parametrize("levels", LEVELS[:3])
@pytest.mark.parametrize("steps", [1, 5, 16, 100, 1000])
def test_ramps_are_the_same(steps, levels, dtype):
    on_off = dict(zip(("on_target", "off_target"), levels, strict=True))
    for count in (0, 1, 3, steps // 2):
        train = (numbers(count) * steps).long().to(dtype)
        assert_agree("rate_interpolate", (train, steps), [on_off], exact=False)
        times = numbers(count, 3, high=steps + 2).to(dtype)
        assert_agree("latency_interpolate", (times, steps), [on_off], exact=False)


# -- targets -----------------------------------------------------------------------------------------------------------

LABELS = torch.tensor([0, 7, 3])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_target_rate_code_draws_the_same_train(pattern):
    rates = (0, 0.01, 0.1, 0.25, 1 / 3, 0.5, 0.7, 0.99, 1, 1.2, -0.1)
    combinations = by_name(
        num_steps=(0, 1, 5, 16, 100, -1), first_spike_time=(0, 1, 4, 16), rate=rates, firing_pattern=(pattern,)
    )
    assert_agree("target_rate_code", (), combinations)


@pytest.mark.parametrize("name", ["targets_rate", "targets_convert"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_targets_of_rate_one_and_zero_are_the_same(name, pattern):
    combinations = third_by_name(
        num_classes=(5, 8, 16),
        num_steps=(False, 8, 5),
        first_spike_time=(0, 1, 5, 9),
        levels=LEVELS,
        firing_pattern=(pattern,),
        interpolate=BOTH,
    )
    assert_agree(name, (LABELS,), with_levels(combinations))


@pytest.mark.parametrize("name", ["targets_rate", "targets_convert"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_targets_of_other_rates_are_the_same_where_snntorch_has_them(name, pattern):
    """It has them with interpolate=True and as many steps as classes, where on_target is above off_target."""
    for size in (8, 16):
        combinations = third_by_name(
            num_steps=(size,),
            first_spike_time=(0, 1, 4),
            correct_rate=(0.75, 0.5, 0.25, 1),
            incorrect_rate=(0.125, 0.25, 0.5),
            levels=LEVELS[:3],
            firing_pattern=(pattern,),
            interpolate=(True,),
        )
        assert_agree(name, (LABELS, size), with_levels(combinations), exact=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"correct_rate": 1.5},
        {"correct_rate": -0.5},
        {"incorrect_rate": -0.5},
        {"correct_rate": 0.2, "incorrect_rate": 0.5, "num_steps": 5},
        {"correct_rate": 0.5},
        {"firing_pattern": "bursting"},
        {"code": "burst"},
        {"num_classes": 5},
    ],
    ids=str,
)
def test_both_refuse_the_options(wrong):
    for library in (spikegen, theirs):
        assert outcome(library, "targets_convert", (LABELS,), {"num_classes": 8, **wrong}) == "an error"


TARGET_TIMES: dict[str, tuple[Any, ...]] = {
    "num_steps": (False, 5, 20),
    "first_spike_time": (0, 2),
    "threshold": (0.01, 0.3),
    "tau": (1, 4),
    "clip": BOTH,
    "normalize": BOTH,
    "linear": BOTH,
    "bypass": BOTH,
}


def test_latency_targets_are_the_same():
    options = with_levels(third_by_name(**TARGET_TIMES, levels=LEVELS[:2], interpolate=BOTH))
    assert_agree("targets_latency", (LABELS, 8), options, exact=False)


def test_latency_targets_by_their_code_are_the_same():
    assert_agree("targets_convert", (LABELS, 8), third_by_name(code=("latency",), **TARGET_TIMES))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float32], ids=str)
def test_one_hot_rows_are_the_same(dtype):
    assert_agree("to_one_hot", (LABELS.to(dtype),), by_name(num_classes=(7, 8, 9)))
    assert_agree("to_one_hot_inverse", (torch.tensor([[0, 1], [2, 0], [0, 3]]).to(dtype),), [{}])
    assert_agree("from_one_hot", (torch.eye(4).to(dtype),), [{}])
