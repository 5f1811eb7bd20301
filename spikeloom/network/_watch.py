"""Record and replace the inputs and outputs of layers, so that two runs of a network can be compared."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from .._torch import BatchNorm, DispatchMode, argument_names, tree_flatten, tree_unflatten
from ..layers import SEES_TIME
from ..neurons import SpikingNeuron
from ..neurons._unrolled_run import UnrolledRun, current_run
from ._time_folding import Request

Key = tuple[str, str, int]
"""The path of a module, "input" or "output", and the index of its call within a step."""


@dataclass
class Note:
    """The input or output tensors of a module; static ones are [B, ...] at every step.

    Args:
        key: which module, input or output, and which call.
        module: the module.
        unrolled: the unrolled run; None step by step.
        tensors: the tensors before replacement.
        static: which of them are the same at every step.
        given: their replacements; empty if nothing was replaced.
    """

    key: Key
    module: nn.Module
    unrolled: UnrolledRun | None
    tensors: tuple[Tensor, ...]
    static: tuple[bool, ...]
    given: tuple[Tensor, ...] = ()


Steps = list[dict[Key, Note]]


def differs_by_design(module: nn.Module) -> bool:
    """Whether a module is a BatchNorm that uses the statistics of the batch."""
    return isinstance(module, BatchNorm) and (module.training or module.running_mean is None)


Substitution = Callable[[Note, tuple[Tensor, ...]], "list[Tensor] | None"]
"""A function from a note and its tensors to their replacements, or None."""


class Watch:
    """Records, and replaces, the inputs and outputs of layers until the layers are restored.

    It replaces the forward of each layer, so it is called inside of all hooks.

    Args:
        layers: the layers.
        names: the paths of modules.
        substitute: the replacements.
    """

    def __init__(self, layers: Iterable[nn.Module], names: Mapping[nn.Module, str], substitute: "Substitution"):
        self._substitute, self._notes = substitute, list[Note]()
        self._calls: dict[tuple[nn.Module, int], int] = {}
        for module in layers:
            vars(module)["forward"] = partial(self._call, module, names.get(module, ""), module.forward)

    def taken(self) -> list[Note]:
        """The notes since the last call of this method."""
        taken, self._notes, self._calls = self._notes, [], {}
        return taken

    def _call(self, module: nn.Module, path: str, forward: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        unrolled = current_run()
        call = self._calls.get((module, id(unrolled)), 0)
        args, kwargs = self._note((path, "input", call), module, unrolled, (args, kwargs))
        self._calls[module, id(unrolled)] = call + 1
        return self._note((path, "output", call), module, unrolled, forward(*args, **kwargs))

    def _note(self, key: Key, module: nn.Module, unrolled: UnrolledRun | None, tree: Any) -> Any:
        with nullcontext() if unrolled is None else unrolled.aside():
            leaves, form = tree_flatten(tree)
            tensors = tuple([leaf for leaf in leaves if _counts(leaf)])
            static = tuple([unrolled is not None and unrolled.is_static(t) for t in tensors])
            note = Note(key, module, unrolled, tuple([t.detach().clone() for t in tensors]), static)
            self._notes.append(note)
            substituted = self._substitute(note, tensors)
            if substituted is None:
                return tree
            if unrolled is None:
                note.given = tuple([t.clone() for t in substituted])
            rest = iter(substituted)
            return tree_unflatten([next(rest) if _counts(leaf) else leaf for leaf in leaves], form)


# -- replacements -----------------------------------------------------------------------------------------------------


def driven(steps: Steps) -> Substitution:
    """Step by step: add currents that make every neuron fire, and replace its output by synthetic spikes."""

    currents: dict[Any, Tensor] = {}

    def substitute(note: Note, tensors: tuple[Tensor, ...]) -> list[Tensor] | None:
        neuron, (path, way, _) = note.module, note.key
        if not isinstance(neuron, SpikingNeuron) or not tensors or not tensors[0].is_floating_point():
            return None
        first, *rest = tensors
        if way == "output":
            return [_pattern(first, path, len(steps)), *rest]
        at = note.key, first.shape, first.dtype
        if at not in currents:
            threshold = getattr(neuron, "threshold", None)
            if not isinstance(threshold, Tensor) or not threshold.numel():
                threshold = torch.ones(())
            currents[at] = 3 * threshold.abs().max().nan_to_num(0.0, 0.0, 0.0) * _pattern(first, path, 0)
        return [first + currents[at], *rest]

    return substitute


def _pattern(like: Tensor, path: str, step: int) -> Tensor:
    """Spikes with probability 2/5, different for each row and step."""
    draw = np.random.default_rng(crc32(f"{step} {path}".encode()))  # NumPy's, which `NoChance` does not intercept
    return torch.from_numpy(draw.integers(5, size=tuple(like.shape), dtype=np.uint8) < 2).to(like)


def given(steps: Steps, request: Request) -> Substitution:
    """Unrolled, replace inputs and outputs of neurons, and outputs that differ by design, by those of the loop."""

    def substitute(note: Note, tensors: tuple[Tensor, ...]) -> list[Tensor] | None:
        module, unrolled = note.module, note.unrolled
        forced = isinstance(module, SEES_TIME) or (note.key[1] == "output" and differs_by_design(module))
        if unrolled is None or not forced:
            return None
        if any(note.key not in step or len(step[note.key].tensors) != len(tensors) for step in steps):
            return None
        new = []
        for i, (t, static) in enumerate(zip(tensors, note.static, strict=True)):
            each = [(step[note.key].given or step[note.key].tensors)[i] for step in steps]
            other = each[0] if static else torch.cat(each)
            if other.shape != t.shape or other.dtype != t.dtype:
                return None
            if unrolled.origins is not None:
                unrolled.origins.mark(other, static)
            new.append(other)
        return new

    return substitute


def noise(steps: Steps) -> Substitution:
    """Do as `driven`, and add a rounding error to inputs of the network and of neurons and to outputs of layers."""
    drive = driven(steps)

    def substitute(note: Note, tensors: tuple[Tensor, ...]) -> list[Tensor]:
        new = drive(note, tensors) or [*tensors]
        (path, way, _), neuron = note.key, isinstance(note.module, SEES_TIME)
        if (neuron or not path) if way == "input" else not (neuron or note.module._modules):
            return [_shaken(t) for t in new]
        return new

    return substitute


def _shaken(t: Tensor) -> Tensor:
    if not t.is_floating_point() or not t.numel():
        return t
    wave = torch.arange(t.numel(), device=t.device, dtype=torch.float32).cos().view(t.shape)
    return t + (16 * precision(t) * t.abs().max() * wave).to(t.dtype)


def _counts(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0


# -- random operations -------------------------------------------------------------------------------------------------

DROPOUT = ("dropout_p", "dropout")
"""Names of arguments that turn off the randomness of an operation if they are 0."""


class NoChance(DispatchMode):
    """A mode in which torch's random operations return constants, and the caller's generators do not advance.

    Dropout drops nothing. A distribution with a tensor parameter (Bernoulli, Poisson, normal) returns that tensor; any
    other random number is 0.5, any random integer 0.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        names = argument_names(func)
        name = func.overloadpacket.__name__
        off = "p" if name == "native_dropout" else next((n for n in DROPOUT if n in names), None)
        if off is not None:
            given = dict(zip(names, args, strict=False)) | kwargs | {off: 0.0}
            return func(**given)
        generator = kwargs.get("generator")
        before = None if generator is None else generator.get_state()
        out = func(*args, **kwargs)
        if before is not None:
            generator.set_state(before)
        source = None if name.endswith(("_like", "_")) else next((a for a in args if isinstance(a, Tensor)), None)
        for t in (out,) if isinstance(out, Tensor) else out:
            if isinstance(t, Tensor):
                _settle(t, source, name)
        return out


def _settle(t: Tensor, source: Tensor | None, name: str) -> None:
    if source is not None and source.shape == t.shape:
        t.copy_(source)
    elif name == "randperm":
        t.copy_(torch.arange(len(t), device=t.device))
    else:
        t.fill_(0.5 if t.is_floating_point() or t.is_complex() else 0)


# -- differences ------------------------------------------------------------------------------------------------------


CURES = (
    "values stored between steps (an attribute, a counter, a state of a neuron), operations over dimension 0, which "
    "mix the rows of a batch (layers that expect time or nodes there, a mean, an index), or a value computed from the "
    "size of dimension 0. If you cannot change that, run the network step by step; if it is intended, pass check=False"
)

Difference = tuple[str, int | None]
"""A message, and the number of values that differ; None if more than values differ."""


def difference(note: Note, steps: Steps, request: Request) -> Difference | None:
    """The difference of a note of the unrolled run from those of the loop over steps, or None."""
    path, way, _ = note.key
    if way == "output" and differs_by_design(note.module):
        return None
    label = f"{path!r} ({type(note.module).__name__})" if path else f"the network ({type(note.module).__name__})"
    first = len(steps) - 1 if way == "state" else 0  # states are recorded at the last step only
    for step, stepped in enumerate(steps[first:], first):
        if note.key not in stepped:
            return f"{label} is called unrolled, but not at step {step}; look in the forward for {CURES}.", None
        if len(stepped[note.key].tensors) != len(note.tensors):
            return _sentence(label, way, step), None
    counts = [0] * len(steps)
    for i, (t, static) in enumerate(zip(note.tensors, note.static, strict=True)):
        if not static and len(t) != request.steps * request.batch:
            continue  # dimension 0 is not time and batch, for example in an attention layer
        wanted = [stepped[note.key].tensors[i] for stepped in steps[first:]]
        shape = t.shape if static else (request.batch, *t.shape[1:])
        for step, w in enumerate(wanted, first):
            if w.shape != shape or w.dtype != t.dtype:
                return _sentence(label, way, step), None
        got = t.expand(len(wanted), *shape) if static else t.view(len(wanted), *shape)
        for step, count in enumerate(count_unlike(got, torch.stack(wanted)), first):
            counts[step] += count
    differing = [step for step, count in enumerate(counts) if count]
    return (_sentence(label, way, differing[0]), sum(counts)) if differing else None


def _sentence(label: str, way: str, step: int) -> str:
    difference, where = {
        "input": ("gets another input", "the forward around it, or a hook,"),
        "output": ("returns other values for the same input", "its forward"),
        "state": ("has another state after the same input", "the forward around it"),
    }[way]
    return f"{label} {difference} unrolled than step by step, first at step {step}; look in {where} for {CURES}."


def count_unlike(got: Tensor, wanted: Tensor) -> list[int]:
    """The number of values that differ by more than rounding, per step, of tensors [T, ...] of one shape and dtype."""
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
    """The rounding error of products that compute a tensor like `t`."""
    kind = t.device.type
    eps = float(torch.finfo(t.dtype).eps)
    if torch.is_autocast_enabled(kind):
        eps = max(eps, float(torch.finfo(torch.get_autocast_dtype(kind)).eps))
    if kind == "cuda" and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32):
        eps = max(eps, 2.0**-10) if t.dtype is torch.float32 else eps
    return eps
