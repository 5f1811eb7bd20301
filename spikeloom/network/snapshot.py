"""What a run may change, taken before it, so that it can be put back."""

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from .._torch import tree_leaves
from ..layers import SEES_TIME
from ..neurons import SpikingNeuron
from ..neurons._listening import Listener

REGISTERED = ("_parameters", "_buffers", "_modules")
"""The attributes in which nn.Module itself holds tensors."""

Named = list[tuple[nn.Module, str, Any]]
"""Attributes, or buffers, with the module that has them and their name there."""


class Snapshot:
    """The attributes of every module of a network, among them the states of its neurons, and the values of its buffers.

    Attributes are taken by reference: a list that a forward appends to is not put back. Neither are the parameters.
    """

    def __init__(self, modules: Iterable[nn.Module]):
        # a lazy module turns into another class in its first call; to put its attributes back would tear it
        self._attributes = [(m, dict(vars(m))) for m in modules if not isinstance(m, LazyModuleMixin)]
        self._registered = [(m, dict(m._buffers)) for m, _ in self._attributes]
        self._values = [
            (buffer, buffer.detach().clone())
            for module, buffers in self._registered
            for buffer in buffers.values()
            if buffer is not None and not isinstance(module, SpikingNeuron)  # which writes to none of its buffers
        ]

    def restore(self) -> None:
        """Put everything back."""
        self.restore_attributes()
        for module, buffers in self._registered:
            module._buffers.clear()
            module._buffers.update(buffers)
        with torch.no_grad():
            for buffer, value in self._values:
                if not torch.equal(buffer, value):  # BatchNorm does not count its writes in the version
                    buffer.copy_(value)

    def restore_attributes(self) -> None:
        """Put the attributes back, and the buffers as they are now."""
        for module, attributes in self._attributes:
            vars(module).clear()
            vars(module).update(attributes)

    def states(self) -> Named:
        """What layers that see time keep now: attributes that hold tensors, or are no longer what they were."""
        return [
            (module, name, value)
            for module, then in self._attributes
            if isinstance(module, SEES_TIME)
            for name, value in vars(module).items()
            if name not in REGISTERED and (value is not then.get(name, self) or _holds_tensors(value))
        ]

    def changed_buffers(self) -> Named:
        """Copies of the buffers that have another value by now."""
        then = {id(buffer): value for buffer, value in self._values}
        return [
            (module, name, buffer.detach().clone())
            for module, buffers in self._registered
            for name, buffer in module._buffers.items()
            if buffer is not None
            and (buffer is not buffers.get(name) or (id(buffer) in then and not torch.equal(buffer, then[id(buffer)])))
        ]

    def written(self) -> bool:
        """Whether a buffer has another value since, as the running statistics of a BatchNorm have in training."""
        return any(not torch.equal(buffer, value) for buffer, value in self._values)

    def lend_buffers(self) -> None:
        """Let the network work on copies of its buffers until `restore`, so that not even their versions change."""
        self._lend({id(buffer): value for buffer, value in self._values})
        self._values = []  # nothing writes to the buffers themselves now

    def stand_in(self) -> None:
        """Let the network be as it was, on copies of its buffers, until a later snapshot is restored."""
        self.restore_attributes()
        self._lend({id(buffer): value.clone() for buffer, value in self._values})

    def _lend(self, copies: dict[int, Tensor]) -> None:
        for module, buffers in self._registered:
            lent = {name: None if b is None else copies.get(id(b), b) for name, b in buffers.items()}
            vars(module)["_buffers"] = type(module._buffers)(lent)

    def deafen(self) -> None:
        """Let nobody listen to the network until `restore` but who begins to after this."""
        for module, attributes in self._attributes:
            for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
                hooks = attributes[kind]
                heard = {key: hook for key, hook in hooks.items() if not isinstance(hook, Listener)}
                vars(module)[kind] = type(hooks)(heard)


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
        cuda = torch.cuda.get_rng_state_all() if self._cuda else []
        here = all(map(torch.equal, [torch.get_rng_state(), *cuda], [self._torch, *self._cuda]))
        return here and self.same_outside_torch()

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
