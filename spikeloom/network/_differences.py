"""What differs between a run over all time at once and a loop over steps, beyond rounding, in a sentence."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._torch import BatchNorm
from ..neurons._time import Time
from ._time_folding import Request

CURES = (
    "what it keeps between steps (an attribute, a counter, a state of a neuron), operations over dimension 0, which "
    "mix the rows of a batch (layers that take time or nodes there, a mean, an index), or a size of dimension 0 that "
    "enters a value. If that cannot be changed, run the network step by step, or pass check=False if it is meant"
)

Key = tuple[str, str, int]
"""The path of a module, "input" or "output", and which of its calls within a step."""


@dataclass
class Note:
    """The tensors that went into a module, or came out; static ones are [B, ...] at every step.

    Args:
        key: which module, which way, which call.
        module: the module.
        time: the unrolled run; None step by step.
        tensors: as they were.
        static: which are the same at every step.
        given: what the module got in their place, or what was returned in their place; empty if nothing was.
    """

    key: Key
    module: nn.Module
    time: Time | None
    tensors: tuple[Tensor, ...]
    static: tuple[bool, ...]
    given: tuple[Tensor, ...] = ()


Steps = list[dict[Key, Note]]


def differs_by_design(module: nn.Module) -> bool:
    """BatchNorm over the statistics of the batch."""
    return isinstance(module, BatchNorm) and (module.training or module.running_mean is None)


@dataclass(frozen=True)
class Difference:
    """What differs, in a sentence, and in how many numbers; None where it is more than numbers."""

    sentence: str
    count: int | None


def difference(note: Note, steps: Steps, request: Request) -> Difference | None:
    """Where a note of the unrolled run differs from those of the loop over steps; None if it does not."""
    path, way, _ = note.key
    if way == "output" and differs_by_design(note.module):
        return None
    label = f"{path!r} ({type(note.module).__name__})" if path else f"the network ({type(note.module).__name__})"
    first = len(steps) - 1 if way == "state" else 0  # of states, that of the last step is known
    for step, stepped in enumerate(steps[first:], first):
        if note.key not in stepped:
            told = f"{label} is called unrolled, and not at step {step}; look in the forward for {CURES}"
            return Difference(told, None)
        if len(stepped[note.key].tensors) != len(note.tensors):
            return Difference(_sentence(label, way, step), None)
    total, found = 0, None
    for i, (t, static) in enumerate(zip(note.tensors, note.static, strict=True)):
        if not static and len(t) != request.steps * request.batch:
            continue  # dimension 0 is not time and batch, as inside an attention
        wanted = [stepped[note.key].tensors[i] for stepped in steps[first:]]
        shape = t.shape if static else (request.batch, *t.shape[1:])
        for step, w in enumerate(wanted, first):
            if w.shape != shape or w.dtype != t.dtype:
                return Difference(_sentence(label, way, step), None)
        got = t.expand(len(wanted), *shape) if static else t.view(len(wanted), *shape)
        for step, count in enumerate(count_unlike(got, torch.stack(wanted)), first):
            if count and (found is None or step < found):
                found = step
            total += count
    return None if found is None else Difference(_sentence(label, way, found), total)


def _sentence(label: str, way: str, step: int) -> str:
    told, where = {
        "input": ("gets another input", "the forward around it, or a hook,"),
        "output": ("returns other values for the same input", "its forward"),
        "state": ("has another state after the same input", "the forward around it"),
    }[way]
    return f"{label} {told} unrolled than step by step, first at step {step}; look in {where} for {CURES}"


def count_unlike(got: Tensor, wanted: Tensor) -> list[int]:
    """How many numbers differ by more than rounding, at each step, of tensors [T, ...] of one shape and dtype."""
    if torch.equal(got, wanted):
        return [0] * len(got)
    if not got.dtype.is_floating_point:
        same = got == wanted
    else:
        close = precision(got)
        relative = min(1000 * close, close**0.5)
        finite = wanted.nan_to_num(0.0, 0.0, 0.0).abs()
        largest = finite.flatten(1).amax(1).view(-1, *[1] * (got.dim() - 1))
        same = (got - wanted).abs() <= relative * (finite + largest / 8)
        same |= (got == wanted) | (got.isnan() & wanted.isnan())
    counts: list[int] = (~same).flatten(1).sum(1).tolist()
    return counts


def precision(t: Tensor) -> float:
    """The rounding error of products that lead to a tensor."""
    kind = t.device.type
    eps = float(torch.finfo(t.dtype).eps)
    if torch.is_autocast_enabled(kind):
        eps = max(eps, float(torch.finfo(torch.get_autocast_dtype(kind)).eps))
    if kind == "cuda" and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32):
        eps = max(eps, 2.0**-10) if t.dtype is torch.float32 else eps
    return eps
