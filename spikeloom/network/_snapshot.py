"""What a run may change, taken before it, so that it can be put back."""

import random
from collections.abc import Hashable, Iterable, Iterator
from functools import cache
from typing import Any, cast
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from .._torch import tree_leaves
from ..layers import SEES_TIME
from ..neurons._parameters import is_ours
from ..neurons._time import Listener
from ._reachable import put

HELD = ("_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""The attributes in which nn.Module itself holds tensors and hooks."""

Named = list[tuple["ref[nn.Module]", str, Any]]
"""Attributes, or buffers, with the module that has them and their name there."""


class Snapshot:
    """The attributes of every module of a network, among them the states of its neurons, and the values of its buffers.

    Attributes are taken by reference: a list that a forward appends to is not put back. Neither are the values of
    parameters, nor the modules within modules. It does not keep the modules alive.
    """

    def __init__(self, modules: Iterable[nn.Module]):
        self._taken: list[tuple[ref[nn.Module], dict[str, Any], dict[str, dict[Any, Any]]]] = []
        self._values: list[tuple[Tensor, Tensor]] = []
        for module in modules:
            if isinstance(module, LazyModuleMixin):
                continue  # it turns into another class in its first call; to put its attributes back would tear it
            attributes = dict(vars(module))
            attributes.pop("_modules", None)
            held = {n: d.copy() for n in HELD if (d := attributes.get(n)) and isinstance(d, dict)}
            self._taken.append((ref(module), attributes, held))
            if module._buffers and _may_write(module):
                self._values += [(b, b.detach().clone()) for b in module._buffers.values() if b is not None]

    def restore(self) -> None:
        """Put everything back."""
        self._put_back()
        for buffer, value in self._values:
            if not torch.equal(buffer, value):  # BatchNorm does not count its writes in the version
                buffer.detach().copy_(value)  # not under no_grad, which Ctrl-C at its end would leave on

    def _put_back(self) -> None:
        for module, attributes, held in self._living():
            put(vars(module), {**attributes, "_modules": module._modules})
            for name in HELD:
                own = attributes.get(name)
                if isinstance(own, dict) and (own or name in held):
                    put(own, held.get(name, {}))

    def _living(self) -> Iterator[tuple[nn.Module, dict[str, Any], dict[str, dict[Any, Any]]]]:
        for at, attributes, held in self._taken:
            module = at()
            if module is not None:
                yield module, attributes, held

    def states(self) -> Named:
        """What layers that see time keep now: attributes that hold tensors, or are no longer what they were."""
        return [
            (ref(module), name, value)
            for module, then, _ in self._living()
            if isinstance(module, SEES_TIME)
            for name, value in vars(module).items()
            if name not in HELD and (value is not then.get(name, self) or _holds_tensors(value)) and name != "_modules"
        ]

    def changed_buffers(self) -> Named:
        """Copies of the buffers that have another value by now."""
        then = {id(buffer): value for buffer, value in self._values}
        changed: Named = []
        for module, _, held in self._living():
            before = held.get("_buffers", {})
            for name, buffer in module._buffers.items():
                if buffer is None:
                    continue
                same = torch.equal(buffer, then.get(id(buffer), buffer))
                if buffer is not before.get(name) or not same:
                    changed.append((ref(module), name, buffer.detach().clone()))
        return changed

    def written(self) -> bool:
        """Whether a buffer has another value since, as the running statistics of a BatchNorm have in training."""
        return any(not torch.equal(buffer, value) for buffer, value in self._values)

    def versions(self) -> list[tuple[Tensor, int]]:
        """Of the parameters and buffers of which there is no copy here."""
        copied = {id(buffer) for buffer, _ in self._values}
        tensors = [t for m, *_ in self._living() for t in (*m._parameters.values(), *m._buffers.values())]
        return [(t, t._version) for t in tensors if t is not None and id(t) not in copied and not t.is_inference()]

    def lend_buffers(self) -> None:
        """Let the network work on copies of its buffers until `restore`, so that not even their versions change."""
        self._lend({id(buffer): value for buffer, value in self._values})
        self._values = []  # nothing writes to the buffers themselves now

    def stand_in(self) -> None:
        """Let the network be as it was, on copies of its buffers, until a later snapshot is restored."""
        self._put_back()
        self._lend({id(buffer): value.clone() for buffer, value in self._values})

    def _lend(self, copies: dict[int, Tensor]) -> None:
        for module, *_ in self._living():
            lent = {name: None if b is None else copies.get(id(b), b) for name, b in module._buffers.items()}
            vars(module)["_buffers"] = type(module._buffers)(lent)

    def mute(self) -> None:
        """Until `restore` the hooks of taps and monitors hear nothing; the network runs as if they did."""
        for module, *_ in self._living():
            for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
                hooks = vars(module)[kind]
                quiet = {key: hook.muted() if isinstance(hook, Listener) else hook for key, hook in hooks.items()}
                vars(module)[kind] = type(hooks)(quiet)


@cache
def _of_torch(kind: Hashable) -> bool:
    """Whether a class of modules is of torch.nn, or of this package."""
    theirs: type = next(base for base in getattr(kind, "__mro__", ()) if not is_ours(base))
    return theirs.__module__.startswith("torch.nn.modules.")


def _may_write(module: nn.Module) -> bool:
    """Whether its forward may write to its buffers.

    Layers of this package do not; those of torch.nn only where they keep running statistics, or by a hook such as that
    of spectral_norm.
    """
    if not _of_torch(cast(Hashable, type(module))) or (module.training and vars(module).get("track_running_stats")):
        return True
    return not all(
        isinstance(h, Listener) for h in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    )


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, (Tensor, list, tuple, dict)) and any(isinstance(t, Tensor) for t in tree_leaves(value))


class RandomState:
    """The random generators that a network may draw from: torch's on the CPU and on CUDA, NumPy's and Python's."""

    def __init__(self) -> None:
        self._python, self._numpy = random.getstate(), np.random.get_state()
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restore(self) -> None:
        """Draw the same numbers again."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)

    def same(self) -> bool:
        """Whether nothing was drawn since."""
        return self.same_in_torch() and self.same_outside_torch()

    def same_in_torch(self) -> bool:
        """Whether torch's generators still stand where they stood."""
        cuda = torch.cuda.get_rng_state_all() if self._cuda else []
        return all(map(torch.equal, [torch.get_rng_state(), *cuda], [self._torch, *self._cuda]))

    def same_outside_torch(self) -> bool:
        """Whether NumPy's and Python's generators still stand where they stood."""
        kind, words, *rest = np.random.get_state()
        mine, known, *others = self._numpy
        same = (kind, *rest) == (mine, *others) and np.array_equal(words, known)
        return same and random.getstate() == self._python


def torch_random(device: torch.device) -> list[bytes]:
    """Where torch's generators stand, on the CPU and on that device."""
    states = [_bytes(torch.get_rng_state())]
    return [*states, _bytes(torch.cuda.get_rng_state(device))] if device.type == "cuda" else states


def _bytes(state: Tensor) -> bytes:
    return bytes(state.numpy().tobytes())
