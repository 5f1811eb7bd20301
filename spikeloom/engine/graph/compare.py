"""Check that the graph of a user's equation computes the same values as the equation on tensors.

The tracer calls an equation with symbols. An equation that catches a symbol's error, or inspects the type or the text
of a value, records other operations than it runs on tensors. Also, torch rejects some numbers that a graph accepts.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ..._torch import untraced
from ...cells.cell import Cell
from ...surrogate import Spike
from .trace import NUMBERS, Graph, Symbol, TracedStep, line_of, needed

OPERATORS: Mapping[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "not": lambda a: ~a,
    "count": lambda a: a,  # torch converts a condition in an operation with a value itself
}

VALUES = 64
"""The number of values of each input and state that are compared."""

OTHERWISE = (
    "it computes something else on tensors than on the tracer's symbols; it must not catch errors, nor depend on the "
    "type or the text of a value"
)


def difference(cell: Cell, step: TracedStep) -> str:
    """Describe how a cell on tensors differs from its graph; empty if they agree."""
    draw, leaves = Random(0), (*step.inputs, *step.states)  # torch refuses to draw within vmap
    made: Mapping[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    with untraced(), torch.inference_mode(False), torch.no_grad(), ops.spiking_with(ops.heaviside):
        known: dict[Symbol, Any] = {
            leaf: torch.tensor([draw.gauss(0, 2) for _ in range(VALUES)], **made) for leaf in leaves
        }
        known |= {leaf: torch.tensor(draw.random(), **made) for leaf in step.params.values()}
        x, states = [known[leaf] for leaf in step.inputs], [known[leaf] for leaf in step.states]
        params = {name: known[leaf] for name, leaf in step.params.items()}
        try:
            wanted = cell(x[0] if cell.inputs == 1 else tuple(x), *states, **params)
        except Exception as error:  # a custom equation may raise any error
            return f"{cell.label} can be traced, but does not run on tensors: {error}{line_of(error)}"
        found = _on_tensors(step.graph, (step.spk, *step.new_states), known)
        pairs = list(zip(found, wanted, strict=True))
        if _agree(pairs):
            return ""
    return f"{cell.label} cannot be traced: {OTHERWISE}"


def slope_difference(spike: Spike, graph: Graph, u: Symbol, slope: Symbol | None) -> str:
    """Describe how the derivative of a spike function on tensors differs from its graph; empty if they agree."""
    draw = Random(0)
    with untraced(), torch.inference_mode(False), torch.no_grad():
        values = torch.tensor([draw.gauss(0, 1) for _ in range(VALUES)], dtype=torch.float32, device="cpu")
        try:
            wanted = values * spike.slope_at(values)
        except Exception as error:  # a custom formula may raise any error
            return f"it does not run on tensors: {error}{line_of(error)}"
        found = 0.0 if slope is None else _on_tensors(graph, (slope,), {u: values})[0]
        return "" if _agree([(values * found, wanted)]) else OTHERWISE


def _on_tensors(graph: Graph, results: Sequence[Symbol], known: dict[Symbol, Any]) -> list[Any]:
    """Evaluate a graph with torch's operations, given the values of some nodes."""
    for node in needed(results, frozenset(known)):
        if node.op in NUMBERS:
            known[node] = node.value if node.op == "const" else graph.numbers[node.value]
        elif node.op == "full":
            known[node] = torch.full((VALUES,), known[node.args[0]], dtype=torch.float32, device="cpu")
        elif node not in known:
            function = OPERATORS.get(node.op) or getattr(ops, node.op)
            known[node] = function(*[known[arg] for arg in node.args])
    return [known[node] for node in results]


def _agree(pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether values are equal. True for fake tensors, which have no values."""
    if any(type(value) is not Tensor for _, value in pairs):
        return True
    return all(torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True) for ours, theirs in pairs)
