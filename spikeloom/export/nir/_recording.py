"""What the trace of one step of a network is made of."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ._forms import Shape


@dataclass(frozen=True)
class Value:
    """What a tensor of the run is: the sum of outputs of layers, or something that NIR cannot represent.

    Args:
        sources: keys of the layers whose outputs it sums, in order.
        why: why it is none, empty otherwise.
        state: whether it is a state that a neuron returned.
    """

    sources: tuple[str, ...] = ()
    why: str = ""
    state: bool = False


@dataclass
class Step:
    """A layer, or an operation between layers, in the order of the run.

    Args:
        key: its name in the graph.
        layer: the module; None for an operation.
        operation: "flatten", "scale", "divide", or "sum", of a sum that is part of another.
        factor: of "scale" and "divide".
        late: how many steps late its input is, of a delay in a cycle.
        sources: the keys of the layers that it gets the sum of.
        before, after: the shapes of the tensors, with the dimensions of the batch.
        label: for messages.
    """

    key: str
    layer: nn.Module | None
    sources: tuple[str, ...]
    before: Shape
    after: Shape
    label: str
    operation: str = ""
    factor: Any = None
    late: int = 0


@dataclass
class Recording:
    """One step of a network.

    Args:
        inputs: names and shapes.
        steps: layers and operations, in the order of the run.
        outputs: the keys whose sum an output is, its shape, and its place among the tensors that the forward returns.
    """

    inputs: list[tuple[str, Shape]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    outputs: list[tuple[tuple[str, ...], Shape, int]] = field(default_factory=list)

    def links(self) -> list[Any]:
        """What is connected with what."""
        return [*((step.key, step.sources, step.before, step.after) for step in self.steps), *self.outputs]


class CannotTrace(ValueError):
    """A forward that is no NIR graph; the message says where, and what would be one."""
