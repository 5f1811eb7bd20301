"""Spike coding: dtypes, spikes at the wrong step, options that were dropped."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .fix import Fix, error_of


def spikegen(snn: ModuleType) -> Any:
    return importlib.import_module(f"{snn.__name__}.spikegen")


def dtype_of_latency(dtype: torch.dtype) -> Callable[[ModuleType], torch.dtype]:
    def script(snn: ModuleType) -> torch.dtype:
        return spikegen(snn).latency(torch.tensor([0.0, 1.0], dtype=dtype), num_steps=20).dtype

    return script


def dtype_of_a_ramp(snn: ModuleType) -> torch.dtype:
    return spikegen(snn).latency_interpolate(torch.tensor([1.0], dtype=torch.float64), 3).dtype


def steps_of_spikes(spk: Tensor) -> list[int]:
    return spk.argmax(0).tolist()


def latency_of_halves(snn: ModuleType) -> list[int]:
    return steps_of_spikes(spikegen(snn).latency(torch.tensor([0.0, 1.0]).half(), num_steps=20))


def time_of_halves(snn: ModuleType) -> float:
    return round(spikegen(snn).latency_code(torch.tensor([0.0]).half())[0].item(), 1)


def infinite_time(snn: ModuleType) -> Any:
    try:
        return steps_of_spikes(spikegen(snn).latency(torch.tensor([0.0, 1.0]), num_steps=20, epsilon=0))
    except Exception as error:
        return type(error).__name__


def times_of_far_data(snn: ModuleType) -> str:
    return error_of(lambda: spikegen(snn).latency_code(torch.tensor([-0.1, 1.1]), first_spike_time=1))


def integers(name: str) -> Callable[[ModuleType], str]:
    def script(snn: ModuleType) -> str:
        options = {"num_steps": 2} if name == "rate" else {}
        return error_of(lambda: getattr(spikegen(snn), name)(torch.tensor([0, 1]), **options))

    return script


def batch_of_none(snn: ModuleType) -> list[str]:
    codes, none = spikegen(snn), torch.zeros(0, 3)
    calls = (
        lambda: codes.latency(none, num_steps=5),
        lambda: codes.latency_code_linear(none, num_steps=5, normalize=True),
        lambda: codes.delta(none),
        lambda: codes.to_one_hot(none[:, 0].long(), 3),
    )
    return [error_of(call) for call in calls]


def falling_bytes(snn: ModuleType) -> list[float]:
    return spikegen(snn).delta(torch.tensor([9, 1], dtype=torch.uint8), threshold=2, off_spike=True).tolist()


def changing_bools(snn: ModuleType) -> str:
    return error_of(lambda: spikegen(snn).delta(torch.tensor([True, False])))


def labels_of_one_hot(snn: ModuleType) -> list[int]:
    return spikegen(snn).from_one_hot(torch.tensor([[0, 1, 0], [1, 0, 0]])).tolist()


def labels_of_images(snn: ModuleType) -> str:
    return error_of(lambda: spikegen(snn).to_one_hot(torch.tensor([[0, 1], [2, 0]]), 3))


def half_a_label(snn: ModuleType) -> str:
    return error_of(lambda: spikegen(snn).to_one_hot(torch.tensor([1.5]), 3))


def targets_of_rates(classes: int) -> Callable[[ModuleType], Any]:
    def script(snn: ModuleType) -> Any:
        try:
            out = spikegen(snn).targets_rate(torch.tensor([1]), classes, num_steps=4, correct_rate=0.5)
        except RuntimeError as error:
            return type(error).__name__
        return tuple(out.shape), out[:, 0, 1].tolist() if out.dim() == 3 else "no train"

    return script


def options_of_targets(**options: Any) -> Callable[[ModuleType], list[float]]:
    def script(snn: ModuleType) -> list[float]:
        label, given = torch.tensor([0]), {"normalize": True, **options}
        out = spikegen(snn).targets_convert(label, 2, code="latency", num_steps=3, **given)
        return out[:, 0, 1].tolist()

    return script


def epsilon_of_targets(snn: ModuleType) -> int:
    """The step at which the wrong neuron fires."""
    out = spikegen(snn).targets_convert(torch.tensor([0]), 2, code="latency", num_steps=20, epsilon=0.001)
    return int(out[:, 0, 1].argmax())


def targets_before_the_start(snn: ModuleType) -> str:
    return error_of(lambda: spikegen(snn).targets_rate(torch.tensor([0]), 2, num_steps=4, first_spike_time=-1))


def unknown_pattern(snn: ModuleType) -> str:
    return error_of(lambda: spikegen(snn).target_rate_code(4, firing_pattern="bursting"))


def times_of_no_spikes(snn: ModuleType) -> torch.dtype:
    return spikegen(snn).target_rate_code(4, rate=0)[1].dtype


def train(times: list[float], steps: int, **options: Any) -> Callable[[ModuleType], list[float]]:
    def script(snn: ModuleType) -> list[float]:
        return spikegen(snn).rate_interpolate(torch.tensor(times), steps, **options).tolist()

    return script


def ramp_of_the_past(snn: ModuleType) -> list[float]:
    return spikegen(snn).latency_interpolate(torch.tensor([-1.0]), 3).flatten().tolist()


DTYPE_ROW = "dtype of `latency`, `latency_interpolate`, `rate_interpolate`"
HALF_ROW = "`latency` of float16, bfloat16, below the threshold"
INTEGER_ROW = "`rate`, `rate_conv` of integers or bools"
DELTA_ROW = "`delta` of unsigned integers or bools"
RATES_ROW = "`targets_convert`, `targets_rate` with a `correct_rate` other than 1 or an `incorrect_rate` other than 0"
OPTIONS_ROW = '`targets_convert(code="latency")` with `on_target`, `off_target`, `interpolate` or `epsilon`'
TRAIN_ROW = "`rate_interpolate` of times between steps or beyond the end, or with on_target below off_target"

FIXES: dict[str, Fix] = {
    "latency of float64": Fix(DTYPE_ROW, dtype_of_latency(torch.float64), torch.float32, torch.float64),
    "latency of bfloat16": Fix(DTYPE_ROW, dtype_of_latency(torch.bfloat16), torch.float32, torch.bfloat16),
    "a ramp of float64": Fix(DTYPE_ROW, dtype_of_a_ramp, torch.float32, torch.float64),
    "latency of float16": Fix(HALF_ROW, latency_of_halves, [19, 0], [12, 0]),
    "a time of float16": Fix(HALF_ROW, time_of_halves, float("inf"), 11.5),
    "an infinite time": Fix("`latency` with an `epsilon` lost in rounding", infinite_time, [19, 0], "ValueError"),
    "times of far data": Fix(
        "`latency_code` with a `first_spike_time`, and data both below 0 and above 1",
        times_of_far_data,
        "Exception",
        "nothing",
    ),
    "rate of integers": Fix(INTEGER_ROW, integers("rate"), "NotImplementedError", "nothing"),
    "rate_conv of integers": Fix(INTEGER_ROW, integers("rate_conv"), "NotImplementedError", "nothing"),
    "codes of a batch of none": Fix(
        "an empty batch, or a sequence of no steps",
        batch_of_none,
        ["RuntimeError", "RuntimeError", "IndexError", "RuntimeError"],
        ["nothing"] * 4,
    ),
    "bytes that fall": Fix(DELTA_ROW, falling_bytes, [0, 0], [1.0, -1.0]),
    "bools that change": Fix(DELTA_ROW, changing_bools, "RuntimeError", "nothing"),
    "from one-hot": Fix("`from_one_hot`", labels_of_one_hot, [0, 1], [1, 0]),
    "labels of images": Fix("`to_one_hot` of labels `[B, H, W]`", labels_of_images, "RuntimeError", "nothing"),
    "half a label": Fix("`to_one_hot` of a label that is not an integer", half_a_label, "nothing", "ValueError"),
    "targets of other rates": Fix(RATES_ROW, targets_of_rates(3), "RuntimeError", ((4, 1, 3), [1.0, 0.0, 1.0, 0.0])),
    "targets of other rates, as many classes as steps": Fix(
        RATES_ROW, targets_of_rates(4), ((4, 1, 4, 1, 4), "no train"), ((4, 1, 4), [1.0, 0.0, 1.0, 0.0])
    ),
    "levels of latency targets": Fix(
        OPTIONS_ROW, options_of_targets(on_target=2.0, off_target=0.5), [0.0, 0.0, 1.0], [0.5, 0.5, 2.0]
    ),
    "ramps of latency targets": Fix(
        OPTIONS_ROW, options_of_targets(interpolate=True), [0.0, 0.0, 1.0], [0.0, 0.5, 1.0]
    ),
    "epsilon of latency targets": Fix(OPTIONS_ROW, epsilon_of_targets, 12, 2),
    "targets before the start": Fix(
        "`targets_rate` with a negative `first_spike_time`", targets_before_the_start, "nothing", "ValueError"
    ),
    "an unknown pattern": Fix(
        "`target_rate_code` with an unknown `firing_pattern`", unknown_pattern, "nothing", "ValueError"
    ),
    "times of no spikes": Fix("`target_rate_code(rate=0)`", times_of_no_spikes, torch.float32, torch.int64),
    "a time between steps": Fix(TRAIN_ROW, train([1.5], 4), [0.0, 0.0], [0.0, 0.5, 1.0, 0.0]),
    "a time beyond the end": Fix(TRAIN_ROW, train([1.0, 7.0], 4), [0.0, 1.0], [0.0, 1.0, 0.0, 0.0]),
    "a ramp that falls": Fix(
        TRAIN_ROW, train([2.0], 4, on_target=0, off_target=1), [1.0, 0.5, 1.0], [1.0, 0.5, 0.0, 1.0]
    ),
    "a ramp of the past": Fix(
        "`latency_interpolate` of a time before the first step", ramp_of_the_past, [0.0, -1.0, -2.0], [0.0, 0.0, 0.0]
    ),
}
