"""Which steps of a batch of sequences count: all of them, those under a mask, or the first ones of each sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
    if lengths is not None:
        mask = mask_from(lengths, x, owner)
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


def mask_from(lengths: Lengths, x: Tensor, owner: str) -> Tensor:
    """[T, B], True for the first steps of each sample, as many as `lengths` says."""
    steps, batch = x.shape[:2]
    lengths = torch.as_tensor(lengths, device=x.device)
    if lengths.is_floating_point() or lengths.shape != (batch,):
        raise ValueError(
            f"{owner} got lengths of {lengths.dtype} and the shape {list(lengths.shape)}; "
            f"pass whole numbers of the shape [{batch}], one per sample"
        )
    insist((lengths >= 1) & (lengths <= steps), f"{owner} got lengths that are not all within 1 to T = {steps}")
    return torch.arange(steps, device=x.device).unsqueeze(1) < lengths


def insist(holds: Tensor, message: str) -> None:
    """Raise unless all are True; not while torch.compile traces, which knows no values."""
    if not torch.compiler.is_compiling() and not bool(holds.all()):
        raise ValueError(message)
