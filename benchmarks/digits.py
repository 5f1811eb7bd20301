"""Handwritten digits of 28 x 28 pixels: MNIST if available, else upscaled digits of scikit-learn."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .result import CannotRun
from .runner import NotInstalled

ENVIRONMENT = "SPIKELOOM_DATA"
"""Names an .npz file with MNIST's images `x` [N, 28, 28] of bytes and labels `y` [N], or a folder with one."""


def digits(count: int) -> tuple[Tensor, Tensor, str]:
    """Return images [count, 784] in [0, 1], their labels, and their source; the dataset repeats as needed."""
    images, labels, source = mnist(Path(place)) if (place := os.environ.get(ENVIRONMENT)) else scaled_up()
    rows = torch.arange(count) % len(images)
    return images[rows], labels[rows], source


def mnist(place: Path) -> tuple[Tensor, Tensor, str]:
    """Load the images and labels from a file, or from the first file in a folder."""
    path = next(iter(sorted(place.glob("*mnist*.npz"))), place) if place.is_dir() else place
    if not path.is_file():
        raise CannotRun(f"{ENVIRONMENT} is {place}; name an .npz file with x [N, 28, 28] and y [N], or its folder")
    with np.load(path) as file:
        images, labels = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
    return images.flatten(1).float() / 255, labels.long(), "MNIST"


def scaled_up() -> tuple[Tensor, Tensor, str]:
    """Load the digits of 8 x 8 pixels that scikit-learn includes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise NotInstalled(f"no digits ({error}); pip install scikit-learn, or set {ENVIRONMENT}") from error
    images, labels = load_digits(return_X_y=True)
    small = torch.from_numpy(images).float().unflatten(1, (1, 8, 8)) / 16
    large = nn.functional.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
    return large.flatten(1), torch.from_numpy(labels).long(), "scikit-learn's digits, scaled up"
