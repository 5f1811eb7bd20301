"""Operations for the equations of neurons, on tensors and on symbols.

An equation uses ordinary arithmetic (``+ - * /``, ``** 2``, comparisons) and the functions below. Called with tensors
they compute the result. Called with symbols of the tracer they record the operation. An equation with other operations
cannot be traced: it requires ``snn.cell(loop=True)`` and runs on the PyTorch loop.

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

__all__ = [
    "abs", "clamp", "cos", "detach", "exp", "full_like", "heaviside", "log", "maximum", "minimum", "sigmoid", "sin",
    "spike", "spiking_with", "sqrt", "tanh", "where",
]  # fmt: skip

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
    """1 where u > 0, else 0, in the dtype of `u`; 0 at zero and for NaN."""
    return (u > 0).to(u.dtype)


_surrogate: Scoped[Surrogate] = Scoped("spikeloom_surrogate", heaviside)


def spiking_with(surrogate: Surrogate) -> AbstractContextManager[None]:
    """Context manager in which `spike` on tensors calls `surrogate`."""
    return _surrogate.set(surrogate)


def _apply(name: str, *args: Value) -> Value:
    for arg in args:
        if hasattr(arg, "record"):
            return arg.record(name, *args)
    like = next((arg for arg in args if isinstance(arg, torch.Tensor)), None)
    if like is None:
        raise TypeError(f"ops.{name} got {args!r}; pass at least one tensor, or use Python's math module on numbers")
    if name in ("minimum", "maximum") or (name == "clamp" and not _of_numbers(*args)):  # torch accepts only tensors
        args = tuple(arg if isinstance(arg, torch.Tensor) else like.new_full((), arg) for arg in args)
        if name == "clamp":  # the backward of clamp does not broadcast
            args = tuple(torch.broadcast_tensors(*args))
    return TENSOR_FUNCTIONS[name](*args)


def _is_number(value: Value) -> bool:
    return not hasattr(value, "record") and isinstance(value, (int, float))


def _of_numbers(u: Value, low: Value, high: Value) -> bool:
    """Whether u is a tensor and both bounds are numbers."""
    return isinstance(u, torch.Tensor) and _is_number(low) and _is_number(high)


def spike(u: Value) -> Value:
    """H(u): 1 where u > 0, else 0. The derivative is the surrogate gradient of the layer."""
    if hasattr(u, "record"):
        return u.record("spike", u)
    spk = _surrogate.get()(u)
    if not isinstance(spk, torch.Tensor):
        raise TypeError(
            f"the spike function {_surrogate.get()!r} returned a {type(spk).__name__} instead of spikes; if it makes "
            "spike functions, call it: spike_grad=surrogate.fast_sigmoid()"
        )
    return spk


def detach(u: Value) -> Value:
    """`u`, without gradient."""
    return _apply("detach", u)


def exp(u: Value) -> Value:
    """The exponential of u."""
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
    """The minimum of a and b, elementwise; NaN if either is NaN. One of them may be a number."""
    return _apply("minimum", a, b)


def maximum(a: Value, b: Value) -> Value:
    """The maximum of a and b, elementwise; NaN if either is NaN. One of them may be a number."""
    return _apply("maximum", a, b)


def full_like(u: Value, value: float) -> Value:
    """A tensor filled with a number, with the dtype and shape of u, for `where` with two numbers."""
    return u.full_like(value) if hasattr(u, "record") else torch.full_like(u, value)


def where(condition: Value, a: Value, b: Value) -> Value:
    """a where the condition is True, else b. One of them may be a number."""
    if _is_number(a) and _is_number(b):
        raise TypeError(f"ops.where got two numbers, {a} and {b}, without dtype; replace one by ops.full_like(u, {a})")
    return _apply("where", condition, a, b)


def clamp(u: Value, low: Value, high: Value) -> Value:
    """Clamp u to [low, high]; high where low > high, and NaN where any argument is NaN.

    The gradient flows to u where low <= u <= high, and elsewhere to the active bound, if it is a tensor.
    """
    return _apply("clamp", u, low, high)
