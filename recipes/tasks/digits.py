"""Handwritten digits, MNIST's or scikit-learn's: whole, by rows, by pixels, recorded by a simulated event camera."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from spikeloom import data

from ..task import Data, Task, cached, check, needs


def mnist_file() -> Path | None:
    """The file with 10,000 digits of MNIST, or None."""
    path = Path(os.environ.get("SPIKELOOM_DATA", ""), "mnist10k.npz")
    return path if path.is_file() else None


def source() -> str:
    """Which digits are used; stored with every run."""
    return "10,000 digits of MNIST" if mnist_file() else "scikit-learn's digits"


@cache
def _images(path: Path | None) -> tuple[Tensor, Tensor]:
    if path is not None:
        with np.load(path) as file:
            return torch.tensor(file["x"]).float() / 255, torch.tensor(file["y"]).long()
    digits: Any = needs("sklearn.datasets").load_digits()
    order = np.random.default_rng(7).permutation(len(digits.target))
    return torch.tensor(digits.images[order]).float() / 16, torch.tensor(digits.target[order]).long()


def _part(split: str) -> tuple[Tensor, Tensor]:
    """7,000, 1,000 and 2,000 digits of MNIST, or 1,200, 200 and 397 of scikit-learn's; the order is fixed."""
    x, y = _images(mnist_file())
    first, second = (7000, 8000) if mnist_file() else (1200, 1400)
    part = {"train": slice(0, first), "validation": slice(first, second), "test": slice(second, None)}[check(split)]
    return x[part], y[part]


def static(split: str) -> Data:
    """Whole images [N, 1, H, W], shown at every step."""
    x, y = _part(split)
    return Data(x[:, None], y)


def rows(split: str) -> Data:
    """One row of pixels per step."""
    return Data(*_part(split))


def permuted(split: str) -> Data:
    """One pixel per step in a fixed random order; MNIST is first halved to 14 x 14, 196 steps."""
    x, y = _part(split)
    pixels = (functional.avg_pool2d(x[:, None], 2) if mnist_file() else x).flatten(1)
    order = torch.randperm(pixels.shape[1], generator=torch.Generator().manual_seed(7))
    return Data(pixels[:, order, None], y)


SENSOR: dict[str, Any] = {"threshold": 0.4, "mismatch": 0.03, "refractory": 1000, "noise_rate": 0.5, "floor": 0.1}
SACCADES, BINS = 25, 12


def camera(split: str) -> Data:
    """The first 2,000, 500 and 1,000 digits of the splits as a simulated event camera sees them in three saccades."""
    x, y = _part(split)
    number = {"train": 2000, "validation": 500, "test": 1000}[split]
    x, y = x[:number], y[:number]

    def make() -> dict[str, Any]:
        drawn = torch.Generator().manual_seed(len(x))
        sensor = data.EventCamera(**SENSOR, generator=drawn)
        size = (x.shape[2], x.shape[1], 2)
        seen = [sensor(data.saccades(image, steps=SACCADES), times=4000) for image in x]
        return {
            "x": np.stack([data.to_frames(e, size, n_time_bins=BINS, binary=True, dtype=torch.uint8) for e in seen])
        }

    frames = cached(
        f"camera-{x.shape[1]}-{split}", make, mnist_file(), **SENSOR, saccades=SACCADES, bins=BINS, n=number
    )["x"]
    return Data(torch.tensor(frames).float(), y)


HOW = "MNIST: 7,000, 1,000 and 2,000 of 10,000; scikit-learn's: 1,200, 200 and 397"
TASKS = {
    "digits": Task("Digits, static", static, HOW, 10, static_steps=8, mark="98.5 % (MNIST)", epochs=0.7, images=True),
    "digits_rows": Task("Digits, row by row", rows, HOW, 10, mark="a GRU of the same size"),
    "digits_permuted": Task(
        "Digits, pixel by pixel, permuted", permuted, HOW, 10, mark="a GRU of the same size", epochs=0.5
    ),
    "digits_camera": Task(
        "Digits before a simulated event camera",
        camera,
        "the first 2,000, 500 and 1,000 digits of the three splits of MNIST (fewer of scikit-learn's)",
        10,
        mark="an MLP on all frames",
        images=True,
    ),
}
