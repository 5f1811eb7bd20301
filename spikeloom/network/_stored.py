"""Find the attributes through which a forward passes values from one step to the next."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import SEES_TIME
from ._snapshot import put

MOST = 16
"""Maximum number of written attributes of which it is tested whether the next step reads them."""

INTERNAL = frozenset(vars(nn.Module()))
"""The attributes of every module, such as `training`."""

Place = tuple[nn.Module, str]
"""A module and the name of one of its attributes or buffers."""

Between = Callable[[int], None]
"""A function that is called before each step of a loop, with the number of the step."""


def stored(
    modules: Iterable[nn.Module],
    names: Mapping[nn.Module, str],
    loop: Callable[[Between], Any],
    same: Callable[..., bool],
) -> str:
    """A sentence that names the attributes that a step reads after the step before has written them; empty if none.

    Args:
        modules: the modules that may hold them.
        names: the paths of the modules.
        loop: runs the steps one by one, with a function to call before each, and returns what they compute.
        same: whether two results of `loop` are equal.
    """
    places = [(module, name) for module in modules for name in _written_by_user(module)]
    first: dict[Place, _Value] = {}
    written: dict[Place, None] = {}

    def watch(step: int) -> None:
        if not step:
            first.update({place: _Value(place) for place in places})
            return
        here = {(module, name) for module in modules for name in _written_by_user(module)}
        written.update(dict.fromkeys(place for place in here if place not in first or first[place].changed()))

    wanted = loop(watch)
    if not same(wanted, loop(lambda step: None)):
        return ""  # not reproducible, so a different result proves nothing
    read = []
    for place in sorted(written, key=lambda place: (names.get(place[0], ""), place[1]))[:MOST]:

        def put_back(step: int, place: Place = place) -> None:
            if not step:
                first[place] = _Value(place)
            else:
                first[place].put_back()

        try:
            if not same(wanted, loop(put_back)):
                read.append(place)
        except Exception:  # the step fails without the values that the previous step has written
            read.append(place)
    if not read:
        return ""
    places_read = " and ".join(f"self.{name} of {_label(module, names)}" for module, name in read)
    return (
        f"a step reads {places_read}, which the step before has written. Let a recurrent neuron (snn.RLeaky) or a "
        "layer over time (snn.layers.OverTime) carry the value, or run the network step by step; if the difference is "
        "intended, pass check=False"
    )


def _label(module: nn.Module, names: Mapping[nn.Module, str]) -> str:
    path, kind = names.get(module, ""), type(module).__name__
    return f"{path!r} ({kind})" if path else f"the network ({kind})"


def _written_by_user(module: nn.Module) -> Iterator[str]:
    """The names of the attributes and buffers that a user's forward may write to."""
    if isinstance(module, SEES_TIME) or type(module).__module__.startswith("torch."):
        return
    yield from (name for name in vars(module) if name not in INTERNAL and name != "forward")
    yield from module._buffers


class _Value:
    """The value of an attribute at an earlier time, with its contents."""

    def __init__(self, place: Place):
        module, self.name = place
        buffers: dict[str, Any] = module._buffers
        self.holder = buffers if self.name in buffers else vars(module)
        self.missing = self.name not in self.holder
        self.value = self.holder.get(self.name)
        self.contents = _copy(_contents(self.value))

    def changed(self) -> bool:
        """Whether it was assigned, or its contents have changed."""
        now, was = _contents(self.holder.get(self.name)), self.contents
        if self.holder.get(self.name) is not self.value:
            return True
        if isinstance(now, Tensor):
            return now.shape != was.shape or not torch.equal(now, was)
        if isinstance(now, dict):
            return now.keys() != was.keys() or any(now[key] is not value for key, value in was.items())
        return [id(item) for item in now or ()] != [id(item) for item in was or ()]

    def put_back(self) -> None:
        """Restore it."""
        if self.missing:
            self.holder.pop(self.name, None)
            return
        self.holder[self.name] = self.value
        contents = _contents(self.value)
        if isinstance(contents, Tensor):
            contents.detach().copy_(self.contents)
        elif contents is not None:
            put(contents, self.contents)


def _contents(value: Any) -> Any:
    """The mutable contents of a value: a tensor, a container, or the attributes of an object; None for others."""
    if isinstance(value, nn.Module):
        return None
    if isinstance(value, (Tensor, list, dict, set, deque)):
        return value
    of_user = isinstance(value, SimpleNamespace) or type(value).__module__.partition(".")[0] not in (
        "torch",
        "builtins",
    )
    own = getattr(value, "__dict__", None)
    return own if of_user and isinstance(own, dict) and not callable(value) else None


def _copy(contents: Any) -> Any:
    if isinstance(contents, Tensor):
        return contents.detach().clone()
    return None if contents is None else dict(contents) if isinstance(contents, dict) else type(contents)(contents)
