"""Arguments of losses and accuracies: sequences with masked steps, class labels, and options shown in the repr."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Lengths = Tensor | Sequence[int]


@dataclass(frozen=True)
class Steps:
    """The steps that count in tensors [T, B, N].

    Args:
        number: number of steps that count: T, or [B, 1] if samples differ.
        end: one more than the last step that counts: T, or [B, 1].
        mask: [T, B, 1], True where a step counts; None if all do.
    """

    number: int | Tensor
    end: int | Tensor
    mask: Tensor | None = None

    def only(self, x: Tensor, other: float = 0.0) -> Tensor:
        """Fill the steps that do not count with `other`, so that their values, including NaN, have no effect."""
        return x if self.mask is None else x.masked_fill(~self.mask, other)

    def sum(self, x: Tensor) -> Tensor:
        """[T, B, N] to [B, N]."""
        return self.only(x).sum(0)

    def mean(self, x: Tensor) -> Tensor:
        """[T, B, N] to [B, N]."""
        return self.sum(x) / self.number

    def max(self, x: Tensor) -> Tensor:
        """[T, B, N] to [B, N]; the gradient flows to the first of equal maxima."""
        return self.only(x, -torch.inf).max(0).values


def read(
    x: Tensor,
    owner: str,
    name: str,
    mask: Tensor | None,
    lengths: Lengths | None,
    axes: str = "[T, B, C]",
    targets: Any = None,
) -> tuple[Tensor, Steps]:
    """Return a sequence in the dtype of computation, with zeros at the steps that do not count, and its `Steps`.

    `targets` show whether T and B are swapped; their values are not read.

    Half precision is computed in float32, so that counts over 2048 are exact and squares do not overflow.
    """
    if not isinstance(x, Tensor) or x.is_complex():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{owner} got {name} of type {kind}; pass a tensor of real numbers, {axes}; stack a list of tensors"
        )
    fits = x.dim() == 3 or (x.dim() > 3 and "*" in axes)
    if not fits or not len(x):
        raise ValueError(f"{owner} got {name} of the shape {list(x.shape)}; pass {axes}, time first, at least one step")
    total, batch = x.shape[:2]
    if total != batch and _lengths(targets) == (total,):
        raise ValueError(
            f"{owner} got {name} of the shape {list(x.shape)}, which is T = {total} steps of B = {batch} samples, and "
            f"{total} targets, one per sample. If the shape is [B, T, C], pass {name}.transpose(0, 1), time first"
        )
    steps = steps_of(x, owner, mask, lengths)
    return steps.only(x.to(torch.promote_types(x.dtype, torch.float32)).flatten(2)), steps


def steps_of(x: Tensor, owner: str, mask: Tensor | None, lengths: Lengths | None) -> Steps:
    """The steps of x [T, B, ...] that count by `mask` [T, B] or `lengths` [B]."""
    if mask is not None and lengths is not None:
        raise ValueError(f"{owner} got both mask and lengths; pass one of them")
    if lengths is not None:  # the first steps of each sample
        total, batch = x.shape[:2]
        lengths = torch.as_tensor(lengths, device=x.device)
        if lengths.is_floating_point() or lengths.shape != (batch,):
            raise ValueError(
                f"{owner} got lengths of {lengths.dtype} and the shape {list(lengths.shape)}; "
                f"pass integers of the shape [{batch}], one per sample"
            )
        insist((lengths >= 1) & (lengths <= total), f"{owner} got lengths that are not all in 1 to T = {total}")
        mask = torch.arange(total, device=x.device).unsqueeze(1) < lengths
    if mask is None:
        return Steps(len(x), len(x))
    if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
        raise ValueError(
            f"{owner} got a mask of {mask.dtype} and the shape {list(mask.shape)}; "
            f"pass torch.bool and {list(x.shape[:2])}, [T, B], True where a step counts"
        )
    insist(mask.any(0), f"{owner} got a mask in which a sample has no step that counts; remove that sample")
    after = torch.arange(1, len(x) + 1, device=x.device).unsqueeze(1)
    mask = mask.to(x.device)
    return Steps(mask.sum(0).unsqueeze(1), (mask * after).amax(0).unsqueeze(1), mask.unsqueeze(2))


def _lengths(targets: Any) -> tuple[int, ...]:
    """The shape of targets; of a list, its length alone."""
    shape = getattr(targets, "shape", None)
    return tuple(shape) if shape is not None else (len(targets),) if isinstance(targets, (list, tuple)) else ()


def insist(holds: Tensor, message: str) -> None:
    """Raise a ValueError unless all are True. Skipped under torch.compile, which traces without values."""
    if not torch.compiler.is_compiling() and not bool(holds.all()):
        raise ValueError(message)


Labels = Tensor | np.ndarray | Sequence[int]
"""Class labels, integers in any dtype."""

IGNORED = -100
"""The label of samples that are ignored, as in torch.nn.CrossEntropyLoss."""


def as_tensor(targets: Any, like: Tensor, owner: str) -> Tensor:
    """Convert targets to a tensor; arrays and lists are moved to the device of `like`."""
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
    """Return class labels as int64, each in [0, classes - 1] or `IGNORED`."""
    given = as_tensor(targets, like, owner)
    if given.shape != shape:
        raise ValueError(f"{owner} got targets of the shape {list(given.shape)}; pass class labels, {list(shape)}")
    if given.is_complex():
        raise ValueError(f"{owner} got targets of {given.dtype}; pass class labels")
    labels = given.long()
    if given.is_floating_point():
        insist(labels == given, f"{owner} got targets that are not integers; pass class labels")
    # on a GPU a check would synchronize; there the lookup itself asserts
    if labels.device.type == "cpu" and labels.numel() and not torch.compiler.is_compiling():
        for label in map(int, labels.masked_fill(labels == IGNORED, 0).aminmax()):
            if not 0 <= label < classes:
                raise IndexError(
                    f"{owner} got the target {label}; pass labels of its {classes} classes, 0 to {classes - 1}, or "
                    f"{IGNORED} to ignore a sample"
                )
    return labels


def chosen(labels: Tensor, classes: int, on: Any, off: Any, like: Tensor) -> Tensor:
    """[..., C]: `on` at the neuron of the class, `off` elsewhere; numbers, or tensors that broadcast to it."""
    hot = labels.unsqueeze(-1) == torch.arange(classes, device=labels.device)
    on, off = (torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in (on, off))
    return torch.where(hot, on, off)


def check_population(owner: str, population_code: bool, num_classes: int) -> None:
    """Raise a ValueError for a population code without a number of classes."""
    if population_code and num_classes < 1:
        raise ValueError(f"{owner} got population_code=True and num_classes={num_classes!r}; set num_classes")


def pooled(x: Tensor, num_classes: int, owner: str) -> Tensor:
    """[..., N] to [..., num_classes]: sum over the neurons of each class, which are adjacent."""
    if x.shape[-1] % num_classes:
        raise ValueError(
            f"{owner} got {x.shape[-1]} output neurons for {num_classes} classes; pass a multiple of {num_classes}"
        )
    return x.view(*x.shape[:-1], num_classes, -1).sum(-1)


class Optioned(nn.Module):
    """An nn.Module with a ``__name__``, whose repr shows the options that differ from the defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.__name__ = type(self).__name__

    def extra_repr(self) -> str:
        """The options in the syntax of a call."""
        parameters = inspect.signature(type(self)).parameters
        values = {key: getattr(self, key) for key in parameters if hasattr(self, key)}
        given = {key: value for key, value in values.items() if not _is_default(value, parameters[key].default)}
        return ", ".join(f"{key}={value!r}" for key, value in given.items())


def _is_default(value: Any, default: Any) -> bool:
    return value is default if isinstance(value, Tensor) else bool(value == default)
