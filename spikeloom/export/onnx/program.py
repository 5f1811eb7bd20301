"""A network over all steps as a module of tensors alone, which torch exports, for any number of steps and rows."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..._torch import tree_flatten
from ...layers import SEES_TIME
from ...network import RandomState, Request, Run, Snapshot, read, run_checked, run_traced, undone
from ...neurons import SpikingNeuron


@dataclass(frozen=True)
class Slot:
    """A state of a layer, which one call leaves for the next.

    Args:
        layer, attribute: where it is stored.
        name: the path of the layer and the attribute.
        example: the state after a run; an integer is a number of steps.
        start: its value before the first step.
        batch_dim: the dimension of the batch; None if it has none.
    """

    layer: nn.Module
    attribute: str
    name: str
    example: Tensor
    start: float
    batch_dim: int | None

    def initial(self, batch: int) -> Tensor:
        """The state before the first step, for that many rows."""
        shape = list(self.example.shape)
        if self.batch_dim is not None:
            shape[self.batch_dim] = batch
        return torch.full(shape, self.start, dtype=self.example.dtype)


@dataclass(frozen=True)
class Sampled:
    """What a run of the network on the example has shown.

    Args:
        request: the run.
        outputs: the outputs, as the forward returns them.
        slots: the states of its layers.
        repeated: why a static input has to be repeated over time; empty if it does not.
    """

    request: Request
    outputs: Any
    slots: list[Slot]
    repeated: str

    def case(self, external: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The inputs of the file for the example, and the outputs that the network has for them, by name."""
        known, slots = self.request, self.slots if external else []
        inputs = dict(zip(input_names(known.net, len(known.args)), known.args, strict=True))
        inputs |= {slot.name: slot.initial(known.batch) for slot in slots}
        inputs |= {"steps": torch.tensor(known.steps)} if known.static else {}
        outputs = dict(zip(output_names(known.net, self.outputs), tensors_of(self.outputs), strict=True))
        return inputs, outputs | {f"{slot.name}.next": slot.example for slot in slots}


def sampled(net: nn.Module, args: tuple[Any, ...], steps: int | None) -> Sampled:
    """Run a network in evaluation mode from reset states, and leave it as it was.

    Raises:
        the errors of `spikeloom.unroll`, if the network cannot be unrolled or differs from its loop over steps.
    """
    before, drawn = Snapshot(net.modules()), RandomState()

    def work() -> Sampled:
        net.eval()
        _reset(net)
        request = read(net, args, {}, steps)
        if not request.steps or not request.batch:
            raise ValueError(
                f"the example has {request.steps} steps of {request.batch} rows; pass at least one step and row"
            )
        with torch.no_grad():
            done: Run = run_checked(request, None)
        return Sampled(request, done.outputs, [*_slots(request.names)], done.repeated)

    return undone(work, before, drawn)


def _reset(net: nn.Module) -> None:
    layers: list[Any] = [layer for layer in net.modules() if isinstance(layer, SEES_TIME)]
    for layer in layers:
        layer.reset_mem()


def _slots(names: Mapping[nn.Module, str]) -> Iterator[Slot]:
    for layer, path in names.items():
        if not isinstance(layer, SEES_TIME):
            continue
        for attribute in layer._carried():
            value = getattr(layer, attribute)
            example = value.detach() if isinstance(value, Tensor) else torch.tensor(value)
            start = layer._starts_at(attribute) if isinstance(layer, SpikingNeuron) else 0.0
            batch_dim = None if not example.dim() else 1 if attribute == "past" else 0
            yield Slot(layer, attribute, f"{path or 'net'}.{attribute}", example, start, batch_dim)


class Program(nn.Module):
    """The network over all steps: ``(inputs, states, steps) -> (*outputs, *final states)``. Resets the network.

    Args:
        run: what a run of the network on the example has shown.
        external: whether the states are arguments and results.
    """

    def __init__(self, run: Sampled, external: bool):
        super().__init__()
        self.net, self.run, self.external = run.request.net, run, external
        _reset(self.net)
        for slot in run.slots:  # without a shape, which a recording would compare with that of the input
            vars(slot.layer)[slot.attribute] = torch.zeros(0) if slot.example.dim() else 0

    def forward(self, inputs: tuple[Tensor, ...], states: tuple[Tensor, ...] = (), steps: Any = None) -> Any:
        """The outputs [T, B, ...], in order, then the states after the last step."""
        slots = self.run.slots
        with attributes_restored(self.net):
            for slot, state in zip(slots, states, strict=self.external):
                vars(slot.layer)[slot.attribute] = state
            request = self._request(inputs, steps)
            outputs = run_traced(request, follow=request.static and not self.run.repeated)
            finals = [vars(slot.layer)[slot.attribute] for slot in slots] if self.external else []
        return (*tensors_of(outputs), *finals)

    def _request(self, inputs: tuple[Tensor, ...], steps: Any) -> Request:
        """As for the example, with these sizes, which are symbols."""
        known = self.run.request
        (batch, *_), (length, rows, *_) = inputs[0].shape, (*inputs[0].shape, None)
        total, size = (steps, batch) if known.static else (length, rows)
        return Request(known.net, inputs, {}, total, size, known.static, known.names)


@contextmanager
def attributes_restored(net: nn.Module) -> Iterator[None]:
    """A context that undoes assignments to attributes of the modules, which would be values of a recording."""
    before = [(module, dict(vars(module))) for module in net.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)


def tensors_of(outputs: Any) -> list[Tensor]:
    """The tensors that a forward returns, in order.

    Raises:
        TypeError: if it returns something else than tensors.
    """
    leaves = [leaf for leaf in tree_flatten(outputs)[0] if leaf is not None]
    strange = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor)]
    if strange or not leaves:
        raise TypeError(f"the forward returns {', '.join(strange) or 'nothing'}; an exported network returns tensors")
    return leaves


def input_names(net: nn.Module, count: int) -> list[str]:
    """The names of the inputs: x, or the arguments of the forward."""
    if count == 1:
        return ["x"]
    named = list(inspect.signature(net.forward).parameters)
    return named[:count] if len(named) >= count else [f"x_{i}" for i in range(count)]


def output_names(net: nn.Module, outputs: Any) -> list[str]:
    """The names of the outputs: those of a neuron at the end, the keys of a dict, or numbered."""
    if isinstance(outputs, dict) and all(isinstance(value, Tensor) for value in outputs.values()):
        return [str(key) for key in outputs]
    count, last = len(tensors_of(outputs)), net
    while isinstance(last, nn.Sequential) and len(last):
        last = last[-1]
    if isinstance(last, SpikingNeuron):
        names = ["spk", *(name for name in last._heard_names() if name != "spk")]
        if count == len(names):
            return names
        if count == 1:  # a layer over whole sequences may return its membrane alone
            return ["mem"] if "mem" in getattr(last, "tells", ()) else ["spk"]
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def example_of(run: Sampled, external: bool) -> tuple[Any, Any]:
    """Arguments of `Program` to record it with, and which of their dimensions are dynamic.

    The sizes T and B of the recording are primes that no other size equals, and not 1, which torch would fix.
    """
    known = run.request
    taken = {size for tensor in (*known.tensors(), *known.net.parameters()) for size in tensor.shape}
    steps, batch = [n for n in (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53) if n not in taken][:2]
    lead = (batch,) if known.static else (steps, batch)
    dynamic = torch.export.Dim.DYNAMIC
    inputs = tuple(x.new_zeros((*lead, *x.shape[len(lead) :])) for x in known.args)
    states: Sequence[Tensor] = [slot.initial(batch).to(slot.example.device) for slot in run.slots] if external else []
    shapes: list[Any] = [
        tuple(dict.fromkeys(range(len(lead)), dynamic) for _ in inputs),
        tuple({} if slot.batch_dim is None else {slot.batch_dim: dynamic} for slot in run.slots) if external else (),
    ]
    return (inputs, tuple(states), *([steps] if known.static else [])), (*shapes, *([dynamic] if known.static else []))
