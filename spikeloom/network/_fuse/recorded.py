"""What `fuse` records: values without numbers, and the classes of operations.

An operation belongs to a class: the function, its constants, and the classes of its arguments. The steps of a loop
consist of operations of the same classes, which is how the loop is found (see `plan`).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount

import torch
from torch import Tensor

from ..._torch import autograd_on, is_any_autocast_enabled, new_wrapper, no_torch_function, swap_tensors
from ...neurons._unrolled_run import recorders
from .rules import Rule, tensors_in

STORED = 4096
"""At most so many unused tensors of one kind are stored."""

DEEPEST = 40
"""From this number of operations since the last neuron on, the class of a result is determined by its shape."""


class Recorded(Tensor):
    """The result of a recorded operation."""

    at: int  # the number of the value

    __torch_function__ = no_torch_function  # the mode sees every operation

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """An operation that torch's function modes do not see."""
        found = [t for t in tensors_in((args, kwargs or {})) if isinstance(t, Recorded)]
        if torch.is_grad_enabled() and any(t.requires_grad for t in found):
            raise RuntimeError(
                f"{func} reads a tensor of a function that spikeloom.fuse records, in a way that torch's function "
                "modes do not see; its gradient would be lost. Call this function without fuse"
            )
        recorder = recorders.current()
        if recorder is not None:
            with autograd_on():
                recorder.execute()
        if any(isinstance(t, Recorded) for t in found):
            raise RuntimeError(f"{func} reads a tensor of a function that spikeloom.fuse records in another thread")
        return func(*args, **(kwargs or {}))


class Kind:
    """The class of a value: what an operation sees of its arguments, without their numbers."""

    __slots__ = ("depth", "device", "dtype", "free", "made", "numel", "requires_grad", "site", "size", "stride")

    def __init__(self, like: Tensor, requires_grad: bool, depth: int, site: Any):
        self.size, self.stride, self.dtype, self.device = like.size(), like.stride(), like.dtype, like.device
        self.requires_grad, self.depth, self.site = requires_grad, depth, site
        self.numel = self.size.numel()
        self.free: list[Recorded] = []  # tensors of this kind that nobody has
        self.made: Callable[..., Any] = partial(
            new_wrapper,
            Recorded,
            self.size,
            strides=self.stride,
            dtype=self.dtype,
            device=self.device,
            requires_grad=requires_grad,
        )

    def key(self) -> tuple[Any, ...]:
        """All that its shape says."""
        return (self.size, self.stride, self.dtype, self.device, self.requires_grad)

    def zeros(self) -> Tensor:
        """A tensor of this kind."""
        made = torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=self.device).zero_()
        return made.requires_grad_(self.requires_grad)


class Slot:
    """A place in stored arguments: of a tensor, by its number among them, or of a number that differs between calls."""

    __slots__ = ("number", "tensor")

    def __init__(self, number: int, tensor: bool):
        self.number, self.tensor = number, tensor


class OpClass:
    """The class of an operation.

    Args:
        func: the function; a neuron for one of its steps.
        rule: how its calls run as one.
        form: its arguments, with `Slot`s for tensors and numbers that differ between calls.
        outs: the kinds of its results.
        mode: the modes of torch in which it runs, as `current_mode` returns them.
        container: makes the result from a list of tensors; None for a single tensor.
    """

    __slots__ = ("container", "form", "func", "inputs", "mode", "outs", "rule")

    def __init__(self, func: Any, rule: Rule, form: Any, outs: list[Kind], mode: Any, inputs: list[Kind]):
        self.func, self.rule, self.form, self.outs, self.mode, self.inputs = func, rule, form, outs, mode, inputs
        self.container: Any = None

    def call(self, tensors: Any, numbers: Any) -> Any:
        """Run the operation on its tensors."""
        args, kwargs = filled(self.form, tensors, numbers)
        return self.func(*args, **kwargs)


def filled(form: Any, tensors: Any, numbers: Any) -> Any:
    """Stored arguments with their slots filled."""
    kind = type(form)
    if kind is Slot:
        return (tensors if form.tensor else numbers)[form.number]
    if kind is tuple or kind is list:
        return kind([filled(part, tensors, numbers) for part in form])
    if kind is dict:
        return {name: filled(part, tensors, numbers) for name, part in form.items()}
    return form


class CannotNote(Exception):
    """An argument cannot be recorded."""


class Vocabulary:
    """The classes of operations and values that a fused function has seen, stored from call to call."""

    LARGEST = 20_000

    def __init__(self) -> None:
        self.operations: dict[Any, OpClass] = {}
        self.kinds: dict[Any, Kind] = {}
        self.steps: dict[Any, dict[Any, OpClass]] = {}  # by neuron and its options

    def tidy(self) -> None:
        """Forget all if it has become too large."""
        if len(self.operations) + len(self.kinds) > self.LARGEST:
            self.operations.clear()
            self.kinds.clear()
            self.steps.clear()

    def kind(self, like: Tensor, requires_grad: bool, key: Any, depth: int = 0, site: Any = None) -> Kind:
        """The kind of a key; one that is only described by its shape if it is deep."""
        if depth > DEEPEST:
            key, depth = ("deep", like.size(), like.stride(), like.dtype, like.device, requires_grad), 0
        found = self.kinds.get(key)
        if found is None:
            found = self.kinds[key] = Kind(like, requires_grad, depth, site)
        return found


class _Same:
    """Stands for: the result is the first argument itself."""


SAME: Any = _Same()


def become(tensor: Recorded, value: Tensor) -> None:
    """Turn a recorded tensor in place into a plain one."""
    del tensor.at
    swap_tensors(tensor, value)
    tensor.__class__ = Tensor  # type: ignore[assignment]


def references(tensors: list[Any]) -> list[int]:
    """How often each tensor of a list is referenced: ALONE if by the list alone."""
    return list(map(getrefcount, tensors))


ALONE = references([Kind(torch.zeros(0), False, 0, None).made()])[0]


def recycle(tensors: list[Any], kinds: list[Kind]) -> None:
    """Store the tensors that only this list has for the next recording."""
    counts = references(tensors)
    for at, tensor in enumerate(tensors):
        if tensor is not None and counts[at] == ALONE and len(tensor.__dict__) == 1 and not getweakrefcount(tensor):
            free = kinds[at].free
            if len(free) < STORED:
                free.append(tensor)


@contextmanager
def in_mode(mode: Any) -> Iterator[None]:
    """The modes of torch in which an operation was recorded."""
    if mode is True or mode is False:
        with torch.set_grad_enabled(mode):
            yield
        return
    grad, inference, *autocasts = mode
    with ExitStack() as stack:
        if inference:
            stack.enter_context(torch.inference_mode())
        else:
            stack.enter_context(torch.set_grad_enabled(grad))
        for device, on, dtype, cached in autocasts:
            stack.enter_context(torch.autocast(device, dtype=dtype, enabled=on, cache_enabled=cached))
        yield


def current_mode() -> Any:
    """The modes of torch in which an operation runs: whether gradients are on, or more if others are."""
    if is_any_autocast_enabled() or torch.is_inference_mode_enabled():
        states = []
        for device in ("cpu", "cuda"):
            on = torch.is_autocast_enabled(device)
            states.append((device, on, torch.get_autocast_dtype(device), torch.is_autocast_cache_enabled()))
        return (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *states)
    return torch.is_grad_enabled()
