"""Operations of a neuron per update, counted on the graph of its equation or as NeuroBench counts them."""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import nn

from .. import surrogate
from ..engine.graph import NUMBERS, Derivation, Symbol, needed, program_for, structure_of
from ..neurons import SpikingNeuron

NEUROBENCH: Mapping[tuple[str, str], int] = {
    ("Leaky", "subtract"): 4,
    ("Leaky", "zero"): 4,
    ("Synaptic", "subtract"): 6,
    ("Synaptic", "zero"): 8,
    ("Lapicque", "subtract"): 11,
    ("Lapicque", "zero"): 11,
    ("Alpha", "subtract"): 18,
    ("Alpha", "zero"): 24,
}
"""Operations per update in NeuroBench 2.3.0, by class and reset mechanism."""

CONVENTIONS = ("neurobench", "equation")

KINDS: Mapping[str, tuple[str, int]] = {
    **dict.fromkeys(("add", "sub", "neg", "abs"), ("add", 1)),
    "mul": ("multiply", 1),
    "div": ("divide", 1),
    **dict.fromkeys(("lt", "le", "gt", "ge", "eq", "ne", "spike", "minimum", "maximum", "where"), ("compare", 1)),
    "clamp": ("compare", 2),
    **dict.fromkeys(("exp", "log", "sqrt", "tanh", "sigmoid", "sin", "cos"), ("function", 1)),
}
"""The kind of an operation of a graph, and how many of it; operations on conditions are free."""


def neuron_operations(neuron: nn.Module) -> dict[str, int]:
    """Count the operations of one update of a neuron, on the graph of its equation.

    Args:
        neuron: a neuron of this package, or one made by `cell` or `charge`.

    Returns:
        the number of operations per neuron and step, by kind: "add" (also differences and signs), "multiply", "divide",
        "compare" (also minima, maxima and choices) and "function" (exp, tanh, ...).

    Raises:
        TypeError: if it is not a neuron.
        ValueError: if its equation cannot be traced.

    Not counted: what is made of parameters alone, which is computed once; what the last step has computed already,
    such as its spikes for a delayed reset; and a factor of graded spikes that is one. A membrane that is compared with
    a threshold is one comparison. Feedback through a layer consists of synaptic operations.

        >>> import spikeloom as snn
        >>> snn.metrics.neuron_operations(snn.Leaky(beta=0.9))
        {'add': 2, 'multiply': 2, 'compare': 1}
        >>> @snn.charge
        ... def Quadratic(x, mem, *, beta):
        ...     return (beta * mem + x + 0.1 * mem ** 2,)
        >>> snn.metrics.neuron_operations(Quadratic(beta=0.9))
        {'add': 3, 'multiply': 4, 'compare': 1}
    """
    if not isinstance(neuron, SpikingNeuron):
        raise TypeError(f"neuron_operations got {type(neuron).__name__}; pass a neuron, such as snn.Leaky(beta=0.9)")
    program = neuron._program
    if program.untraceable:  # perhaps only its spike function
        program = program_for(program.cell, surrogate.no_gradient())
    if program.derivation is None:
        raise ValueError(f"the operations of {type(neuron).__name__} cannot be counted: {program.untraceable}")
    return dict(_counted(program.key, _ones(neuron)))


def per_update(neuron: nn.Module, convention: str) -> tuple[int, dict[str, int], str]:
    """The number of operations of an update in a convention, those by kind, and why there are none, if so."""
    try:
        by_kind, why = neuron_operations(neuron), ""
    except ValueError as error:
        by_kind, why = {}, str(error)
    known = NEUROBENCH.get((type(neuron).__name__, getattr(neuron, "_reset_mechanism", "")))
    if convention == "neurobench" and known is not None:
        return known, by_kind, ""
    return sum(by_kind.values()), by_kind, why


def by_methods(neuron: SpikingNeuron) -> str:
    """A sentence on a neuron that methods run step by step, whose operations are not in its equation; else empty."""
    why = "; ".join(neuron._why_by_methods())
    return f"its operations are those of its equation alone, and {why}" if why else ""


def _ones(neuron: SpikingNeuron) -> frozenset[str]:
    """The names of the factors of a neuron that are one."""
    factor = getattr(neuron, "graded_spikes_factor", None)
    return frozenset(
        {"graded_spikes_factor"} if factor is not None and bool((torch.as_tensor(factor) == 1).all()) else ()
    )


@lru_cache(maxsize=512)
def _counted(key: str, ones: frozenset[str]) -> tuple[tuple[str, int], ...]:
    """The operations of the program with that key, by kind."""
    counts = dict.fromkeys(("add", "multiply", "divide", "compare", "function"), 0)
    for node in _computed(structure_of(key).derivation, ones):
        kind, times = KINDS.get(node.op, ("", 0))
        if times:
            counts[kind] += times
    return tuple((kind, count) for kind, count in counts.items() if count)


def _computed(derivation: Derivation, ones: frozenset[str]) -> list[Symbol]:
    """The nodes that one step has to compute."""
    known = frozenset((*derivation.hoisted, *_remembered(derivation)))
    nodes = [n for n in needed(derivation.forward, known) if n not in known and n.args]
    outputs = frozenset(derivation.forward)
    readers: dict[Symbol, list[str]] = {}
    for node in nodes:
        for arg in node.args:
            readers.setdefault(arg, []).append(node.op)

    def is_free(node: Symbol) -> bool:
        if node.op in ("mul", "div") and any(a.op == "param" and a.value in ones for a in node.args):
            return True
        compared = set(readers.get(node, ())) == {"spike"} and node not in outputs
        return not node.varying or (node.op == "sub" and compared)

    return [node for node in nodes if not is_free(node)]


def _remembered(derivation: Derivation) -> list[Symbol]:
    """The nodes that equal a node of the step before: the same operation on the states that it returned."""
    step = derivation.step
    nodes = list(needed(derivation.forward))
    places = {(n.op, tuple(a.index for a in n.args), repr(n.value)): n for n in nodes}
    before: dict[Symbol, Symbol | None] = {}
    for node in nodes:
        if node.op == "state":
            before[node] = step.new_states[[s.index for s in step.states].index(node.index)]
        elif node.op in (*NUMBERS, "param"):
            before[node] = node
        elif node.args and all(before.get(a) is not None for a in node.args):
            args = tuple(made.index for a in node.args if (made := before[a]) is not None)
            before[node] = places.get((node.op, args, repr(node.value)))
        else:
            before[node] = None
    return [node for node in nodes if node.args and node.varying and before[node] is not None]
