"""Count the activity of the layers of a network while it runs: hooks that keep numbers, and no sequences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..cells.firing import Model
from ..inspect import Log, with_time
from ..neurons import SLSTM, LeakyParallel, SConv2dLSTM, SpikingNeuron
from ..neurons._sequence import WholeSequence
from ..neurons._unrolled_run import RunHook, UnrolledRun, current_run, run_of
from ..neurons.recurrent import Recurrent
from ._connections import ACTIVATIONS, CONNECTIONS, inside_of_neurons, outermost
from ._counting import changed, differing, fired
from ._synapses import ConvLSTM, Operations, cell, counter


@dataclass
class Count:
    """What one layer has done.

    Args:
        operations: synaptic operations of a layer with weights.
        nonzero: number of outputs that are not zero, of an activation.
        outputs: number of outputs of an activation.
        updates: number of steps and neurons at which a membrane has changed; the first step of a batch counts.
        neuron_steps: number of steps and neurons.
    """

    operations: Operations = field(default_factory=Operations)
    nonzero: int = 0
    outputs: int = 0
    updates: int = 0
    neuron_steps: int = 0

    def add(self, other: "Count") -> None:
        """Add the count of another run."""
        self.operations.add(other.operations)
        self.nonzero, self.outputs = self.nonzero + other.nonzero, self.outputs + other.outputs
        self.updates, self.neuron_steps = self.updates + other.updates, self.neuron_steps + other.neuron_steps


@dataclass
class Watched:
    """One layer: its path, its module and its count."""

    path: str
    module: nn.Module
    count: Count = field(default_factory=Count)


class Watch:
    """Counts the layers of a network while it is open; in an unrolled run and in a loop over steps.

    `commit` adds the counts of a finished run. Those of runs that failed or were trials are dropped.
    """

    def __init__(self, net: nn.Module):
        self._handles: list[RemovableHandle] = []
        self._hooks: list[_Counts] = []
        owners = inside_of_neurons(net)
        activations = [module for _, module in outermost(net, ACTIVATIONS)]
        connections = [module for _, module in outermost(net, CONNECTIONS)]
        found = {*activations, *connections}
        self.layers = {module: Watched(path, module) for path, module in net.named_modules() if module in found}
        for module in activations:
            self._matching(module, _OfNeuron if isinstance(module, SpikingNeuron) else _OfActivation)
        for module in connections:
            if not (owners.get(module) in found and counted_by(owners[module], module)):
                self._matching(module, _OfConnection)

    def _matching(self, module: nn.Module, kind: "type[_Counts]") -> None:
        hook = kind(self, self.layers[module])
        self._hooks.append(hook)
        self._handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def start(self) -> None:
        """A new batch starts from initial states."""
        for hook in self._hooks:
            hook.start()

    def commit(self) -> None:
        """Add the counts of the run that has finished."""
        for hook in self._hooks:
            hook.commit()

    def close(self) -> None:
        """Stop counting."""
        for handle in self._handles:
            handle.remove()


@dataclass
class _Entry:
    """The counts of one call, by layer, and the states after it."""

    counts: dict[nn.Module, Count]
    last: tuple[Tensor, ...] = ()


class _Counts(RunHook):
    """A forward hook that counts one layer."""

    def __init__(self, watch: Watch, watched: Watched):
        self.watch, self.watched = watch, watched
        self.log: Log[_Entry] = Log()
        self.last: tuple[Tensor, ...] = ()

    def start(self) -> None:
        self.last = ()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        unrolled = run_of(module) if isinstance(module, SpikingNeuron) else current_run()
        if unrolled is None:
            self._add(self.entry(module, args, kwargs, output, None))
            return
        with unrolled.aside():
            self.log.add(self.entry(module, args, kwargs, output, unrolled), unrolled.counted)

    def entry(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, unrolled: UnrolledRun | None
    ) -> _Entry:
        raise NotImplementedError

    def commit(self) -> None:
        for entry, _ in self.log.entries():
            self._add(entry)
        self.log.clear()

    def _add(self, entry: _Entry) -> None:
        self.last = entry.last
        for module, count in entry.counts.items():
            self.watch.layers[module].count.add(count)


def _series(t: Tensor, unrolled: UnrolledRun | None) -> tuple[Tensor, int]:
    """A tensor as [T, B, ...] and 1; one that is the same at every step as [1, B, ...] and T."""
    if unrolled is None:
        return t.detach().unsqueeze(0), 1
    timed: Tensor = with_time(t.detach(), unrolled)
    static = len(timed) > 1 and timed.stride(0) == 0
    return (timed[:1], len(timed)) if static else (timed, 1)


class _OfConnection(_Counts):
    """Counts the synaptic operations of a layer from its inputs."""

    def __init__(self, watch: Watch, watched: Watched):
        super().__init__(watch, watched)
        self.counter = counter(watched.module)

    def entry(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, unrolled: UnrolledRun | None
    ) -> _Entry:
        given = (*args, *kwargs.values())
        operations = Operations()
        if self.counter is not None:
            operations = self.counter(*_series(given[0], unrolled))
        elif isinstance(module, nn.RNNCellBase):
            states = given[1] if len(given) > 1 and given[1] is not None else ()
            operations = _of_cell(module, given[0], states, output)
        return _Entry({module: Count(operations)})


def _of_cell(module: nn.RNNCellBase, x: Tensor, states: Any, output: Any) -> Operations:
    """The operations of one step of a cell; states that are not given are zeros."""
    new = output if isinstance(output, tuple) else (output,)
    old = (states if isinstance(states, tuple) else (states,)) if len(states) else map(torch.zeros_like, new)
    rows = [t.detach().reshape(1, -1, t.shape[-1]) for t in (x, *old)]
    return cell(module, *rows)


class _OfActivation(_Counts):
    """Counts the outputs of an activation function."""

    def entry(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, unrolled: UnrolledRun | None
    ) -> _Entry:
        out, times = _series(output, unrolled)
        return _Entry({module: Count(nonzero=fired(out) * times, outputs=out.numel() * times)})


class _OfNeuron(_Counts):
    """Counts the spikes and membrane updates of a neuron, and the synaptic operations inside of it."""

    wants_states = True

    def __init__(self, watch: Watch, watched: Watched):
        super().__init__(watch, watched)
        self.inner = _inner(watched.module)

    def entry(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, unrolled: UnrolledRun | None
    ) -> _Entry:
        spk, states = _recorded_states(module, output, unrolled)
        updates, steps = self._updates(module, states)
        counts = {module: Count(Operations(), fired(spk), spk.numel(), updates, steps or spk.numel())}
        if not steps:  # a layer that does not tell its membranes, which change at every step
            counts[module].updates = spk.numel()
        if self.inner is not None:
            x, times = _series((*args, *kwargs.values())[0], unrolled)
            if unrolled is None and isinstance(module, WholeSequence):
                x = x[0] if x.dim() > 3 else x[0].unsqueeze(1)
            x = x.expand(x.shape[0] * times, *x.shape[1:])
            part, operations = self.inner(x, self._before(states))
            counts[part] = Count(operations)
        return _Entry(counts, tuple(state[-1].clone() for state in states) if len(spk) else self.last)

    def _before(self, states: Sequence[Tensor]) -> list[Tensor]:
        """The states before each step, [T, B, ...]."""
        last = self.last or tuple(torch.zeros_like(state[0]) for state in states)
        return [torch.cat((old.unsqueeze(0), state[:-1])) for old, state in zip(last, states, strict=True)]

    def _updates(self, neuron: Any, states: Sequence[Tensor]) -> tuple[int, int]:
        """How often a membrane has changed, and the number of steps and neurons."""
        names = neuron._recorded_names()
        of_frame = isinstance(getattr(neuron, "model", None), Model)
        at = [names.index("mem")] if "mem" in names else [len(names) - 1] if of_frame and names else range(len(names))
        kept = [(states[i], self.last[i] if self.last else None) for i in at]
        if not kept or not len(kept[0][0]):
            return 0, 0
        between, first = changed(*(state for state, _ in kept)), kept[0][0][0].numel()
        if self.last:
            first = differing([(state[0], last) for state, last in kept if last is not None])
        return first + between, kept[0][0].numel()


def _recorded_states(neuron: Any, output: Any, unrolled: UnrolledRun | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The spikes and the states of every step, [T, B, ...]."""
    if unrolled is not None:
        visit = unrolled.visits[neuron]
        assert visit.spk is not None  # since the hook requires them
        return visit.spk.detach(), tuple(state.detach() for state in visit.states)
    spk = (output[0] if isinstance(output, tuple) else output).detach()
    if isinstance(neuron, WholeSequence):
        return spk, tuple(state.detach() for state in neuron._recorded_states(output))
    return spk.unsqueeze(0), tuple(getattr(neuron, name).detach().unsqueeze(0) for name in neuron._recorded_names())


def counted_by(neuron: nn.Module, part: nn.Module) -> bool:
    """Whether a neuron's hook counts a part of it, whose module the neuron may not call."""
    return isinstance(neuron, (SLSTM, SConv2dLSTM, LeakyParallel)) or (
        isinstance(neuron, Recurrent) and part is neuron.recurrent
    )


Inner = Callable[[Tensor, list[Tensor]], tuple[nn.Module, Operations]]
"""Counts the layer inside of a neuron, from the inputs and the states before each step."""


def _inner(neuron: Any) -> Inner | None:
    """The counter of such a part."""
    if isinstance(neuron, SLSTM):
        return lambda x, before: (neuron.lstm_cell, _of_slstm(neuron, x, before))
    if isinstance(neuron, SConv2dLSTM):
        conv = ConvLSTM(neuron)
        return lambda x, before: (neuron.conv, conv(x, before[-1]))
    layer = neuron.recurrent if isinstance(neuron, Recurrent) else getattr(neuron, "rnn", None)
    of_layer = None if layer is None or not isinstance(neuron, (Recurrent, LeakyParallel)) else counter(layer)
    if of_layer is None or layer is None:
        return None
    part, count = layer, of_layer
    if isinstance(neuron, LeakyParallel):
        return lambda x, before: (part, count(x, 1))
    return lambda x, before: (part, count(before[0], 1))  # the first state is the last spike


def _of_slstm(neuron: SLSTM, x: Tensor, before: list[Tensor]) -> Operations:
    syn, mem = [torch.zeros_like(state) for state in before] if neuron.memoryless else before
    rows = [t.reshape(len(t), -1, t.shape[-1]) for t in (x, mem, syn)]
    return cell(neuron.lstm_cell, *rows)
