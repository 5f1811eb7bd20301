"""The vocabulary of a cell: functions that mean the same on tensors and on symbols.

A cell is written with ordinary arithmetic (``+ - * /``, ``** 2``, comparisons) and the functions below.
Called with tensors they compute; called with the symbols of the tracer they record what is to be computed.
Anything outside this vocabulary cannot be traced, and the cell then runs through the plain PyTorch loop.

    >>> import torch
    >>> from spikeloom import ops
    >>> ops.spike(torch.tensor([-0.5, 0.0, 0.5]))
    tensor([0., 0., 1.])
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from .scoped import Scoped

Value = Any
"""A tensor, a Python number or a symbol."""

Surrogate = Callable[[torch.Tensor], torch.Tensor]
"""A spike function: the Heaviside step forward, any derivative backward."""

TENSOR_FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "cos": torch.cos,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "where": torch.where,
    "clamp": torch.clamp,
    "detach": torch.detach,
}


def heaviside(u: torch.Tensor) -> torch.Tensor:
    """1 where u > 0, else 0 (exactly at zero: no spike), in the dtype of `u`; NaN does not spike."""
    return (u > 0).to(u.dtype)


_surrogate: Scoped[Surrogate] = Scoped("spikeloom_surrogate", heaviside)


def spiking_with(surrogate: Surrogate) -> AbstractContextManager[None]:
    """Within this context, `spike` on tensors is `surrogate`."""
    return _surrogate.set(surrogate)


def _apply(name: str, *args: Value) -> Value:
    for arg in args:
        if hasattr(arg, "record"):
            return arg.record(name, *args)
    like = next((arg for arg in args if isinstance(arg, torch.Tensor)), None)
    if like is None:
        raise TypeError(f"ops.{name} got {args!r}; pass at least one tensor, or use Python's math module on numbers")
    if name in ("minimum", "maximum") or (name == "clamp" and not _of_numbers(*args)):  # torch takes tensors alone
        args = tuple(arg if isinstance(arg, torch.Tensor) else like.new_full((), arg) for arg in args)
        if name == "clamp":  # whose backward does not broadcast
            args = tuple(torch.broadcast_tensors(*args))
    return TENSOR_FUNCTIONS[name](*args)


def _is_number(value: Value) -> bool:
    return not hasattr(value, "record") and isinstance(value, (int, float))


def _of_numbers(u: Value, low: Value, high: Value) -> bool:
    """Whether a tensor is held between two numbers."""
    return isinstance(u, torch.Tensor) and _is_number(low) and _is_number(high)


def spike(u: Value) -> Value:
    """H(u): 1 where u > 0, else 0; its derivative is the surrogate of the layer."""
    return u.record("spike", u) if hasattr(u, "record") else _surrogate.get()(u)


def detach(u: Value) -> Value:
    """`u`, with no gradient flowing through it."""
    return _apply("detach", u)


def exp(u: Value) -> Value:
    """e to the power of u."""
    return _apply("exp", u)


def log(u: Value) -> Value:
    """The natural logarithm of u."""
    return _apply("log", u)


def sqrt(u: Value) -> Value:
    """The square root of u."""
    return _apply("sqrt", u)


def abs(u: Value) -> Value:
    """|u|, with derivative 0 at 0."""
    return _apply("abs", u)


def tanh(u: Value) -> Value:
    """The hyperbolic tangent of u."""
    return _apply("tanh", u)


def sigmoid(u: Value) -> Value:
    """1 / (1 + exp(-u))."""
    return _apply("sigmoid", u)


def sin(u: Value) -> Value:
    """The sine of u, in radians."""
    return _apply("sin", u)


def cos(u: Value) -> Value:
    """The cosine of u, in radians."""
    return _apply("cos", u)


def minimum(a: Value, b: Value) -> Value:
    """The smaller of a and b; NaN if either is NaN. One of them may be a number."""
    return _apply("minimum", a, b)


def maximum(a: Value, b: Value) -> Value:
    """The larger of a and b; NaN if either is NaN. One of them may be a number."""
    return _apply("maximum", a, b)


def full_like(u: Value, value: float) -> Value:
    """A number in the dtype and shape of u, for `where` between two numbers."""
    return u.full_like(value) if hasattr(u, "record") else torch.full_like(u, value)


def where(condition: Value, a: Value, b: Value) -> Value:
    """a where the condition holds, else b; one of them may be a number."""
    if _is_number(a) and _is_number(b):
        raise TypeError(f"ops.where got two numbers, {a} and {b}, and no dtype; make one of them ops.full_like(u, {a})")
    return _apply("where", condition, a, b)


def clamp(u: Value, low: Value, high: Value) -> Value:
    """u, held between two values; where low > high, it is high, and NaN where any of the three is NaN.

    The gradient passes to u where low <= u <= high, and elsewhere to the bound that is taken, where that is a tensor.
    """
    return _apply("clamp", u, low, high)
