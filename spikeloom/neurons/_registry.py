"""Which neurons are alive: a weak, ordered, list-like view, so that being listed never keeps a network in memory."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any


class Instances(Sequence[Any]):
    """The living neurons in the order of their making; holds no reference that would keep them alive."""

    def __init__(self) -> None:
        self._alive: dict[int, weakref.ref[Any]] = {}

    def add(self, neuron: Any) -> None:
        """List `neuron`, once."""
        key, alive = id(neuron), self._alive

        def forget(ref: weakref.ref[Any]) -> None:
            if alive.get(key) is ref:
                del alive[key]

        alive[key] = weakref.ref(neuron, forget)

    def forget(self, which: Callable[[Any], bool] = lambda neuron: True) -> None:
        """Drop the neurons for which `which` holds from the list; the neurons themselves live on."""
        for neuron in list(self):
            if which(neuron):
                self._alive.pop(id(neuron), None)

    def __iter__(self) -> Iterator[Any]:
        living = (ref() for ref in list(self._alive.values()))
        return iter([neuron for neuron in living if neuron is not None])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __contains__(self, neuron: object) -> bool:
        return any(neuron is other for other in self)

    def __repr__(self) -> str:
        return repr(list(self))


INSTANCES = Instances()


class Registered(type):
    """The metaclass that gives neuron classes their `instances`, which can also be assigned (only to empty it)."""

    @property
    def instances(cls) -> Instances:
        return INSTANCES

    @instances.setter
    def instances(cls, neurons: Sequence[Any]) -> None:
        keep = {id(neuron) for neuron in neurons}
        INSTANCES.forget(lambda neuron: id(neuron) not in keep)
