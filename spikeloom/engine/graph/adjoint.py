"""Reverse-mode differentiation of a cell's graph, into the same graph.

A table has one row per operation. It maps the incoming gradient g, the result and the arguments to one gradient per
argument. None stands for zero and is never computed, added or multiplied.
"""

from collections.abc import Callable, Mapping, Sequence

from ...surrogate import Spike
from .trace import NUMBERS, Graph, Symbol, needed

Partials = tuple[Symbol | None, ...]


def _clamp(g: Symbol, out: Symbol, u: Symbol, low: Symbol, high: Symbol) -> Partials:
    node = g.record
    to_u = node("where", u >= low, node("where", u <= high, g, 0.0), 0.0)
    to_low = None if low.op in NUMBERS else node("where", (low < high) & (u < low), g, 0.0)
    to_high = None if high.op in NUMBERS else node("where", (u > high) | (high < low), g, 0.0)
    return to_u, to_low, to_high


def _pick(other: str) -> Callable[..., Partials]:
    """The rule of minimum and maximum: the selected argument receives the gradient.

    Equal arguments receive half of it each; if one is NaN, both receive all of it.

    Args:
        other: the comparison of one argument with the other that is true if the other is selected.
    """

    def rule(g: Symbol, out: Symbol, a: Symbol, b: Symbol) -> Partials:
        shared = g.record("where", a == b, g * 0.5, g)
        return g.record("where", g.record(other, a, b), 0.0, shared), g.record(
            "where", g.record(other, b, a), 0.0, shared
        )

    return rule


RULES: Mapping[str, Callable[..., Partials]] = {
    "add": lambda g, out, a, b: (g, g),
    "sub": lambda g, out, a, b: (g, -g),
    "mul": lambda g, out, a, b: (g * b, g * a),
    "div": lambda g, out, a, b: (g / b, -g * (out / b)),
    "neg": lambda g, out, a: (-g,),
    "exp": lambda g, out, a: (g * out,),
    "log": lambda g, out, a: (g / a,),
    "sqrt": lambda g, out, a: (g / (2 * out),),
    "abs": lambda g, out, a: (g.record("where", a > 0, g, g.record("where", a < 0, -g, g * 0.0)),),
    "tanh": lambda g, out, a: (g * (1 - out * out),),
    "sigmoid": lambda g, out, a: (g * (out * (1 - out)),),
    "sin": lambda g, out, a: (g * a.record("cos", a),),
    "cos": lambda g, out, a: (-(g * a.record("sin", a)),),
    "minimum": _pick("gt"),
    "maximum": _pick("lt"),
    "where": lambda g, out, c, a, b: (None, g.record("where", c, g, 0.0), g.record("where", c, 0.0, g)),
    "clamp": _clamp,
}


def adjoint(
    graph: Graph, outputs: Sequence[tuple[Symbol, Symbol]], leaves: Sequence[Symbol], spike: Spike
) -> list[Symbol | None]:
    """The gradient of sum(output * cotangent) for each leaf; None where it does not depend on the leaf.

    Args:
        graph: the graph to which the nodes of the gradient are added.
        outputs: pairs of a result and its cotangent.
        leaves: nodes at which differentiation stops.
        spike: the spike function, whose surrogate derivative replaces that of the step function.
    """
    stop, numbers = frozenset(leaves), len(graph.numbers)
    gradients: dict[Symbol, Symbol] = {}

    def receive(node: Symbol, g: Symbol | None) -> None:
        if g is not None:
            gradients[node] = gradients[node] + g if node in gradients else g

    for node, cotangent in outputs:
        receive(node, cotangent)
    order = needed([node for node, _ in outputs], given=stop)
    for node in reversed(order):
        if node in gradients and node not in stop and node.args:
            for arg, g in zip(node.args, _pull_back(node, gradients[node], spike, numbers), strict=True):
                receive(arg, g if arg.op not in NUMBERS else None)
    return [gradients.get(leaf) for leaf in leaves]


def _pull_back(node: Symbol, g: Symbol, spike: Spike, numbers: int) -> Partials:
    if node.op == "spike":
        slope = g.graph.slope(spike, node.args[0], numbers)
        return (None if slope is None else g * slope,)
    if node.op in ("detach", "full", "full_like", "count") or node.logical:
        return (None,) * len(node.args)
    return RULES[node.op](g, node, *node.args)
