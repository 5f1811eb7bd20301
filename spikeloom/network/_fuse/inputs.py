"""Tensors that a function recorded by `fuse` has from outside, and numbers of NumPy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..._torch import (
    DispatchMode,
    count_dispatch_modes,
    is_wrapped,
    pop_dispatch_mode,
    storage_of,
    without_torch_function,
)
from .recorded import CannotNote, Recorded, current_mode
from .rules import tensors_in


def is_shared(tensor: Tensor) -> bool:
    """Whether others may write into the memory unseen by torch: NumPy, other processes, a mapped file."""
    with without_torch_function():
        return not tensor.untyped_storage().resizable()


def is_view_of_shared(recorder: Any, args: Any, kwargs: Any) -> bool:
    """Whether the arguments of a view are all plain, and the first is a tensor in shared memory."""
    if not args or type(args[0]) is not Tensor or id(args[0]) in recorder.numbers or not is_shared(args[0]):
        return False
    return not any(type(t) is Recorded for t in tensors_in((args, kwargs)))


def from_outside(recorder: Any, tensor: Tensor) -> int:
    """The number of a tensor that is none of the recorded operations'; a copy of what is in shared memory."""
    with without_torch_function():
        if tensor.layout is not torch.strided or is_wrapped(tensor) or tensor.is_neg() or tensor.is_conj():
            raise CannotNote
        if is_shared(tensor):
            if type(tensor) is not nn.Parameter:
                return _copied(recorder, tensor)
            watch(recorder, tensor)
        number = _added(recorder, tensor)
        recorder.storages.add(storage_of(tensor))
    recorder.numbers[id(tensor)] = number
    return number


def _added(recorder: Any, tensor: Tensor) -> int:
    key: Any = (tensor.size(), tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad)
    if type(tensor) is nn.Parameter:
        key = (id(tensor), *key)
    recorder.outside_kinds.append(recorder.vocabulary.kind(tensor, tensor.requires_grad, key, 0, key[0]))
    recorder.outside.append(tensor)
    recorder.versions.append(-1 if tensor.is_inference() or type(tensor) is nn.Parameter else tensor._version)
    return ~(len(recorder.outside) - 1)


def _copied(recorder: Any, tensor: Tensor) -> int:
    """The number of a copy of a tensor: the copy made before if nobody has changed the tensor since."""
    learned = tensor.requires_grad
    where = (tensor.data_ptr(), tensor.size(), tensor.stride(), tensor.dtype, learned, current_mode())
    before, number = recorder.copies.get(where, (None, 0))
    if before is not None and (before is tensor or not learned) and torch.equal(recorder.outside[~number], tensor):
        return int(number)
    with torch.set_grad_enabled(learned):
        number = _added(recorder, tensor.clone())
    recorder.copies[where] = tensor, number
    return int(number)


def watch(recorder: Any, tensor: Tensor) -> None:
    """Copy a parameter in shared memory, to see whether it changes during the recording."""
    with without_torch_function(), torch.no_grad():
        recorder.watched.append((tensor, tensor.detach().clone()))


def take_original(recorder: Any, number: int) -> bool:
    """Let a number stand for a tensor itself instead of its copy; returns whether it does."""
    held = recorder.outside[~number]
    for where, (tensor, copied) in recorder.copies.items():
        if copied == number:
            recorder.outside[~number], recorder.numbers[id(tensor)] = tensor, number
            recorder.versions[~number] = tensor._version
            del recorder.copies[where]
            return True
    return id(held) in recorder.numbers


def refuse_changed(recorder: Any) -> None:
    """Raise if a tensor has been changed since it was recorded, by what torch's function modes do not see."""
    for number, (tensor, version) in enumerate(zip(recorder.outside, recorder.versions, strict=True)):
        if version != -1 and tensor._version != version and ~number not in recorder.written:
            _refuse(recorder, tensor)
    for tensor, before in recorder.watched:
        if not torch.equal(tensor.nan_to_num(), before.nan_to_num()):
            _refuse(recorder, tensor)


def _refuse(recorder: Any, tensor: Tensor) -> None:
    recorder.abandon()
    raise RuntimeError(
        f"a tensor of the shape {list(tensor.shape)} was changed while a fused function that reads it ran, by NumPy, "
        "another thread, or an operation that torch's function modes do not see; pass a copy of it, or call the "
        "function without fuse"
    )


def without_numpy(args: Any, kwargs: Any) -> Any:
    """The arguments with the scalars of NumPy as numbers of Python; None if there are none."""
    found = False

    def plain(arg: Any) -> Any:
        nonlocal found
        if type(arg) is tuple or type(arg) is list:
            return type(arg)([plain(part) for part in arg])
        if type(arg).__module__ != "numpy" or getattr(arg, "ndim", None) != 0 or not hasattr(arg, "item"):
            return arg
        number = arg.item()
        if type(number) not in (bool, int, float):
            return arg
        found = True
        return number

    made = plain(tuple(args)), {name: plain(arg) for name, arg in kwargs.items()}
    return made if found else None


@contextmanager
def outside_modes(count: int) -> Iterator[None]:
    """A context without the dispatch modes that a function has entered since there were so many."""
    modes = [pop_dispatch_mode() for _ in range(count_dispatch_modes() - count)]
    try:
        yield
    finally:
        for mode in reversed(modes):
            DispatchMode.__enter__(mode)  # of any mode
