"""The registry of living neurons: a list-like view with weak references, which keeps no network in memory."""

import inspect
import weakref
from abc import ABCMeta
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .._torch import is_view
from ._methods import WATCHED
from ._parameters import is_ours


class Instances(Sequence[Any]):
    """The living neurons in order of creation, held by weak references."""

    def __init__(self) -> None:
        self._alive: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def add(self, neuron: Any) -> None:
        """Add `neuron`, once."""
        self._alive[id(neuron)] = neuron

    def forget(self, which: Callable[[Any], bool] = lambda neuron: True) -> None:
        """Remove the neurons for which `which` is true from the list; the neurons stay alive."""
        for neuron in list(self):
            if which(neuron):
                self._alive.pop(id(neuron), None)

    def __iter__(self) -> Iterator[Any]:
        living = [ref() for ref in self._alive.valuerefs()]  # at once: another thread may add some
        return iter([neuron for neuron in living if neuron is not None])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __contains__(self, neuron: object) -> bool:
        return any(neuron is other for other in self)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, (list, Instances)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # like a list's: its contents change

    def __repr__(self) -> str:
        return repr(list(self))


INSTANCES = Instances()


class Registered(ABCMeta):
    """The metaclass of neurons: registers each neuron after its construction, and adds `instances` to the classes.

    It is an ABCMeta so that a user's neuron may also inherit from an abstract class.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        # not in the constructor: one that raises must not register the neuron
        neuron = super().__call__(*args, **kwargs)
        INSTANCES.add(neuron)
        return neuron

    @property
    def __signature__(cls) -> inspect.Signature:
        # the constructor's, which `__call__` above would hide from inspect and help()
        given: inspect.Signature | None = getattr(cls, "signature", None)
        if given is not None:
            return given
        constructor = inspect.signature(cls.__init__)  # type: ignore[misc]
        return constructor.replace(parameters=list(constructor.parameters.values())[1:])

    def __setattr__(cls, name: str, value: Any) -> None:
        if name in WATCHED and not is_ours(value):
            cls._admit(name)  # type: ignore[attr-defined]
        super().__setattr__(name, value)
        cls._reinspect(name)

    def __delattr__(cls, name: str) -> None:
        super().__delattr__(name)
        cls._reinspect(name)

    def _reinspect(cls, name: str) -> None:
        # a method was assigned to an existing class
        if name in WATCHED:
            cls._inspect()  # type: ignore[attr-defined]
            for kind in list[Any](cls.__subclasses__()):
                kind._reinspect(name)

    @property
    def instances(cls) -> Instances:
        return INSTANCES

    @instances.setter
    def instances(cls, neurons: Sequence[Any]) -> None:
        keep = list(neurons)
        INSTANCES.forget(lambda neuron: isinstance(neuron, cls))
        for neuron in keep:
            INSTANCES.add(neuron)


class ClassWide:
    """Operations on every living neuron of a class, in all networks, and small static helpers.

    To act on one network only, see `spikeloom.utils.reset` and `spikeloom.utils.detach`.
    """

    @classmethod
    def init(cls) -> None:
        """Unregister the instances of this class; they stay alive, but `reset_hidden` no longer affects them."""
        INSTANCES.forget(lambda neuron: isinstance(neuron, cls))

    @classmethod
    def reset_hidden(cls) -> None:
        """Set the state of every living neuron of this class, in all networks, to zeros."""
        for neuron in cls._living():
            neuron.reset_mem()

    @classmethod
    def detach_hidden(cls) -> None:
        """Detach the state of every living neuron of this class, in all networks, in place.

        The states returned by the last step are the same tensors, so they are detached too, as in snnTorch. To
        preserve their graph, use `spikeloom.utils.detach`.
        """
        for neuron in cls._living():
            for name in neuron._state_names():
                state = getattr(neuron, name)
                if not is_view(state):
                    state.detach_()
            neuron.detach_mem()

    @classmethod
    def _living(cls) -> list[Any]:
        return [neuron for neuron in INSTANCES if isinstance(neuron, cls)]

    @property
    def instances(self) -> Instances:
        """All living neurons in order of creation, held by weak references."""
        return INSTANCES

    @staticmethod
    def detach(*states: Any) -> None:
        """Detach each tensor in place."""
        for state in states:
            state.detach_()

    @staticmethod
    def zeros(*states: Any) -> None:
        """Set each tensor to zero in place, also one that requires grad."""
        for state in states:
            state.detach().zero_()
