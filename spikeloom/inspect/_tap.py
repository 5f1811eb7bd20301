"""Record the spikes, states and inputs of the neurons of a network over time, in a step loop or unrolled."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .._torch import tree_map_only
from ..neurons import SpikingNeuron
from ..neurons._sequence import WholeSequence
from ..neurons._unrolled_run import Counted, RunHook, UnrolledRun, run_of
from ._recorded import plotted

Entry = TypeVar("Entry")


class Log(Generic[Entry]):
    """Records of calls, without those of failed or trial runs."""

    def __init__(self) -> None:
        self._entries: list[tuple[Entry, Counted | None]] = []

    def add(self, entry: Entry, counted: Counted | None) -> None:
        """Add a record of a run, whose `counted` holds its number of steps once it is done; None is a single step."""
        while self._entries and self._entries[-1][1] == [] and self._entries[-1][1] is not counted:
            self._entries.pop()
        self._entries.append((entry, counted))

    def entries(self) -> list[tuple[Entry, int | None]]:
        """The valid records in order, each with its number of steps; None for a single step."""
        return [(entry, counted[0] if counted else None) for entry, counted in self._entries if counted != []]

    def clear(self) -> None:
        self._entries.clear()


def with_time(recorded: Any, unrolled: UnrolledRun) -> Any:
    """Unfold the tensors of an unrolled run to [T, B, ...], static ones as expanded views; keep others unchanged."""

    def is_static(t: Tensor) -> bool:
        # called after a neuron has run, when static tensors before it are only recognizable by their number of rows
        few = len(t) == unrolled.batch != unrolled.steps * unrolled.batch
        return few and (unrolled.straight if unrolled.origins is None else unrolled.origins.is_static(t))

    def unfold(t: Tensor) -> Tensor:
        if t.dim() and is_static(t):
            return t.expand(unrolled.steps, *t.shape)
        folded = t.dim() and len(t) == unrolled.steps * unrolled.batch
        return t.unflatten(0, (unrolled.steps, unrolled.batch)) if folded else t

    with unrolled.aside():
        return tree_map_only(Tensor, unfold, recorded)


@dataclass(frozen=True)
class _Call:
    """One call of a neuron: spikes and states, [B, *N], or [T, B, *N] of an unrolled run, and its input as passed."""

    spk: Tensor
    states: tuple[Tensor, ...]
    input: Tensor | None  # None if it was not requested
    static: bool = False  # whether the input of an unrolled run was static

    def current(self) -> Tensor:
        """The input, with the leading dimensions of the spikes."""
        assert self.input is not None
        if self.static:
            return self.input.expand(len(self.spk), *self.input.shape)
        return self.input if self.input.dim() == self.spk.dim() else self.input.unflatten(0, self.spk.shape[:2])


class Recording:
    """Spikes, states and inputs of one neuron, recorded by `tap`.

    `spk` holds the spikes; each state has its name on the neuron, such as `mem`. All are [T, B, *N], T steps in
    execution order. With ``inputs=True``, `input` holds the inputs of the neuron. For a layer that processes whole
    sequences, the states are those that it returns.

        >>> import torch, spikeloom as snn
        >>> lif = snn.Synaptic(alpha=0.5, beta=0.9, init_hidden=True)
        >>> with snn.tap(lif) as record:
        ...     for x in torch.ones(3, 1, 2):
        ...         spk = lif(x)
        >>> record[""].states["syn"][:, 0, 0]
        tensor([1.0000, 1.5000, 1.7500])
        >>> record[""].mem.shape
        torch.Size([3, 1, 2])
    """

    _hook: RemovableHandle | None = None

    def __init__(self, path: str, kind: str, state_names: tuple[str, ...]):
        self.path, self.kind, self.state_names = path, kind, state_names
        self._log: Log[_Call] = Log()

    def _close(self) -> None:
        if self._hook is not None:
            self._hook.remove()

    def __del__(self) -> None:
        self._close()

    @property
    def steps(self) -> int:
        """T, the number of steps that the neuron has run."""
        return sum(1 if steps is None else steps for _, steps in self._log.entries())

    @property
    def spk(self) -> Tensor:
        """The spikes, [T, B, *N]."""
        return self._joined(lambda call: call.spk)

    @property
    def states(self) -> dict[str, Tensor]:
        """The states after every step, by name, each [T, B, *N]."""
        return {name: self._state(name) for name in self.state_names}

    @property
    def input(self) -> Tensor:
        """The input, [T, B, *N]."""
        if any(call.input is None for call, _ in self._log.entries()):
            raise RuntimeError("inputs were not recorded; create the tap with tap(net, inputs=True)")
        return self._joined(_Call.current)

    def plot(self, sample: int = 0, neurons: int = 3, figsize: tuple[float, float] | None = None) -> Any:
        """Plot the spikes of the layer, and the membranes of its most active neurons.

        Args:
            sample: the row of the batch.
            neurons: number of membranes; 0 draws the spikes only.
            figsize: width and height in inches. Default: the column of a paper, 3.3 inches, as high as needed.

        Returns:
            A matplotlib Figure: ``record["1"].plot().savefig("layer.pdf")``.

        Raises:
            ImportError: if matplotlib is not installed.
            IndexError: if the batch has no such sample.
            RuntimeError: if nothing was recorded.
            ValueError: if `neurons` is not a whole number from 0 on, or `figsize` is not a width and a height.
        """
        return plotted({self.path: self}, sample, neurons, figsize)

    def given(self) -> list[Tensor]:
        """The inputs as passed to the neuron, one per call; in an unrolled run, time is folded into dimension 0."""
        return [call.input for call, _ in self._log.entries() if call.input is not None]

    def spikes(self) -> list[Tensor]:
        """The spikes of each call, [T, B, *N], or [B, *N] of a single step."""
        return [call.spk for call, _ in self._log.entries()]

    def folded(self) -> list[int]:
        """The number of steps that are folded into dimension 0 of what `given` returns, per call."""
        return [1 if steps is None or call.static else steps for call, steps in self._log.entries()]

    def __getattr__(self, name: str) -> Tensor:
        names = self.__dict__.get("state_names", ())
        if name not in names:
            raise AttributeError(f"a recording of {self.__dict__.get('kind')} has spk, input and {', '.join(names)}")
        return self._state(name)

    def _state(self, name: str) -> Tensor:
        place = self.state_names.index(name)
        return self._joined(lambda call: call.states[place])

    def _joined(self, part: Callable[[_Call], Tensor]) -> Tensor:
        """A part of every call, concatenated over time."""
        calls = self._log.entries()
        if not calls:
            raise RuntimeError(
                f"{self.path!r} ({self.kind}) has not run since the tap was created or cleared; run the network first"
            )
        pieces = [part(call)[None] if steps is None else part(call)[:steps] for call, steps in calls]
        shapes = {piece.shape[1:] for piece in pieces}
        if len(shapes) > 1:
            raise RuntimeError(
                f"{self.path!r} ({self.kind}) ran on batches of different shapes, {' and '.join(map(str, shapes))}, "
                "which do not form one sequence; call clear() between batches"
            )
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def __repr__(self) -> str:
        return f"{self.path!r} ({self.kind}): {self.steps} steps of {', '.join(('spk', *self.state_names))}"


class _OfNeuron(RunHook):
    """Forward hook that records one neuron."""

    wants_states = True

    def __init__(self, recording: Recording, order: list[str], inputs: bool, graph: bool):
        self.log, self.path, self.order = recording._log, recording.path, order
        self.inputs, self.graph = inputs, graph

    def __call__(self, neuron: SpikingNeuron, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        unrolled = run_of(neuron)
        if self.path not in self.order:
            self.order.append(self.path)
        given = (args or tuple(kwargs.values()))[0] if self.inputs else None
        if unrolled is not None:
            visit = unrolled.visits[neuron]
            assert visit.spk is not None  # since this hook requires them
            with unrolled.aside():
                self.log.add(self._call(visit.spk, visit.states, given, visit.static), unrolled.counted)
            return
        spk = output[0] if isinstance(output, tuple) else output
        if isinstance(neuron, WholeSequence):
            self.log.add(self._call(spk, neuron._recorded_states(output), given), [len(spk)])
        else:
            self.log.add(self._call(spk, [getattr(neuron, name) for name in neuron._recorded_names()], given), None)

    def _call(self, spk: Tensor, states: Sequence[Tensor], given: Tensor | None, static: bool = False) -> _Call:
        if self.graph:  # views: a later `detach_()` of the returned tensors does not affect them
            return _Call(spk.view_as(spk), tuple(state.view_as(state) for state in states), given, static)
        given = None if given is None else given.detach()
        return _Call(spk.detach(), tuple(state.detach() for state in states), given, static)


class Tap(Mapping[str, Recording]):
    """Result of `tap`: a mapping from the path of each neuron in the network to its `Recording`."""

    def __init__(self, net: nn.Module, inputs: bool = False, graph: bool = False):
        if not isinstance(net, nn.Module):
            raise TypeError(f"tap got {type(net).__name__}; pass a network, an nn.Module")
        neurons = {path: m for path, m in net.named_modules() if isinstance(m, SpikingNeuron)}
        if not neurons:
            raise ValueError(f"tap found no spiking neurons in {type(net).__name__}; pass a network that contains some")
        self._recordings = {p: Recording(p, type(n).__name__, n._recorded_names()) for p, n in neurons.items()}
        self.order: list[str] = []  # the paths in the order of the first calls
        try:
            for path, neuron in neurons.items():
                recording = self[path]
                hook = _OfNeuron(recording, self.order, inputs, graph)
                recording._hook = neuron.register_forward_hook(hook, with_kwargs=True)
        except BaseException:  # Ctrl-C
            self.close()
            raise

    def __getitem__(self, path: str) -> Recording:
        return self._recordings[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._recordings)

    def __len__(self) -> int:
        return len(self._recordings)

    def plot(self, sample: int = 0, neurons: int = 3, figsize: tuple[float, float] | None = None) -> Any:
        """Plot the spikes of all layers, and the membranes of their most active neurons; see `Recording.plot`.

        Args:
            sample: the row of the batch.
            neurons: number of membranes per layer; 0 draws the spikes only.
            figsize: width and height in inches. Default: the column of a paper, 3.3 inches, as high as needed.

        Returns:
            A matplotlib Figure.

        Raises:
            The errors of `Recording.plot`.
        """
        return plotted({path: self[path] for path in self.order}, sample, neurons, figsize)

    def clear(self) -> None:
        """Discard the recorded data and continue recording."""
        for recording in self._recordings.values():
            recording._log.clear()

    def close(self) -> None:
        """Stop recording; the recorded data is preserved."""
        for recording in self._recordings.values():
            recording._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"tap on {{{', '.join(f'{p!r}: {r.steps} steps of {r.kind}' for p, r in self.items())}}}"


def tap(net: nn.Module, inputs: bool = False, graph: bool = False) -> Tap:
    """Record the spikes and states of every neuron of a network.

    Recording ends with the `with` block, with `close()`, or when the tap is garbage-collected. A loop over steps and
    `spikeloom.unroll` produce the same record: sequences of steps in execution order.

    Args:
        net: the network, or one neuron.
        inputs: also record the input of every neuron.
        graph: if True, recorded tensors stay attached to the autograd graph, so that a loss may use them, for example
            to penalize hidden spikes; if False, they are detached.

    Returns:
        A mapping from the path of each neuron, as in `named_modules`, to its `Recording`.

    Raises:
        TypeError: if net is not an nn.Module.
        ValueError: if it has no spiking neurons.

    While a network is tapped, `unroll` computes the states of every step even if a layer does not return them. Failed
    calls of `unroll` and the runs of `explain` are not recorded. Copies of the network are not tapped. A record stays
    in memory and grows with every step; `clear()` frees it.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True),
        ...     torch.nn.Linear(4, 2), snn.Leaky(beta=0.9, init_hidden=True))
        >>> with snn.tap(net, graph=True) as record:
        ...     spk = snn.unroll(net, torch.rand(25, 8, 3))
        >>> list(record), record["1"].spk.shape, record["1"].mem.shape
        (['1', '3'], torch.Size([25, 8, 4]), torch.Size([25, 8, 4]))
        >>> loss = spk.sum() + 0.01 * record["1"].spk.sum()
        >>> loss.backward()
    """
    return Tap(net, inputs, graph)
