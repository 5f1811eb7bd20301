"""Run batches through a network, chunk by chunk, and put the counts together."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import tree_map
from ..accelerated import accelerating
from ..layers import SEES_TIME
from ..network import RandomState, Snapshot, undone, unroll
from ..neurons import SpikingNeuron
from ._connections import CONVOLUTIONS, connection_sparsity, footprint, parameter_count, unseen
from ._operations import CONVENTIONS, by_methods, per_update
from ._report import LayerMeasurement, Measurement
from ._scores import Mean, Scores, default_scores
from ._watch import Watch, Watched

ROWS = 4096
"""Rows, steps times samples, that a chunk has by default: memory then depends neither on T nor on B."""

IMAGES = 512
"""The same for convolutions, whose larger outputs then stay in the cache."""

Predict = str | Callable[[Any], Tensor]
PREDICTIONS = ("count", "sum", "last", "all")


def measure(
    net: nn.Module,
    data: Any,
    targets: Tensor | None = None,
    *,
    steps: int | None = None,
    time_first: bool = True,
    predict: Predict | None = None,
    scores: str | Sequence[str] | None = None,
    convention: str = "neurobench",
    chunk: int | None = None,
    forward: Callable[..., Any] | None = None,
    strict: bool = True,
    progress: bool = False,
) -> Measurement:
    """Measure a network on data: its size, sparsity, operations, energy and scores, from one unrolled run.

    The metrics are those of NeuroBench 2.3.0, with equal values. The network runs in evaluation mode, from initial
    states in every batch, and is left unchanged: states, mode and gradients, and the state of the random number
    generators.

    Args:
        net: the network. Its neurons store their states (init_hidden=True).
        data: a DataLoader or another iterable of batches, each (x, targets) or x; or the x of a single batch. x is a
            tensor [T, B, ...], or [B, ...] with `steps`; a tuple of them for a forward with several inputs. Batches are
            moved to the device of the network.
        targets: the targets of a single batch, of the shape of the predictions.
        steps: T, if the input is the same at every step.
        time_first: False if tensors are [B, T, ...], as in NeuroBench. Default: True.
        predict: how predictions follow from the outputs of all steps:
            "count": the class with the most spikes, [B]; "sum": the sum over time, [B, ...]; "last": the last step,
            [B, ...]; "all": every step, [T, B, ...], or [B, T, ...] if not time_first. They use the first output. Or a
            function of the outputs, every tensor [T, B, ...]. None: "count" for integer targets, else "all".
        scores: any of "classification_accuracy", "mse", "smape" and "r2". None: the first for integer targets, else
            "mse", "smape" and, for targets [B, C], "r2".
        convention: how operations of neurons are counted. "neurobench": by its constants for `Leaky`, `Synaptic`,
            `Lapicque` and `Alpha`, and by their equations for others, which NeuroBench does not know. "equation": by
            the equations of all neurons (see `neuron_operations`).
        chunk: number of steps that are in memory at a time. None: 4096 / B, with convolutions 512 / B.
        forward: function that runs the network on a whole batch, ``forward(net, x)``, for networks that loop over time
            themselves (``lambda net, x: net(x)``). Memory is then that of the function. Default: `spikeloom.unroll`.
        strict: if True, products are torch's own, and spikes are those of the network bit for bit. If False, layers
            skip zeros, as with ``accelerate(net)``: faster for wide layers with few spikes, but sums have another
            order, so a membrane within rounding of its threshold may fire or not. Default: True.
        progress: show a progress bar over the batches; requires tqdm.

    Returns:
        a `Measurement`. Its `str` is a table; `energy()`, `to_json()`, `plot()` and `neurobench()` show more.

    Raises:
        TypeError: if the network, the data or the targets have the wrong type.
        ValueError: if there are no batches or no steps, an option is unknown, or predictions and targets differ in
            shape.
        ImportError: if `progress` is True and tqdm is not installed.
        Also the errors of `spikeloom.unroll`.

    Source: Yik et al., "The NeuroBench framework for benchmarking neuromorphic computing algorithms and systems", 2025.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True),
        ...     torch.nn.Linear(4, 2), snn.Leaky(beta=0.9, init_hidden=True, output=True))
        >>> spikes = (torch.rand(100, 8, 3) < 0.2).float()
        >>> measured = snn.metrics.measure(net, spikes, torch.zeros(8, dtype=torch.int64))
        >>> measured.parameter_count, measured.synaptic_operations["Dense"]
        (26, 2000.0)
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"measure got {type(net).__name__}; pass a network, an nn.Module")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention is {convention!r}; pass {' or '.join(map(repr, CONVENTIONS))}")
    if isinstance(predict, str) and predict not in PREDICTIONS:
        raise ValueError(
            f"predict is {predict!r}; pass {', '.join(map(repr, PREDICTIONS))} or a function of the outputs"
        )
    if chunk is not None and (isinstance(chunk, bool) or not hasattr(chunk, "__index__") or chunk < 1):
        raise ValueError(f"chunk is {chunk!r}; pass a number of steps from 1 on")
    if steps is not None and (isinstance(steps, bool) or not hasattr(steps, "__index__") or steps < 0):
        raise ValueError(f"steps is {steps!r}; pass a number of steps from 1 on")
    batches = _batches(data, targets)
    running = _Running(net, steps, time_first, predict, Scores(scores), chunk, forward)
    before, drawn = Snapshot(net.modules()), RandomState()
    modes = [(module, module.training) for module in net.modules()]

    def work() -> Measurement:
        before.stand_in()
        before.mute()
        net.eval()
        watch = Watch(net)
        try:
            with torch.no_grad(), accelerating(net, strict=strict):
                for number, batch in enumerate(_with_bar(batches, progress), 1):
                    try:
                        running.run(watch, batch)
                    except Exception as error:
                        error.add_note(f"(in batch {number} of the measurement)")
                        if forward is None and "unroll" in str(error):
                            error.add_note("(For a network that loops over time itself: forward=lambda net, x: net(x))")
                        raise
        finally:
            watch.close()
        return _measured(net, watch, running, convention)

    try:
        return undone(work, before, drawn)
    finally:
        for module, mode in modes:
            module.training = mode


def _batches(data: Any, targets: Tensor | None) -> Iterable[Any]:
    if isinstance(data, (Tensor, tuple)):
        return [(data, targets)]
    if targets is not None:
        raise TypeError("targets belong to a single batch; pass them within the batches, as (x, targets)")
    if not isinstance(data, Iterable) or isinstance(data, (str, dict)):
        raise TypeError(f"the data is a {type(data).__name__}; pass a tensor or an iterable of batches (x, targets)")
    return data


def _with_bar(batches: Iterable[Any], progress: bool) -> Iterable[Any]:
    if not progress:
        return batches
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("a progress bar requires tqdm; pip install 'spikeloom[progress]'") from error
    bar: Iterable[Any] = tqdm(batches, desc="measuring", unit="batch")
    return bar


@dataclass
class _Running:
    """The batches of a measurement, and what is summed over them."""

    net: nn.Module
    steps: int | None
    time_first: bool
    predict: Predict | None
    scores: Scores
    chunk: int | None
    forward: Callable[..., Any] | None
    samples: int = 0
    sample_steps: int = 0
    sparsity: Mean = field(default_factory=Mean)

    def run(self, watch: Watch, batch: Any) -> None:
        """Run one batch from initial states."""
        inputs, targets = self._read(batch)
        steps, rows = self._sizes(inputs)
        self._reset()
        watch.start()
        before = _activations(watch)
        how = self._way(targets)
        predicted = _Predicted(how)
        for outputs in self._outputs(inputs, steps, rows):
            predicted.add(outputs)
            watch.commit()
        nonzero, total = (now - then for now, then in zip(_activations(watch), before, strict=True))
        self.sparsity.add((total - nonzero) / total if total else 0.0, rows)
        self.samples, self.sample_steps = self.samples + rows, self.sample_steps + rows * steps
        if targets is not None:
            found = predicted.value()
            if how == "all" and not self.time_first:
                found = found.transpose(0, 1)
            self.scores.add(found, targets, rows)

    def _way(self, targets: Tensor | None) -> Predict | None:
        if targets is None:
            return None
        default = "count" if default_scores(targets) == ("classification_accuracy",) else "all"
        return default if self.predict is None else self.predict

    def _read(self, batch: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """The inputs, time first, and the targets, on the device of the network."""
        if isinstance(batch, Tensor):
            batch = (batch,)
        if not isinstance(batch, (tuple, list)) or not 1 <= len(batch) <= 2:
            told = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"
            raise TypeError(f"a batch has {told}; pass (x, targets) or x, a tensor or a tuple of tensors")
        x, targets = batch if len(batch) == 2 else (batch[0], None)
        inputs = tuple(x) if isinstance(x, (tuple, list)) else (x,)
        if not inputs or not all(isinstance(t, Tensor) for t in inputs):
            raise TypeError(f"the x of a batch is a {type(x).__name__}; pass a tensor or a tuple of tensors")
        if targets is not None and not isinstance(targets, Tensor):
            raise TypeError(f"the targets of a batch are a {type(targets).__name__}; pass a tensor")
        like = next((t for t in (*self.net.parameters(), *self.net.buffers())), inputs[0])
        swap = self.steps is None and not self.time_first
        moved = tuple(t.to(like.device) for t in inputs)
        moved = tuple(t.transpose(0, 1) if swap and t.dim() > 1 else t for t in moved)
        return moved, None if targets is None else targets.to(like.device)

    def _sizes(self, inputs: tuple[Tensor, ...]) -> tuple[int, int]:
        """T and B."""
        lead, shape = (1 if self.steps is not None else 2), tuple(inputs[0].shape)
        if len(shape) < lead:
            form = "[B, ...] with steps" if lead == 1 else "[T, B, ...]"
            raise ValueError(f"the input has shape {shape}; pass {form}")
        steps, rows = (shape[0], shape[1]) if self.steps is None else (self.steps, shape[0])
        if not steps or not rows:
            raise ValueError(f"a batch has {steps} steps of {rows} samples; pass at least one of each")
        return steps, rows

    def _reset(self) -> None:
        for module in self.net.modules():
            if isinstance(module, SEES_TIME):
                module.reset_mem()
        own = getattr(self.net, "reset", None)
        if callable(own) and _needs_nothing(own):
            own()

    def _outputs(self, inputs: tuple[Tensor, ...], steps: int, rows: int) -> Iterator[Any]:
        """The outputs of the network, chunk by chunk."""
        if self.forward is not None:
            yield self.forward(self.net, *inputs)
            return
        most = IMAGES if any(isinstance(module, CONVOLUTIONS) for module in self.net.modules()) else ROWS
        length = max(1, most // rows) if self.chunk is None else int(self.chunk)
        for begin in range(0, steps, length):
            end = min(begin + length, steps)
            if self.steps is None:
                yield unroll(self.net, *(t[begin:end].contiguous() for t in inputs))
            else:
                yield unroll(self.net, *inputs, steps=end - begin)


def _needs_nothing(function: Callable[..., Any]) -> bool:
    """Whether a function can be called without arguments."""
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def _activations(watch: Watch) -> tuple[int, int]:
    """The nonzero and all outputs of activations so far."""
    counts = [watched.count for watched in watch.layers.values()]
    return sum(c.nonzero for c in counts), sum(c.outputs for c in counts)


class _Predicted:
    """The predictions of a batch, from the outputs of its chunks; a sum or the last step keeps no others."""

    def __init__(self, how: Predict | None):
        self.how = how
        self._kept: list[Any] = []

    def add(self, outputs: Any) -> None:
        """Add the outputs of a chunk."""
        if self.how is None:
            return
        if callable(self.how):
            self._kept.append(outputs)
            return
        first = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
        if not isinstance(first, Tensor):
            raise TypeError(f"the network returned a {type(first).__name__}; pass predict, a function of its outputs")
        if self.how == "last":
            self._kept = [first[-1].clone()]
        elif self.how == "all":
            self._kept.append(first)
        else:
            total = first.sum(0)
            self._kept = [self._kept[0] + total if self._kept else total]

    def value(self) -> Tensor:
        """The predictions."""
        if callable(self.how):
            found = self.how(tree_map(lambda *each: torch.cat(each), *self._kept))
            if not isinstance(found, Tensor):
                raise TypeError(f"predict returned a {type(found).__name__}; return a tensor")
            return found
        joined: Tensor = torch.cat(self._kept) if self.how == "all" else self._kept[0]
        return joined.argmax(1) if self.how == "count" else joined


# -- the counts as a Measurement ---------------------------------------------------------------------------------------


def _measured(net: nn.Module, watch: Watch, running: _Running, convention: str) -> Measurement:
    samples = running.samples
    if not samples:
        raise ValueError("there are no batches; pass data that yields at least one")
    rows, notes = [], unseen(net)
    for watched in watch.layers.values():
        operations, by_kind, why = 0, dict[str, int](), ""
        if isinstance(watched.module, SpikingNeuron):
            operations, by_kind, why = per_update(watched.module, convention)
            why = why or by_methods(watched.module)
        if why:
            notes.append(f"{watched.path or 'the network'!r}: {why}.")
        rows.append(_row(watched, samples, operations, by_kind))
    counts = [watched.count for watched in watch.layers.values()]
    effective = sum(w.count.updates * r.operations_per_update for w, r in zip(watch.layers.values(), rows, strict=True))
    dense = sum(
        w.count.neuron_steps * r.operations_per_update for w, r in zip(watch.layers.values(), rows, strict=True)
    )
    scores = running.scores.values()
    return Measurement(
        parameter_count=parameter_count(net),
        footprint=footprint(net),
        connection_sparsity=connection_sparsity(net),
        activation_sparsity=running.sparsity.value(),
        activation_sparsity_by_layer={
            row.path: row.activation_sparsity for row in rows if row.activation_sparsity is not None
        },
        synaptic_operations={
            "Effective_MACs": sum(c.operations.macs for c in counts) / samples,
            "Effective_ACs": sum(c.operations.acs for c in counts) / samples,
            "Dense": sum(c.operations.dense for c in counts) / samples,
        },
        membrane_updates=sum(c.updates for c in counts) / samples,
        neuron_operations={"Effective Neuron Ops": effective / samples, "Neuron Dense Ops": dense / samples},
        classification_accuracy=scores.get("classification_accuracy"),
        mse=scores.get("mse"),
        smape=scores.get("smape"),
        r2=scores.get("r2"),
        samples=samples,
        steps=running.sample_steps / samples,
        convention=convention,
        layers=tuple(rows),
        notes=tuple(notes),
    )


def _row(watched: Watched, samples: int, operations: int, by_kind: dict[str, int]) -> LayerMeasurement:
    count, own = watched.count, watched.count.operations
    return LayerMeasurement(
        path=watched.path,
        kind=type(watched.module).__name__,
        effective_macs=own.macs / samples,
        effective_acs=own.acs / samples,
        dense=own.dense / samples,
        dense_acs=own.dense_acs / samples,
        activation_sparsity=(count.outputs - count.nonzero) / count.outputs if count.outputs else None,
        activations=count.outputs / samples,
        membrane_updates=count.updates / samples,
        neuron_steps=count.neuron_steps / samples,
        operations_per_update=operations,
        operations=by_kind,
    )
