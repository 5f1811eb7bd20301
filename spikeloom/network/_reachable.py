"""Everything that a forward can write to, so that a network can be run once more and be left as it was.

Nothing is deep-copied: modules, locks and open files are not written to by value. What is copied are attributes, lists,
dicts, sets, arrays and tensors, wherever they hang on the network, and the state of its own random generators.
"""

import random
import sys
from collections import deque
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._torch import is_wrapped

FOREIGN = sys.stdlib_module_names | {"torch", "numpy", "spikeloom"}
"""Packages whose objects are not looked into: a forward has no business to write to them."""

MOST = 20_000
"""How many objects are looked into. A network that holds a whole dataset has more."""

ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes, type, torch.dtype, torch.device, torch.Size))
"""Types of values on which nothing hangs."""


class Reachable:
    """What hangs on some modules, as it is now.

    Args:
        modules: of the network; those that stand in plain lists or objects are found as well.
    """

    def __init__(self, modules: Iterable[nn.Module]):
        self.modules: list[nn.Module] = []
        self._saved: list[tuple[Any, Any, list[Any]]] = []  # containers, a copy of each, the keys of tensors
        self._empty: list[Any] = []  # containers that are empty, as most of a module are
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}
        self._versions: dict[int, int] = {}
        self._lazy: list[Tensor] = []
        self._arrays: list[tuple[Any, Any]] = []
        self._generators: list[tuple[Callable[[Any], Any], Any, Callable[[], Any]]] = []
        todo: list[Any] = list(modules)
        seen: set[int] = set()
        for obj in todo:  # which grows; the modules come first
            if id(obj) in seen:
                continue
            seen.add(id(obj))
            if isinstance(obj, nn.Module):
                self.modules.append(obj)
            if len(todo) < MOST:
                todo.extend(self._visit(obj))

    def _visit(self, obj: Any) -> Iterable[Any]:
        """Save one object; returns what hangs on it."""
        if isinstance(obj, (list, dict, set, deque)):
            if obj:
                return self._save(obj)
            self._empty.append(obj)
            return ()
        if isinstance(obj, tuple):
            return obj
        if isinstance(obj, Tensor):
            if is_lazy(obj):
                self._lazy.append(obj)
            elif (type(obj) is nn.Parameter or not isinstance(obj, nn.Parameter)) and not is_wrapped(obj):
                self._tensors[id(obj)] = obj, _like(obj)
                self._versions[id(obj)] = _version(obj)
        elif isinstance(obj, torch.Generator):
            self._generators.append((obj.set_state, obj.get_state(), obj.get_state))
        elif isinstance(obj, random.Random):
            self._generators.append((obj.setstate, obj.getstate(), obj.getstate))
        elif isinstance(obj, np.random.Generator):
            bits = obj.bit_generator
            self._generators.append((lambda s: setattr(bits, "state", s), bits.state, lambda: bits.state))
        elif isinstance(obj, np.ndarray) and obj.dtype != object and obj.flags.writeable:
            self._arrays.append((obj, obj.copy()))
        elif _has_attributes(obj):
            return self._save(vars(obj))
        return ()

    def _save(self, holder: Any) -> Iterable[Any]:
        saved = _copied(holder)
        items = [*(saved.items() if isinstance(saved, dict) else () if isinstance(saved, set) else enumerate(saved))]
        self._saved.append((holder, saved, [key for key, value in items if isinstance(value, Tensor)]))
        return [v for v in (saved if isinstance(saved, set) else [v for _, v in items]) if type(v) not in ATOMS]

    def now(self) -> Callable[[], None]:
        """Take what the containers hold by now, and where the generators stand; returns what puts that back."""
        containers = [(holder, _copied(holder)) for holder, *_ in self._saved]
        containers += [(holder, _copied(holder)) for holder in self._empty if holder]
        arrays = [(array, array.copy()) for array, _ in self._arrays]
        generators = [(setter, getter()) for setter, _, getter in self._generators]
        made = [(t, t.detach().clone()) for t in self._lazy if not is_lazy(t) and not isinstance(t, nn.Parameter)]

        def put_back() -> None:
            self._clear()
            for holder, values in containers:
                put(holder, values)
            _fill(arrays)
            with torch.no_grad():
                for t, values in made:
                    t.copy_(values)
            for setter, state in generators:
                setter(state)

        return put_back

    def begin(self, only: Iterable[Any] | None = None) -> None:
        """Let everything, or some containers only, be as it was, on copies of the tensors."""
        which, copies = None if only is None else set(map(id, only)), dict[int, Tensor]()
        for holder, saved, keys in self._saved:
            if which is None or id(holder) in which:
                put(holder, self._on_copies(saved, keys, copies) if keys else saved)
        if which is None:
            self._clear()
            self._rewind()

    def _on_copies(self, saved: Any, keys: Iterable[Any], copies: dict[int, Tensor]) -> Any:
        lent = _copied(saved)
        for key in keys:
            tensor = id(saved[key])
            if tensor in self._tensors:
                if tensor not in copies:
                    copies[tensor] = _like(self._tensors[tensor][1])
                lent[key] = copies[tensor]
        return lent

    def _clear(self) -> None:
        for holder in self._empty:
            if holder:
                holder.clear()

    def _rewind(self) -> None:
        _fill(self._arrays)
        for setter, state, _ in self._generators:
            setter(state)

    def forget_unwritten(self) -> None:
        """Let `begin` make no copies of parameters that nobody has written to since: they may be large."""
        for key, (tensor, values) in [*self._tensors.items()]:
            same = isinstance(tensor, nn.Parameter) and _version(tensor) == self._versions[key]
            if same and torch.equal(tensor, values):
                del self._tensors[key]

    def restore(self) -> None:
        """Put back what the containers held, and the values of the tensors that were written to."""
        for holder, saved, _ in self._saved:
            put(holder, saved)
        self._clear()
        self._rewind()
        with torch.no_grad():
            for tensor, values in self._tensors.values():
                if not torch.equal(tensor, values):
                    tensor.copy_(values)

    def drawn(self) -> tuple[bool, bool]:
        """Whether generators that hang on the network were drawn from: one of torch's, one of another library."""
        moved = [(state, getter()) for _, state, getter in self._generators]
        torchs = any(not torch.equal(was, now) for was, now in moved if isinstance(was, Tensor))
        return torchs, any(repr(was) != repr(now) for was, now in moved if not isinstance(was, Tensor))


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _like(tensor: Tensor) -> Tensor:
    """A copy, of a parameter as a parameter: a forward may clip its weights."""
    copy = tensor.detach().clone()
    return nn.Parameter(copy, tensor.requires_grad) if type(tensor) is nn.Parameter else copy


def put(holder: Any, values: Any) -> None:
    """Put back what a container held; at no time does a dict lack any of it."""
    if isinstance(holder, dict):
        holder.update(values)
        if len(holder) != len(values):
            for key in holder.keys() - values.keys():
                del holder[key]
    elif isinstance(holder, list):
        holder[:] = values
    elif isinstance(holder, set):
        holder.intersection_update(values)
        holder.update(values)
    else:
        holder.clear()
        holder.extend(values)


def _fill(arrays: Iterable[tuple[Any, Any]]) -> None:
    for array, values in arrays:
        array[...] = values


def _copied(holder: Any) -> Any:
    return dict(holder) if isinstance(holder, dict) else set(holder) if isinstance(holder, set) else list(holder)


def _has_attributes(obj: Any) -> bool:
    if isinstance(obj, (nn.Module, SimpleNamespace)):
        return True
    kind = type(obj)
    return kind.__module__.partition(".")[0] not in FOREIGN and isinstance(getattr(obj, "__dict__", None), dict)
