"""A cell on tensors against its graph: an equation of the user's may notice which of the two it computes.

The tracer calls an equation with symbols. An equation that catches the refusal of a symbol, or looks at the type or the
text of a value, records other operations than it runs on tensors. And torch refuses some numbers that a graph takes.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import torch

from ... import ops
from ..._torch import untraced
from ...cells.cell import Cell
from .trace import Symbol, Trace, line_of, needed

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
    "count": lambda a: a,  # torch counts a condition beside a value by itself
}

VALUES = 64
"""How many values of each input and state are compared."""


def difference(cell: Cell, step: Trace) -> str:
    """How a cell on tensors differs from its graph, in a sentence; nothing if they agree."""
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
        except Exception as error:  # whatever an equation of the user's raises
            return f"{cell.name} can be traced, but does not run on tensors: {error}{line_of(error)}"
        for node in needed((step.spk, *step.new_states), frozenset(known)):
            if node.op in ("const", "number"):
                known[node] = node.value if node.op == "const" else step.graph.numbers[node.value]
            elif node.op == "full":
                known[node] = torch.full((VALUES,), known[node.args[0]], **made)
            elif node not in known:
                function = OPERATORS.get(node.op) or getattr(ops, node.op)
                known[node] = function(*[known[arg] for arg in node.args])
        pairs = [(known[node], value) for node, value in zip((step.spk, *step.new_states), wanted, strict=True)]
        if any(type(value) is not torch.Tensor for _, value in pairs):  # fake tensors, which have no values
            return ""
        if all(torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True) for ours, theirs in pairs):
            return ""
    return (
        f"{cell.name} cannot be traced: it computes something else on tensors than on the tracer's symbols; it must "
        "not catch errors, nor depend on the type or the text of a value"
    )
