"""What a cell is: a neuron model as a pure function of one time step.

A cell maps ``(x, *states, **params)`` to ``(spk, *states)``. It knows nothing of layers, time, devices or kernels.
Called with tensors it is the reference; called with symbols it yields the graph from which kernels are made.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..ops import Value


@dataclass(frozen=True)
class Cell:
    """A neuron model: its equation, the names of its states and of its parameters.

    Two cells with the same equation, names and name are equal, and share their kernels. A cell with several inputs
    takes a tuple of them as x.

    Args:
        any_order: whether its sums over time may be taken in any order, so that it agrees with the loop to rounding.
        loop: whether its equation is to run as it is, through the plain loop, also where it could be traced.
    """

    name: str
    equation: Callable[..., tuple[Value, ...]]
    states: tuple[str, ...]
    params: tuple[str, ...]
    inputs: int = 1
    any_order: bool = False
    loop: bool = False

    def __call__(self, x: Value, *states: Value, **params: Value) -> tuple[Value, ...]:
        """One step: the spikes, then the new states in order."""
        return returned(self.name, self.equation(x, *states, **params), ("spk", *self.states))


def returned(name: str, out: Any, names: tuple[str, ...]) -> tuple[Value, ...]:
    """What an equation has returned, if it is one value for each of these names.

    Raises:
        TypeError: in a sentence, if it is not.
    """
    kind = type(out)  # isinstance would ask a symbol for its class, which it refuses to tell
    if issubclass(kind, tuple) and len(out) == len(names):
        return tuple(out)
    single = f"a {kind.__name__}" if kind in (list, dict, type(None)) else "one value"
    got = f"{len(out)} values" if issubclass(kind, tuple) else f"{single}, which is no tuple"
    wanted = ", ".join(names) + ("," if len(names) == 1 else "")
    raise TypeError(f"{name} returned {got}; return ({wanted})")


def signature_of(equation: Callable[..., Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The states (arguments after x) and the parameters (keyword-only arguments) that an equation names."""
    arguments = inspect.signature(equation).parameters.values()
    positional = tuple(a.name for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD)
    keyword = tuple(a.name for a in arguments if a.kind is a.KEYWORD_ONLY)
    if len(positional) < 2 or len(positional) + len(keyword) != len(arguments):
        raise TypeError(
            f"{equation.__name__}{inspect.signature(equation)} is not a neuron's equation; "
            "write it as (x, state, ..., *, parameter, ...), with at least one state"
        )
    return positional[1:], keyword


def initial_of(equation: Callable[..., Any]) -> dict[str, float]:
    """Where each state of an equation starts: at its default, else at zero."""
    states, _ = signature_of(equation)
    arguments = inspect.signature(equation).parameters
    return {name: 0.0 if (d := arguments[name].default) is inspect.Parameter.empty else float(d) for name in states}


def cell_from(equation: Callable[..., tuple[Value, ...]]) -> Cell:
    """The cell of a complete equation, which fires and resets by itself.

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
