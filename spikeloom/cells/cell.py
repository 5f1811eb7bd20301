"""Cells: neuron models as pure functions of one time step.

A cell maps ``(x, *states, **params)`` to ``(spk, *states)``. It does not depend on layers, time, devices or kernels.
Called with tensors it is the reference. Called with symbols it builds the graph from which kernels are compiled.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..ops import Value


@dataclass(frozen=True)
class Cell:
    """A neuron model: its equation and the names of its states and parameters.

    Cells with equal fields are equal and share their kernels. A cell with several inputs expects a tuple of them as x.

    Args:
        any_order: whether its sums over time may be reordered, so that kernels agree with the loop to rounding.
        loop: whether its equation always runs on the PyTorch loop, even if it could be traced.
    """

    name: str
    equation: Callable[..., tuple[Value, ...]]
    states: tuple[str, ...]
    params: tuple[str, ...]
    inputs: int = 1
    any_order: bool = False
    loop: bool = False

    @property
    def label(self) -> str:
        """The name of the model without the marks of its options, for messages."""
        return self.name.partition("/")[0]

    def __call__(self, x: Value, *states: Value, **params: Value) -> tuple[Value, ...]:
        """One step: the spikes, then the new states in order."""
        return returned(self.equation, self.equation(x, *states, **params), ("spk", *self.states), self.label)


def returned(equation: Callable[..., Any], out: Any, names: tuple[str, ...], name: str = "") -> tuple[Value, ...]:
    """Return the results of an equation as a tuple.

    Raises:
        TypeError: if it is not a tuple with one value for each name.
    """
    kind = type(out)  # not isinstance: symbols raise an error when their class is read
    if issubclass(kind, tuple) and len(out) == len(names):
        return tuple(out)
    other = kind in (list, dict, type(None))
    single = f"a {kind.__name__}" if other else "one value"
    got = f"a tuple of {len(out)}" if issubclass(kind, tuple) else f"{single}, which is not a tuple"
    wanted = ", ".join(names) + ("," if len(names) == 1 else "")
    advice = "" if other else _advice(equation, len(out) if issubclass(kind, tuple) else 1, names)
    raise TypeError(f"{name or equation.__name__} returned {got}; return ({wanted}){advice}")


def _advice(equation: Callable[..., Any], count: int, names: tuple[str, ...]) -> str:
    """What an equation with another number of results than `names` may have meant."""
    advice, more = "", len(names) - count
    if 0 < more < len(names) - (names[0] == "spk"):
        advice += _as_parameters(equation, names[-more:])
    if names[0] == "spk" and more == 1:
        advice += "; or, if the layer shall fire and reset as Leaky does, decorate it with @snn.cell(charge=True)"
    if names[0] != "spk" and more == -1:
        advice += "; or, if it returns its spikes too, decorate it with @snn.cell, without charge"
    return advice


def _as_parameters(equation: Callable[..., Any], names: tuple[str, ...]) -> str:
    """The signature in which the last states, these names, are parameters."""
    if not hasattr(equation, "__name__"):
        return ""
    arguments = [*inspect.signature(equation).parameters.values()]
    shown = [str(a.replace(annotation=a.empty)).replace(" ", "") for a in arguments]
    first = [a.name for a in arguments].index(names[0])
    after = [text for text in shown[first:] if text != "*"]
    verb = "are parameters" if len(names) > 1 else "is a parameter"
    rest = ", ".join((*shown[:first], "*", *after))
    return f"; or, if {' and '.join(names)} {verb}, write * before: ({rest})"


def signature_of(equation: Callable[..., Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the states (arguments after x) and parameters (keyword-only arguments) of an equation."""
    arguments = inspect.signature(equation).parameters.values()
    positional = tuple(a.name for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD)
    keyword = tuple(a.name for a in arguments if a.kind is a.KEYWORD_ONLY)
    if len(positional) < 2 or len(positional) + len(keyword) != len(arguments):
        raise TypeError(
            f"{equation.__name__}{inspect.signature(equation)} is not the equation of a neuron; "
            "write it as (x, state, ..., *, parameter, ...), with at least one state"
        )
    return positional[1:], keyword


def initial_of(equation: Callable[..., Any]) -> dict[str, float]:
    """The initial value of each state of an equation: its default, else zero."""
    states, _ = signature_of(equation)
    arguments = inspect.signature(equation).parameters
    return {name: 0.0 if (d := arguments[name].default) is inspect.Parameter.empty else float(d) for name in states}


def cell_from(equation: Callable[..., tuple[Value, ...]]) -> Cell:
    """The cell of a complete equation, including spikes and reset.

    >>> from spikeloom import ops
    >>> def integrate(x, mem, *, threshold):
    ...     mem = mem + x
    ...     spk = ops.spike(mem - threshold)
    ...     return spk, mem - ops.detach(spk) * threshold
    >>> cell = cell_from(integrate)
    >>> cell.states, cell.params
    (('mem',), ('threshold',))
    """
    states, params = signature_of(equation)
    return Cell(equation.__name__, equation, states, params)
