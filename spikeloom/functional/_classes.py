"""Class labels, what is wanted of each output neuron by them, and several neurons for one class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._steps import insist

Labels = Tensor | np.ndarray | Sequence[int]
"""Class labels, in any dtype that holds whole numbers."""

IGNORED = -100
"""The label of samples that are left out, as in torch.nn.CrossEntropyLoss."""


def as_tensor(targets: Any, like: Tensor, owner: str) -> Tensor:
    """Targets that come as an array or a list, as a tensor on the device of another."""
    if isinstance(targets, Tensor):
        return targets
    try:
        read: Tensor = torch.as_tensor(np.array(targets), device=like.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{owner} got targets of type {type(targets).__name__}; pass a tensor, a NumPy array or a list of numbers"
        ) from error
    return read


def labels_of(targets: Any, shape: tuple[int, ...], classes: int, like: Tensor, owner: str) -> Tensor:
    """Class labels as int64, each 0 to classes - 1, or `IGNORED`."""
    given = as_tensor(targets, like, owner)
    if given.shape != shape:
        raise ValueError(f"{owner} got targets of the shape {list(given.shape)}; pass class labels, {list(shape)}")
    if given.is_complex():
        raise ValueError(f"{owner} got targets of {given.dtype}; pass class labels")
    labels = given.long()
    if given.is_floating_point():
        insist(labels == given, f"{owner} got targets that are not whole numbers; pass class labels")
    _check_range(labels, classes, owner)
    return labels


def _check_range(labels: Tensor, classes: int, owner: str) -> None:
    """Raise where a label names no class. On a GPU that would wait for it: there the lookup itself asserts."""
    if labels.device.type == "cpu" and labels.numel() and not torch.compiler.is_compiling():
        for label in map(int, labels.masked_fill(labels == IGNORED, 0).aminmax()):
            if not 0 <= label < classes:
                raise IndexError(
                    f"{owner} got the target {label}; pass labels of its {classes} classes, 0 to {classes - 1}, or "
                    f"{IGNORED} for a sample to leave out"
                )


def chosen(labels: Tensor, classes: int, on: Any, off: Any, like: Tensor) -> Tensor:
    """[..., C]: `on` at the neuron of the class, `off` at all others; numbers, or tensors that broadcast to it."""
    hot = labels.unsqueeze(-1) == torch.arange(classes, device=labels.device)
    on, off = (torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in (on, off))
    return torch.where(hot, on, off)


def check_population(owner: str, population_code: bool, num_classes: int) -> None:
    """Raise if neurons are to be pooled into no classes."""
    if population_code and num_classes < 1:
        raise ValueError(f"{owner} got population_code=True and num_classes={num_classes!r}; say how many classes")


def pooled(x: Tensor, num_classes: int, owner: str) -> Tensor:
    """[..., N] to [..., num_classes]: the sum over the neurons of a class, which stand side by side."""
    if x.shape[-1] % num_classes:
        raise ValueError(
            f"{owner} got {x.shape[-1]} output neurons for {num_classes} classes; pass a multiple of {num_classes}"
        )
    return x.view(*x.shape[:-1], num_classes, -1).sum(-1)
