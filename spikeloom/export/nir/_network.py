"""A NIR graph as a module: its layers, run in order, and its cycles, run step by step."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from ...layers import SEES_TIME
from ...layers._over_time import OverTime
from ...neurons import SpikingNeuron
from ...neurons._state import deep_copied
from ...neurons._unrolled_run import Visit, current_run, run_of, running

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Link:
    """What one layer gets.

    Args:
        child: the name of the module.
        name: the name of its output, that of the node.
        sources: the names of the outputs that it gets the sum of, in order; for a cycle, one sum per input.
    """

    child: str
    name: str
    sources: tuple[str, ...]


def added(parts: Iterable[Tensor]) -> Tensor:
    """The sum of some values, in order."""
    return reduce(torch.add, parts)


def spikes_of(out: Any) -> Tensor:
    """The first of what a layer returns; `DeltaLeaky` always returns its states, too."""
    spikes: Tensor = out[0] if isinstance(out, tuple) else out
    return spikes


class NIRState(Mapping[str, Any]):
    """The states of a network after a step: by the name of each neuron, delay and cycle, its states by name.

    Pass it to a later call to continue from there. In an unrolled run it is empty: the neurons hold their states.
    """

    def __init__(self, states: Mapping[str, Mapping[str, Any]]):
        self._states = dict(states)

    def __getitem__(self, name: str) -> Any:
        return self._states[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)

    def __repr__(self) -> str:
        return f"NIRState({', '.join(self._states)})"


class NIRNetwork(nn.Module):
    """A network made from a NIR graph, one step per call.

    Each node is a layer of that name, with "_" for "."; a neuron and the weights from it to itself are one recurrent
    neuron. The neurons store their states: `spikeloom.utils.reset` clears them, and `spikeloom.unroll` runs all steps
    at once.

    Shapes:
        one tensor [B, *N], or [*N], per Input of the graph; returns the outputs and the states: a tensor, or a tuple if
        the graph has several Outputs, and a mapping from neurons to their states.
    """

    def __init__(self, inputs: Mapping[str, Shape | None], outputs: Sequence[Sequence[str]]):
        super().__init__()
        self._inputs, self._outputs = dict(inputs), [tuple(names) for names in outputs]
        self._links: list[Link] = []

    def append(self, name: str, layer: nn.Module, sources: Sequence[str]) -> None:
        """Add a layer that runs after all others."""
        child = free_name(self, name)
        self.add_module(child, layer)
        self._links.append(Link(child, name, tuple(sources)))

    def forward(self, *args: Any, state: Mapping[str, Any] | None = None) -> tuple[Any, NIRState]:
        """One step: an input per Input node and, if given, the states; returns the outputs and the states."""
        count = len(self._inputs)
        if len(args) == count + 1:
            *args, state = args  # type: ignore[assignment]
        if len(args) != count:
            raise TypeError(f"the network got {len(args)} inputs; it has {count}: {', '.join(self._inputs)}")
        values, single = self._checked(args)
        if state is not None:
            self._restore(state)
        for link in self._links:
            layer = getattr(self, link.child)
            if isinstance(layer, Cycle):
                values |= layer(values)
            else:
                values[link.name] = spikes_of(layer(added(values[name] for name in link.sources)))
        outs = [added(values[name] for name in names) for names in self._outputs]
        outs = [out.squeeze(0) for out in outs] if single else outs
        return outs[0] if len(outs) == 1 else tuple(outs), NIRState(dict(self._states()))

    def _checked(self, args: Sequence[Any]) -> tuple[dict[str, Tensor], bool]:
        """The inputs by name, with a batch; and whether they had none."""
        values, singles = {}, []
        for (name, shape), x in zip(self._inputs.items(), args, strict=True):
            if not isinstance(x, Tensor):
                raise TypeError(f"the input {name!r} is {type(x).__name__}; pass a tensor [B, *N]")
            if shape is not None and x.shape[1:] != shape and x.shape != shape:
                raise ValueError(f"the input {name!r} has shape {tuple(x.shape)}; pass {('B', *shape)} or {shape}")
            singles.append(shape is not None and x.shape == shape and x.dim() == len(shape))
            values[name] = x
        single = all(singles) and current_run() is None
        return {name: x.unsqueeze(0) for name, x in values.items()} if single else values, single

    def _parts(self) -> Iterator[tuple[str, nn.Module]]:
        """What stores something from step to step, by name."""
        for link in self._links:
            for name, part in getattr(self, link.child).named_modules():
                if isinstance(part, SEES_TIME):
                    yield f"{link.child}.{name}" if name else link.child, part

    def _states(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        if current_run() is None:
            for name, part in self._parts():
                yield name, _stored(part)

    def _restore(self, states: Mapping[str, Any]) -> None:
        parts = dict(self._parts())
        unknown = [name for name in states if name not in parts]
        if unknown:
            raise ValueError(f"the states name {unknown[0]!r}; the neurons are {', '.join(parts) or 'none'}")
        for name, values in states.items():
            part = parts[name]
            if isinstance(part, Cycle):
                part._past = dict(values)
                continue
            for state, value in values.items():
                if getattr(part, state) is not value:
                    setattr(part, state, value)


def _stored(part: Any) -> dict[str, Tensor]:
    """What a layer stores, by name: the states of a neuron, the inputs of a delay, the late outputs of a cycle."""
    if isinstance(part, Cycle):
        return dict(part._past)
    names = part._state_names() if isinstance(part, SpikingNeuron) else part._carried()
    return {name: getattr(part, name) for name in names}


class Cycle(OverTime):
    """Layers that feed each other in a cycle: they run step by step.

    Args:
        links: the layers in the order in which they run, with what each gets of this step.
        layers: by the names in `links`.
        delayed: by the name of a layer: what it gets of the step before.
        shapes: of what is kept for the next step.
    """

    def __init__(
        self,
        links: Sequence[Link],
        layers: Mapping[str, nn.Module],
        delayed: Mapping[str, Sequence[str]],
        shapes: Mapping[str, Shape],
    ):
        super().__init__()
        self._links, self._delayed = list(links), dict(delayed)
        self._shapes, self._past = dict(shapes), dict[str, Tensor]()
        for child, layer in layers.items():
            self.add_module(child, layer)
        own = {link.name for link in self._links}
        wanted = [source for link in self._links for source in (*link.sources, *delayed[link.name])]
        self._outside = [*dict.fromkeys(source for source in wanted if source not in own)]

    def forward(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        """One step, or in an unrolled network all steps: the outputs of the layers by name."""
        given = {name: values[name] for name in self._outside}
        unrolled = run_of(self)
        if unrolled is None:
            return self._step(given)
        with unrolled.aside():
            unrolled.admit(self, ())
            series = {name: unrolled.unfold(x, self._label) for name, x in given.items()}
            static = all(len(x) == 1 != unrolled.steps for x in series.values())
            outs = []
            with running(None):
                for t in range(max(1, unrolled.steps)):
                    outs.append(self._step({name: x[min(t, len(x) - 1)] for name, x in series.items()}))
            stacked = {name: torch.stack([out[name] for out in outs])[: unrolled.steps] for name in outs[0]}
            unrolled.note(self, Visit("loop", ["its layers form a cycle"], static, stacked[self._links[0].name]))
            return {name: unrolled.fold(out) for name, out in stacked.items()}

    def _step(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values, outs = dict(given), dict[str, Tensor]()
        like = next(iter(given.values()))
        for link in self._links:
            parts = [values[name] for name in link.sources]
            parts += [self._before(name, like) for name in self._delayed[link.name]]
            values[link.name] = outs[link.name] = spikes_of(getattr(self, link.child)(added(parts)))
        self._past = {name: values[name] for name in self._shapes}
        return outs

    def _before(self, name: str, like: Tensor) -> Tensor:
        """The output of the step before; zeros at the first."""
        shape = (len(like), *self._shapes[name])
        past = self._past.get(name)
        return past if past is not None and past.shape == shape else like.new_zeros(shape)

    __deepcopy__ = deep_copied

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_past": {name: past.detach() for name, past in self._past.items()}}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self._past = {name: fn(past) for name, past in self._past.items()}
        return self

    def reset_mem(self) -> None:
        """Discard the outputs of the step before."""
        self._past = {}

    def detach_mem(self) -> None:
        """Detach them from their autograd graph."""
        self._past = {name: past.detach() for name, past in self._past.items()}


def free_name(module: nn.Module, name: str) -> str:
    """A name for a child that the module does not have yet."""
    child = name.replace(".", "_") or "_"
    while hasattr(module, child):
        child += "_"
    return child


def clear(net: nn.Module) -> None:
    """Clear the states of a network."""
    for layer in net.modules():
        if isinstance(layer, SEES_TIME):
            layer.reset_mem()
