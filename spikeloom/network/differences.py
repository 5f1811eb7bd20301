"""What differs between a run over all time at once and a loop over steps, beyond rounding, in a sentence."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._torch import BatchNorm
from ..neurons._time import Time
from .request import Request

CURES = (
    "what it keeps between steps (an attribute, a counter, a state of a neuron), operations over dimension 0, which "
    "mix the rows of a batch (layers that take time or nodes there, a mean, an index), or a size of dimension 0 that "
    "enters a value. If that cannot be changed, run the network step by step, or pass check=False if it is meant"
)

Key = tuple[str, str, int]
"""The path of a module, "input" or "output", and which of its calls within a step."""


@dataclass(frozen=True)
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
    if way == "state":  # unrolled, that of the last step is known
        pairs = zip(note.tensors, steps[-1][note.key].tensors, strict=True)
        counts = [count_unlike(got, wanted) for got, wanted in pairs]
        if not any(count != 0 for count in counts):
            return None
        told = _sentence(label, way, len(steps) - 1)
        return Difference(told, None if None in counts else sum(count or 0 for count in counts))
    count, first = 0, None
    for step, stepped in enumerate(steps):
        if note.key not in stepped:
            told = f"{label} is called unrolled, and not at step {step}; look in the forward for {CURES}"
            return Difference(told, None)
        wanted = stepped[note.key].tensors
        if len(wanted) != len(note.tensors):
            return Difference(_sentence(label, way, step), None)
        for t, static, w in zip(note.tensors, note.static, wanted, strict=True):
            got = _at(t, static, step, request)
            unlike = 0 if got is None else count_unlike(got, w)
            if unlike is None:
                return Difference(_sentence(label, way, step), None)
            first = step if unlike and first is None else first
            count += unlike
    return None if first is None else Difference(_sentence(label, way, first), count)


def _sentence(label: str, way: str, step: int) -> str:
    told, where = {
        "input": ("gets another input", "the forward around it"),
        "output": ("returns other values for the same input", "its forward"),
        "state": ("has another state after the same input", "the forward around it"),
    }[way]
    return f"{label} {told} unrolled than step by step, first at step {step}; look in {where} for {CURES}"


def _at(t: Tensor, static: bool, step: int, request: Request) -> Tensor | None:
    """One step of a tensor of the unrolled run; None if dimension 0 is not time and batch, as inside an attention."""
    if static:
        return t
    if len(t) != request.steps * request.batch:
        return None
    return t.view(request.steps, request.batch, *t.shape[1:])[step]


def count_unlike(got: Tensor, wanted: Tensor) -> int | None:
    """How many numbers differ by more than rounding; None for another shape or dtype."""
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return None
    if not got.dtype.is_floating_point:
        return int((got != wanted).sum())
    if torch.equal(got, wanted):
        return 0
    close = precision(got)
    relative = min(1000 * close, close**0.5)
    finite = wanted.nan_to_num(0.0, 0.0, 0.0).abs()
    absolute = float(finite.max()) * relative / 8 if finite.numel() else 0.0
    return int((~torch.isclose(got, wanted, relative, absolute, equal_nan=True)).sum())


def precision(t: Tensor) -> float:
    """The rounding error of products that lead to a tensor."""
    kind = t.device.type
    eps = float(torch.finfo(t.dtype).eps)
    if torch.is_autocast_enabled(kind):
        eps = max(eps, float(torch.finfo(torch.get_autocast_dtype(kind)).eps))
    if kind == "cuda" and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32):
        eps = max(eps, 2.0**-10) if t.dtype is torch.float32 else eps
    return eps
