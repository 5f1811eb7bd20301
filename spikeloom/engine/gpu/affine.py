"""Find recurrences that an associative scan can compute: a value that is affine in its previous value.

If mem' = a mem + b, and neither a nor b depends on mem, two steps compose to one of the same form, with a = a2 a1 and
b = a2 b1 + b2. So an associative scan computes all steps. The gradient of a state is always such a recurrence,
backwards in time, for any neuron: a derivative is linear in its cotangent.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..graph import Derivation, Symbol, needed


class Affine(NamedTuple):
    """slope * before + rest; None is zero."""

    slope: Symbol | None
    rest: Symbol | None


def affine(value: Symbol, before: Symbol, given: frozenset[Symbol] = frozenset()) -> Affine | None:
    """Write a node as slope * before + rest, or return None if it is not affine. Nodes may be added to its graph.

    Args:
        value: the node.
        before: the node in which it is affine; the slope and the rest do not depend on it.
        given: nodes that are not analyzed further.
    """
    found: dict[Symbol, Affine] = {}
    for node in needed([value], given | {before}):
        parts = [found[argument] for argument in node.args if argument in found]
        if node is before:
            found[node] = Affine(node.constant(1.0), None)
        elif node in given or all(part.slope is None for part in parts):
            found[node] = Affine(None, node)
        elif node.op in RULES and (made := RULES[node.op](*parts)) is not None:
            found[node] = made
        else:
            return None
    return found[value]


def recurrence(derivation: Derivation, backward: bool) -> Affine | None:
    """The affine recurrence of a neuron with one state, or None if its equation has none.

    Forward, it gives the new state from the old one; backward, the gradient of the old state from that of the new one.
    """
    if len(derivation.step.states) != 1:
        return None
    value, before = derivation.forward[1], derivation.step.states[0]
    given = frozenset(derivation.hoisted)
    if backward:
        _, (carry,), _ = derivation.gradients
        if carry is None:
            return None
        value, before, given = carry, derivation.cotangents[1], derivation.recalled - {derivation.cotangents[1]}
    found = affine(value, before, given)
    return None if found is None or found.slope is None else found


def _sum(a: Symbol | None, b: Symbol | None) -> Symbol | None:
    return a if b is None else b if a is None else a + b


def _scaled(a: Symbol | None, by: Symbol) -> Symbol | None:
    if a is None:
        return None
    return by if (a.op, a.value) == ("const", 1.0) else a * by


def _negative(a: Symbol | None) -> Symbol | None:
    return None if a is None else -a


def _product(a: Affine, b: Affine) -> Affine | None:
    if a.slope is not None and b.slope is not None:
        return None
    a, b = (a, b) if b.slope is None else (b, a)
    return Affine(None, None) if b.rest is None else Affine(_scaled(a.slope, b.rest), _scaled(a.rest, b.rest))


def _quotient(a: Affine, b: Affine) -> Affine | None:
    if b.slope is not None or b.rest is None:
        return None
    return Affine(*(None if part is None else part / b.rest for part in a))


def _chosen(condition: Affine, a: Affine, b: Affine) -> Affine | None:
    where = condition.rest
    if condition.slope is not None or where is None:
        return None

    def either(yes: Symbol | None, no: Symbol | None) -> Symbol | None:
        both_zero = yes is None and no is None
        return None if both_zero else where.record("where", where, *(0.0 if p is None else p for p in (yes, no)))

    return Affine(either(a.slope, b.slope), either(a.rest, b.rest))


RULES: Mapping[str, Callable[..., Affine | None]] = {
    "add": lambda a, b: Affine(_sum(a.slope, b.slope), _sum(a.rest, b.rest)),
    "sub": lambda a, b: Affine(_sum(a.slope, _negative(b.slope)), _sum(a.rest, _negative(b.rest))),
    "neg": lambda a: Affine(_negative(a.slope), _negative(a.rest)),
    "mul": _product,
    "div": _quotient,
    "where": _chosen,
}
