"""A task: three splits, loaded one at a time, and a score."""

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import spikeloom as snn

SPLITS = ("train", "validation", "test")


class Missing(Exception):
    """Data or a package that a task requires is missing; the message says what to do."""


class Unavailable(Missing):
    """A task cannot be loaded here, with any recipe."""


class Lazy:
    """Sequences that are read when they are indexed, for data that do not fit in memory: ``[N, *shape]``.

    Args:
        read: from the number of a sequence to the sequence.
        number: of sequences, N.
        shape: of a sequence.
    """

    def __init__(self, read: Callable[[int], Tensor], number: int, shape: tuple[int, ...]):
        self.read, self.shape = read, torch.Size((number, *shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor) -> Tensor:
        """The sequences of an index ``[B]``, as float32."""
        batch = torch.empty(len(index), *self.shape[1:])
        for row, i in zip(batch, index.tolist(), strict=True):
            row.copy_(self.read(i))
        return batch


@dataclass(frozen=True)
class Data:
    """One split: sequences, targets, lengths."""

    x: Tensor | Lazy
    """``[N, T, *S]``, or ``[N, *S]`` if the task shows the same input at every step."""
    y: Tensor
    """Classes ``[N]``, or values ``[N, T, K]``."""
    lengths: Tensor | None = None
    """Number of steps of each sequence, ``[N]``, or None if all have T."""

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Sizes:
    """The sizes of a task from which a recipe builds its network."""

    steps: int
    shape: tuple[int, ...]
    """Of the input of one step."""
    outputs: int
    """Number of classes, or of values."""

    @property
    def inputs(self) -> int:
        """Number of values of one step."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Task:
    """A data set with a stated split, and how it is scored.

    Args:
        title: one line for the table.
        load: from the name of a split to its data. Training never asks for "test".
        split: how the three splits were made, a sentence.
        outputs: number of classes; 0 for a regression.
        static_steps: show the same input for this many steps; None if the data are sequences.
        decide: number of last steps that count; None for all.
        mark: a reference result.
        score: of a regression: from (advance, split) to a number, lower is better; None for the accuracy. `advance`
            runs the network on [T, 1, K] from its current states.
        epochs: times the number of a recipe, for small or large data sets.
        images: whether the input of a step is an image [C, H, W].
    """

    title: str
    load: Callable[[str], Data]
    split: str
    outputs: int
    static_steps: int | None = None
    decide: int | None = None
    mark: str = ""
    score: Callable[..., float] | None = field(default=None)
    epochs: float = 1.0
    images: bool = False

    @property
    def higher_is_better(self) -> bool:
        """Whether the score is an accuracy."""
        return self.score is None

    @property
    def worst(self) -> float:
        """A score that every number is better than."""
        return -math.inf if self.higher_is_better else math.inf

    def better(self, score: float, best: float) -> bool:
        """Whether a score is better than the best so far; NaN never is."""
        return score > best if self.higher_is_better else score < best

    def sizes(self, data: Data) -> Sizes:
        """The sizes of the task, from one of its splits."""
        shape = tuple(data.x.shape[1:] if self.static_steps else data.x.shape[2:])
        steps = self.static_steps or data.x.shape[1]
        return Sizes(steps, shape, self.outputs or data.y.shape[-1])

    def mask(self, lengths: Tensor | None, steps: int, batch: int) -> Tensor:
        """True at the steps that count, ``[T, B]``."""
        ends = torch.full((batch,), steps) if lengths is None else lengths
        step = torch.arange(steps)[:, None]
        return (step < ends) & (step >= ends - (self.decide or steps))


def needs(package: str, extra: str = "recipes") -> Any:
    """Import a package, or raise an error that names its extra."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Unavailable(f"this task needs {package.partition('.')[0]}; pip install 'spikeloom[{extra}]'") from error


def data_file(*names: str) -> Path:
    """A file in the folder that SPIKELOOM_DATA names."""
    root = os.environ.get("SPIKELOOM_DATA")
    if root is None:
        raise Unavailable(f"this task reads {'/'.join(names)}; set SPIKELOOM_DATA to the folder that has it")
    path = Path(root, *names)
    if not path.exists():
        raise Unavailable(f"this task reads {path}, which is not there; set SPIKELOOM_DATA to the folder that has it")
    return path


def cached(
    name: str, make: Callable[[], dict[str, Any]], file: Path | None = None, **parameters: Any
) -> dict[str, Any]:
    """Arrays that take long to make, from an earlier call with the same file, version and parameters."""
    stat = None if file is None else file.stat()
    made_of = [snn.__version__, stat and (stat.st_size, stat.st_mtime_ns), sorted(parameters.items())]
    name = f"{name}-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]}"
    folder = Path(os.environ.get("SPIKELOOM_CACHE_DIR") or Path.home() / ".cache" / "spikeloom") / "recipes"
    path = folder / f"{name}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{name}-{os.getpid()}.npz"
        np.savez_compressed(part, **make())
        part.replace(path)
    with np.load(path) as made:
        return {key: made[key] for key in made.files}


def check(split: str) -> str:
    """Return the name of a split; raise an error if there is none of that name."""
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; choose among {', '.join(SPLITS)}")
    return split


def standardized(x: Tensor, like: Tensor) -> Tensor:
    """Zero mean and unit variance per channel, by the statistics of the training data ``[N, T, C]``."""
    flat = like.flatten(0, 1)
    return (x - flat.mean(0)) / flat.std(0).clamp(min=1e-6)
