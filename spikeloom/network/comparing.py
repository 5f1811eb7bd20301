"""Does a network give the same unrolled as step by step? The first steps both ways, on copies, module by module."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from .._torch import tree_leaves
from ..neurons._sequence import WholeSequence
from ..neurons._state import on_trial
from ..neurons._time import Time, current_time
from .request import Request
from .running import REPEATED, run
from .snapshot import RandomState, Snapshot

STEPS = 5
"""How many steps are compared. What a forward keeps between steps shows at the second."""

CURES = (
    "what it keeps between steps (an attribute, a counter), operations over dimension 0, which mix the rows of a "
    "batch, or a size of dimension 0 that enters a value. If that cannot be changed, run the network step by step"
)

Key = tuple[str, str, int]
"""The path of a module, "input" or "output", and which of its calls within a step."""


@dataclass(frozen=True)
class Note:
    """The tensors that went into a module, or came out; static ones are [B, ...] at every step."""

    key: Key
    module: nn.Module
    time: Time | None
    tensors: tuple[Tensor, ...]
    static: tuple[bool, ...]


class Twins:
    """A copy of a network as it is now, and its first steps of input, to be run step by step and unrolled."""

    def __init__(self, request: Request):
        for module, name in request.names.items():
            if isinstance(module, WholeSequence):
                raise TypeError(
                    f"check=True compares with single steps, which {name or 'the network'!r} ({type(module).__name__}) "
                    "does not have: it takes whole sequences alone. Leave check out, or check the network without it"
                )
        first = min(request.steps, STEPS)
        args, kwargs = request.mapped(lambda t: (t if request.static else t[:first]).detach().clone())
        self.request = replace(request, net=_copy(request.net).eval(), args=args, kwargs=kwargs, steps=first)

    def compare(self, repeated: str) -> None:
        """Run both ways, and raise where they differ.

        Args:
            repeated: why the run that is checked repeated its static input over time, or nothing.

        Raises:
            RuntimeError: naming the first module, in the order of the forward, that sees or returns other values.
        """
        if self.request.steps < 2:
            return  # nothing can be kept from step to step, and dimension 0 is that of a single step
        drawn = RandomState()
        device = self.request.tensors()[0].device.type
        try:
            with torch.no_grad(), on_trial(), torch.autocast(device, enabled=False):
                self._compare(repeated, drawn)
        finally:
            drawn.restore()

    def _compare(self, repeated: str, drawn: RandomState) -> None:
        request, tolerance = _doubled(self.request), 1e-9
        try:
            steps = _step_by_step(request)
        except Exception:  # some forwards insist on a dtype of their own
            request, tolerance = self.request, 1e-3
            steps = _step_by_step(_with_copy(request))
        if not drawn.same():
            raise RuntimeError(
                "unroll(..., check=True) compares in evaluation mode, and this network draws random numbers there too, "
                "so that no two runs are the same. Switch that off for the check"
            )
        for note in _at_once(_with_copy(request), repeated):
            _compare_note(note, steps, request, tolerance)


# -- the two ways -----------------------------------------------------------------------------------------------------


def _step_by_step(request: Request) -> list[dict[Key, Note]]:
    """What the modules saw and returned at each step."""
    request = _with_copy(request)
    steps = []
    for step in range(request.steps):
        args, kwargs = request.at(step)
        with _noting(request) as notes:
            request.net(*args, **kwargs)
        steps.append({note.key: note for note in notes})
    return steps


def _at_once(request: Request, repeated: str) -> list[Note]:
    """What the modules saw and returned unrolled, in the order in which they did."""
    if repeated:
        REPEATED[request.net] = {False: repeated}
    with _noting(request) as notes:
        time = run(request, Snapshot(request.names)).time
    return [note for note in notes if note.time is time]


@contextmanager
def _noting(request: Request) -> Iterator[list[Note]]:
    """Note what goes in and out of each layer of the network, by hooks that see every module of the process."""
    notes: list[Note] = []
    layers = request.layers()
    calls: dict[nn.Module, list[int]] = {}

    def note(module: nn.Module, way: str, number: int, tree: Any) -> None:
        time = current_time()
        with nullcontext() if time is None else time.aside():
            tensors = tuple(leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.dim())
            static = tuple(time is not None and time.is_static(t) for t in tensors)
            key = request.names[module], way, number
            notes.append(Note(key, module, time, tuple(t.detach().clone() for t in tensors), static))

    def before(module: nn.Module, args: Any) -> None:
        if module in layers:
            numbers = calls.setdefault(module, [])
            numbers.append(len(numbers))
            note(module, "input", numbers[-1], args)

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if module in layers:
            note(module, "output", calls[module][-1], output)

    hooks = register_module_forward_pre_hook(before), register_module_forward_hook(after)
    try:
        yield notes
    finally:
        for hook in hooks:
            hook.remove()


# -- the comparison ---------------------------------------------------------------------------------------------------


def _compare_note(note: Note, steps: list[dict[Key, Note]], request: Request, tolerance: float) -> None:
    path, way, _ = note.key
    label = f"{path!r} ({type(note.module).__name__})" if path else f"the network ({type(note.module).__name__})"
    for step, stepped in enumerate(steps):
        if note.key not in stepped:
            raise RuntimeError(f"{label} is called unrolled, and not at step {step}; look in the forward for {CURES}")
        wanted = stepped[note.key].tensors
        got = [_at(t, static, step, request) for t, static in zip(note.tensors, note.static, strict=True)]
        if len(got) != len(wanted) or not all(_close(g, w, tolerance) for g, w in zip(got, wanted, strict=True)):
            told = "gets another input" if way == "input" else "returns other values for the same input"
            where = "the forward around it" if way == "input" else "its forward"
            raise RuntimeError(
                f"{label} {told} unrolled than step by step, first at step {step}; look in {where} for {CURES}"
            )


def _at(t: Tensor, static: bool, step: int, request: Request) -> Tensor | None:
    """One step of a tensor of the unrolled run; None if dimension 0 is not time and batch, as inside an attention."""
    if static:
        return t
    if len(t) != request.steps * request.batch:
        return None
    return t.view(request.steps, request.batch, *t.shape[1:])[step]


def _close(got: Tensor | None, wanted: Tensor, tolerance: float) -> bool:
    if got is None:
        return True
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return False
    if not got.dtype.is_floating_point:
        return torch.equal(got, wanted)
    return torch.allclose(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


# -- copies -----------------------------------------------------------------------------------------------------------


def _copy(net: nn.Module) -> nn.Module:
    """A copy; tensors that belong to a graph, which torch does not copy, are taken without it."""
    kept = tree_leaves([list(vars(module).values()) for module in net.modules()])
    memo = {id(t): t.detach().clone() for t in kept if isinstance(t, Tensor) and not t.is_leaf}
    return copy.deepcopy(net, memo)


def _with_copy(request: Request) -> Request:
    net = _copy(request.net)
    return replace(request, net=net, names={module: name for name, module in net.named_modules()})


def _doubled(request: Request) -> Request:
    """The request in float64."""
    request = _with_copy(request)
    args, kwargs = request.mapped(lambda t: t.double() if t.is_floating_point() else t)
    return replace(request, net=request.net.double(), args=args, kwargs=kwargs)
