"""Tasks that are generated: MNIST-1D, Yin-Yang, Mackey-Glass. Every split has its own seed."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..task import SPLITS, Data, Task, check, needs


@cache
def _mnist1d() -> dict[str, Any]:
    make = needs("mnist1d.data")
    made: dict[str, Any] = make.make_dataset(make.get_dataset_args())
    return made


def mnist1d(split: str) -> Data:
    """5,000 sequences of 40 numbers, the package's defaults; the last tenth of its training set validates."""
    made = _mnist1d()
    part = {"train": slice(0, 3600), "validation": slice(3600, 4000), "test": slice(None)}[check(split)]
    x, y = (made["x_test"], made["y_test"]) if split == "test" else (made["x"], made["y"])
    return Data(torch.tensor(x[part], dtype=torch.float32)[:, :, None], torch.tensor(y[part]).long())


def yin_yang(split: str) -> Data:
    """Points in the Yin-Yang symbol as (x, y, 1 - x, 1 - y), classes in equal shares (Kriener et al. 2022)."""
    random = np.random.default_rng(100 + SPLITS.index(check(split)))
    number, big, small = (5000 if split == "train" else 1000), 0.5, 0.1
    points: list[list[float]] = []
    while len(points) < number:
        x, y = random.random(2)
        left, right = math.hypot(x - big / 2, y - big), math.hypot(x - 1.5 * big, y - big)
        yin = right <= small or small < left <= big / 2 or (y > big and right > big / 2)
        kind = 2 if min(left, right) <= small else int(yin)
        if math.hypot(x - big, y - big) <= big and kind == len(points) % 3:
            points.append([x, y, 1 - x, 1 - y])
    return Data(torch.tensor(points, dtype=torch.float32), torch.arange(number) % 3)


# -- Mackey-Glass ------------------------------------------------------------------------------------------------------

POINTS = 75
"""Points per Lyapunov time."""

LYAPUNOV = 197.0
"""Lyapunov time of the series with tau = 17, in its units of time."""

TRAINED, FORECAST, HELD_OUT = 10, 10, 2
"""Lyapunov times that are given, that are forecast, and that are taken from the end of the first for validation."""


@cache
def series(points: int, tau: float = 17.0) -> Tensor:
    """The series x' = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x by Runge-Kutta steps with a hundredth of tau."""
    fine = 100
    dt, x = tau / fine, [1.2] * (fine + 1)

    def slope(now: float, past: float) -> float:
        return 0.2 * past / (1 + past**10) - 0.1 * now

    warm_up = 2000.0
    for _ in range(int((warm_up + points * LYAPUNOV / POINTS) / dt) + 2):
        now, past, next_past = x[-1], x[-fine - 1], x[-fine]
        middle = (past + next_past) / 2
        a = slope(now, past)
        b = slope(now + dt / 2 * a, middle)
        c = slope(now + dt / 2 * b, middle)
        x.append(now + dt / 6 * (a + 2 * b + 2 * c + slope(now + dt * c, next_past)))
    times = (warm_up + np.arange(points) * LYAPUNOV / POINTS) / dt + fine
    return torch.tensor(np.interp(times, np.arange(len(x)), x), dtype=torch.float32)


def mackey_glass(split: str) -> Data:
    """Windows of the series, [N, T, 1], and their next values: of the first 8 Lyapunov times, or of the two after."""
    given = series((TRAINED + FORECAST) * POINTS + 1)
    borders = {"train": (0, TRAINED - HELD_OUT), "validation": (TRAINED - HELD_OUT, TRAINED)}
    borders["test"] = (TRAINED, TRAINED + FORECAST)
    first, last = (border * POINTS for border in borders[check(split)])
    part, window = given[first : last + 1], POINTS
    starts = range(last - first - window + 1)
    x = torch.stack([part[start : start + window] for start in starts])[..., None] - 1
    y = torch.stack([part[start + 1 : start + window + 1] for start in starts])[..., None] - 1
    return Data(x, y)


def forecast_error(advance: Callable[[Tensor], Tensor], split: str) -> float:
    """sMAPE in percent of autoregressive forecasts, in which every prediction is the next input, as in NeuroBench.

    In the test 10 Lyapunov times are given and 10 are forecast. In the validation the mean over six forecasts of one
    Lyapunov time, which begin at six points of the two Lyapunov times that were held out, after 7 that are given.
    """
    true = series((TRAINED + FORECAST) * POINTS + 1)
    if split == "test":
        starts, given, ahead = [TRAINED * POINTS], TRAINED * POINTS, FORECAST * POINTS
    else:
        held_out = (TRAINED - HELD_OUT) * POINTS
        starts, given, ahead = list(range(held_out, held_out + POINTS + 1, POINTS // 5)), 7 * POINTS, POINTS
    known = torch.stack([true[start - given : start] for start in starts], 1) - 1
    wanted = torch.stack([true[start : start + ahead] for start in starts], 1)
    predicted = [advance(known[..., None])[-1:]]
    for _ in range(ahead - 1):
        predicted.append(advance(predicted[-1]))
    values = torch.cat(predicted)[..., 0] + 1
    return float(200 * ((wanted - values).abs() / (wanted.abs() + values.abs())).mean())


TASKS = {
    "mnist1d": Task(
        "MNIST-1D",
        mnist1d,
        "the package's 4,000 and 1,000; the last 400 of the 4,000 validate",
        10,
        mark="94 % (its CNN; GRU 91, MLP 68)",
    ),
    "yin_yang": Task(
        "Yin-Yang",
        yin_yang,
        "5,000, 1,000 and 1,000 points, generated with three seeds",
        3,
        static_steps=20,
        mark="98 %",
    ),
    "mackey_glass": Task(
        "Mackey-Glass, forecast, sMAPE",
        mackey_glass,
        "tau = 17; 10 Lyapunov times of 75 points are given, the last two validate by six forecasts of one; the "
        "next 10 are forecast",
        0,
        mark="13.37 (NeuroBench's LSTM; ESN 14.79)",
        score=forecast_error,
        epochs=4,
    ),
}
