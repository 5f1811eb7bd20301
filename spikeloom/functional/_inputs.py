"""What losses and accuracies take: sequences of which some steps count, class labels, and options that a repr shows."""

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
    """The steps that count in tensors of the shape [T, B, N].

    Args:
        number: how many count: T, or [B, 1] where samples differ.
        end: one more than the last that counts, likewise.
        mask: [T, B, 1], True where a step counts; None if all do.
    """

    number: int | Tensor
    end: int | Tensor
    mask: Tensor | None = None

    def only(self, x: Tensor, other: float = 0.0) -> Tensor:
        """The same with `other` at the steps that do not count, so that what stands there, NaN too, has no effect."""
        return x if self.mask is None else x.masked_fill(~self.mask, other)

    def sum(self, x: Tensor) -> Tensor:
        """[T, B, N] to [B, N]."""
        return self.only(x).sum(0)

    def mean(self, x: Tensor) -> Tensor:
        """[T, B, N] to [B, N]."""
        return self.sum(x) / self.number

    def max(self, x: Tensor) -> Tensor:
        """[T, B, N] to [B, N]; the gradient goes to the first of equal maxima."""
        return self.only(x, -torch.inf).max(0).values


def read(
    x: Tensor, owner: str, name: str, mask: Tensor | None, lengths: Lengths | None, axes: str = "[T, B, C]"
) -> tuple[Tensor, Steps]:
    """A sequence in the dtype that is computed in, with zeros at the steps that do not count; and those that do.

    Half precision is computed in float32, so that counts over 2048 are exact and squares do not overflow.
    """
    if not isinstance(x, Tensor) or x.is_complex():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{owner} got {name} of type {kind}; pass a tensor of real numbers, {axes}; of a list, stack it"
        )
    fits = x.dim() == 3 or (x.dim() > 3 and "*" in axes)
    if not fits or not len(x):
        raise ValueError(f"{owner} got {name} of the shape {list(x.shape)}; pass {axes}, time first, at least one step")
    steps = steps_of(x, owner, mask, lengths)
    return steps.only(x.to(torch.promote_types(x.dtype, torch.float32)).flatten(2)), steps


def steps_of(x: Tensor, owner: str, mask: Tensor | None, lengths: Lengths | None) -> Steps:
    """What `mask` [T, B] or `lengths` [B] say of x [T, B, ...]."""
    if mask is not None and lengths is not None:
        raise ValueError(f"{owner} got both mask and lengths; pass one of them")
    if lengths is not None:  # the first steps of each sample
        total, batch = x.shape[:2]
        lengths = torch.as_tensor(lengths, device=x.device)
        if lengths.is_floating_point() or lengths.shape != (batch,):
            raise ValueError(
                f"{owner} got lengths of {lengths.dtype} and the shape {list(lengths.shape)}; "
                f"pass whole numbers of the shape [{batch}], one per sample"
            )
        insist((lengths >= 1) & (lengths <= total), f"{owner} got lengths that are not all within 1 to T = {total}")
        mask = torch.arange(total, device=x.device).unsqueeze(1) < lengths
    if mask is None:
        return Steps(len(x), len(x))
    if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
        raise ValueError(
            f"{owner} got a mask of {mask.dtype} and the shape {list(mask.shape)}; "
            f"pass torch.bool and {list(x.shape[:2])}, [T, B], True where a step counts"
        )
    insist(mask.any(0), f"{owner} got a mask in which a sample has no step that counts; leave that sample out")
    after = torch.arange(1, len(x) + 1, device=x.device).unsqueeze(1)
    mask = mask.to(x.device)
    return Steps(mask.sum(0).unsqueeze(1), (mask * after).amax(0).unsqueeze(1), mask.unsqueeze(2))


def insist(holds: Tensor, message: str) -> None:
    """Raise unless all are True; not while torch.compile traces, which knows no values."""
    if not torch.compiler.is_compiling() and not bool(holds.all()):
        raise ValueError(message)


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
    # on a GPU a check would wait for it: there the lookup itself asserts
    if labels.device.type == "cpu" and labels.numel() and not torch.compiler.is_compiling():
        for label in map(int, labels.masked_fill(labels == IGNORED, 0).aminmax()):
            if not 0 <= label < classes:
                raise IndexError(
                    f"{owner} got the target {label}; pass labels of its {classes} classes, 0 to {classes - 1}, or "
                    f"{IGNORED} for a sample to leave out"
                )
    return labels


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


class Optioned(nn.Module):
    """An nn.Module whose repr shows the options that are not the defaults, and that has a ``__name__``."""

    def __init__(self) -> None:
        super().__init__()
        self.__name__ = type(self).__name__

    def extra_repr(self) -> str:
        """The options, as they are written in a call."""
        parameters = inspect.signature(type(self)).parameters
        values = {key: getattr(self, key) for key in parameters if hasattr(self, key)}
        given = {key: value for key, value in values.items() if not _is_default(value, parameters[key].default)}
        return ", ".join(f"{key}={value!r}" for key, value in given.items())


def _is_default(value: Any, default: Any) -> bool:
    return value is default if isinstance(value, Tensor) else bool(value == default)
