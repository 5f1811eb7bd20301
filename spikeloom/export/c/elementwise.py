"""Functions of torch that compute each element on its own, as equations."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ... import ops, surrogate
from ...cells.cell import Cell
from ...engine.graph import program_for
from ...ops import Value
from .equation import equation_of
from .errors import refuse
from .identifiers import identifier
from .layers import Array, Neuron

# The arguments have the names that torch gives them.


def _scaled(value: Value, alpha: float) -> Value:
    return value if alpha == 1 else alpha * value


def _add(input: Value, other: Value, alpha: float = 1.0) -> Value:
    return input + _scaled(other, alpha)


def _sub(input: Value, other: Value, alpha: float = 1.0) -> Value:
    return input - _scaled(other, alpha)


def _rsub(input: Value, other: Value, alpha: float = 1.0) -> Value:
    return other - _scaled(input, alpha)


def _mul(input: Value, other: Value) -> Value:
    return input * other


def _div(input: Value, other: Value, rounding_mode: None = None) -> Value:
    if rounding_mode is not None:
        raise TypeError(f"rounding_mode={rounding_mode!r}")
    return input / other


def _pow(input: Value, exponent: float) -> Value:
    if exponent in (0.5, -0.5, -1):
        root = input if exponent == -1 else ops.sqrt(input)
        return root if exponent > 0 else 1.0 / root
    return input if exponent == 1 else input ** (int(exponent) if exponent in (2, 3) else exponent)


def _clamp(input: Value, min: Value | None = None, max: Value | None = None) -> Value:
    if type(min) is float and type(max) is float:
        return ops.clamp(input, min, max)
    lower = input if min is None else ops.maximum(input, min)
    return lower if max is None else ops.minimum(lower, max)


def _clamp_min(input: Value, min: Value) -> Value:
    return ops.maximum(input, min)


def _clamp_max(input: Value, max: Value) -> Value:
    return ops.minimum(input, max)


def _maximum(input: Value, other: Value) -> Value:
    return ops.maximum(input, other)


def _minimum(input: Value, other: Value) -> Value:
    return ops.minimum(input, other)


def _where(condition: Value, input: Value, other: Value) -> Value:
    first = ops.full_like(condition, input) if type(input) is float and type(other) is float else input
    return ops.where(condition != 0.0, first, other)


def _relu(input: Value) -> Value:
    return ops.where(input <= 0, 0.0, input)


def _leaky_relu(input: Value, negative_slope: float = 0.01) -> Value:
    return ops.where(input > 0, input, input * negative_slope)


def _threshold(input: Value, threshold: float, value: float) -> Value:
    return ops.where(input > threshold, input, ops.full_like(input, value))


def _hardtanh(input: Value, min_val: float = -1.0, max_val: float = 1.0) -> Value:
    return ops.clamp(input, min_val, max_val)


def _hardsigmoid(input: Value) -> Value:
    return ops.clamp(input + 3.0, 0.0, 6.0) / 6.0


def _elu(input: Value, alpha: float = 1.0) -> Value:
    return ops.where(input > 0, input, alpha * (ops.exp(input) - 1.0))


def _softplus(input: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    scaled = input if beta == 1 else beta * input
    return ops.where(scaled > threshold, input, ops.log(1.0 + ops.exp(scaled)) / beta)


def _sign(input: Value) -> Value:
    return ops.where(input > 0, 1.0, ops.where(input < 0, ops.full_like(input, -1.0), 0.0))


def _compared(compare: Callable[[Value, Value], Value]) -> Callable[[Value, Value], Value]:
    def compared(input: Value, other: Value) -> Value:
        return ops.where(compare(input, other), ops.full_like(input, 1.0), 0.0)

    return compared


def _of(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    def of(input: Value) -> Value:
        return function(input)

    return of


ELEMENTWISE: Mapping[str, Callable[..., Value]] = {
    "add": _add,
    "sub": _sub,
    "rsub": _rsub,
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "clamp": _clamp,
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    "maximum": _maximum,
    "minimum": _minimum,
    "where": _where,
    "gt": _compared(lambda a, b: a > b),
    "ge": _compared(lambda a, b: a >= b),
    "lt": _compared(lambda a, b: a < b),
    "le": _compared(lambda a, b: a <= b),
    "eq": _compared(lambda a, b: a == b),
    "ne": _compared(lambda a, b: a != b),
    "logical_not": _of(lambda u: ops.where(u == 0.0, ops.full_like(u, 1.0), 0.0)),
    "relu": _relu,
    "relu6": _of(lambda u: ops.clamp(u, 0.0, 6.0)),
    "leaky_relu": _leaky_relu,
    "threshold": _threshold,
    "hardtanh": _hardtanh,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _of(lambda u: u * ops.clamp(u + 3.0, 0.0, 6.0) / 6.0),
    "elu": _elu,
    "silu": _of(lambda u: u * ops.sigmoid(u)),
    "softplus": _softplus,
    "sign": _sign,
    "square": _of(lambda u: u * u),
    "reciprocal": _of(lambda u: 1.0 / u),
    "rsqrt": _of(lambda u: 1.0 / ops.sqrt(u)),
    "neg": _of(lambda u: -u),
    **{name: _of(getattr(ops, name)) for name in ("abs", "exp", "log", "sqrt", "sigmoid", "tanh", "sin", "cos")},
}
"""The functions, by their names in torch."""

ALIASES: Mapping[str, str] = {
    "truediv": "div",
    "divide": "div",
    "true_divide": "div",
    "multiply": "mul",
    "subtract": "sub",
    "negative": "neg",
    "absolute": "abs",
    "clip": "clamp",
    "max": "maximum",
    "min": "minimum",
    "greater": "gt",
    "less": "lt",
    "greater_equal": "ge",
    "less_equal": "le",
    "not_equal": "ne",
}
"""Other names of the same functions."""

MODULES: Mapping[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.ReLU: ("relu", ()),
    nn.ReLU6: ("relu6", ()),
    nn.LeakyReLU: ("leaky_relu", ("negative_slope",)),
    nn.Threshold: ("threshold", ("threshold", "value")),
    nn.Hardtanh: ("hardtanh", ("min_val", "max_val")),
    nn.Hardsigmoid: ("hardsigmoid", ()),
    nn.Hardswish: ("hardswish", ()),
    nn.ELU: ("elu", ("alpha",)),
    nn.SiLU: ("silu", ()),
    nn.Softplus: ("softplus", ("beta", "threshold")),
    nn.Sigmoid: ("sigmoid", ()),
    nn.Tanh: ("tanh", ()),
}
"""The functions that modules compute, and the attributes that are arguments of it."""


@dataclass(frozen=True)
class Call:
    """A call of an elementwise function.

    Args:
        name: of the function.
        arguments: by name; an `Array`, a tensor that is constant, or a number.
    """

    name: str
    arguments: Mapping[str, Any]

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays that it reads, each once."""
        return tuple(dict.fromkeys(value for value in self.arguments.values() if isinstance(value, Array)))

    @property
    def constants(self) -> dict[str, Tensor]:
        """The constant tensors, by argument."""
        return {name: value for name, value in self.arguments.items() if isinstance(value, Tensor)}


def elementwise_call(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], title: str) -> Call | None:
    """A call of this function; None if it is not elementwise.

    Args:
        name: of the function in torch.
        args, kwargs: of the call, with arrays, constant tensors and numbers.
        title: of the network.
    """
    known = ALIASES.get(name, name)
    if known not in ELEMENTWISE:
        return None
    named = {("input" if key == "self" else key): value for key, value in kwargs.items() if key != "inplace"}
    signature = inspect.signature(ELEMENTWISE[known])
    args = args if len(args) <= len(signature.parameters) or not isinstance(args[-1], bool) else args[:-1]  # inplace
    try:
        bound = signature.bind(*args, **named).arguments
    except TypeError:
        given = ", ".join(f"{key}={value}" for key, value in named.items())
        refuse(title, f"its forward calls {name} with {given or f'{len(args)} arguments'}")
    numbers = (int, float, type(None), Array, Tensor)
    for key, value in bound.items():
        if isinstance(value, tuple):
            refuse(title, f"its forward calls {name} with {len(value)} arrays at once; take one of them")
        if not isinstance(value, numbers) or isinstance(value, bool):
            refuse(title, f"its forward calls {name} with {key}={value}")
    plain = {key: float(v) if isinstance(v, int) else v for key, v in bound.items()}
    return Call(known, plain)


def elementwise_layer(
    name: str, title: str, call: Call, xs: tuple[Array, ...], shape: tuple[int, ...], dtype: torch.dtype
) -> Neuron:
    """A call as a layer that reads `xs`, its arrays in the shape of the result."""
    params = {key: f"{identifier(key)}_value" for key in call.constants}

    def function(x: Any, **values: Value) -> Value:
        found = dict(zip(call.arrays, x if len(xs) > 1 else (x,), strict=True))
        given = {key: found[v] if isinstance(v, Array) else v for key, v in call.arguments.items()}
        given |= {key: values[param] for key, param in params.items()}
        return ELEMENTWISE[call.name](**given)

    tensors = {params[key]: value for key, value in call.constants.items()}
    return function_layer(name, title, function, xs, shape, dtype, tensors)


def function_layer(
    name: str,
    title: str,
    function: Callable[..., Any],
    xs: tuple[Array, ...],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    constants: Mapping[str, Tensor] | None = None,
) -> Neuron:
    """A function of each element, without states, as a layer; of several arrays it takes a tuple.

    Args:
        shape: of the result and of each array.
        constants: tensors that are arguments of the function, by name.
    """
    cell = Cell(title, lambda x, **values: (function(x, **values),), (), tuple(constants or ()), inputs=len(xs))
    program = program_for(cell, surrogate.no_gradient())
    if program.untraceable:
        refuse(title, program.untraceable)
    values = {key: _fitted(title, value.to(dtype), shape) for key, value in (constants or {}).items()}
    equation = equation_of(title, program, values, torch.zeros(shape, dtype=dtype), {})
    return Neuron(name, title, xs, Array(name, shape), equation)


def _fitted(title: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A constant in the shape of one sample; one number if it is one."""
    value = value.detach().cpu()
    while value.dim() > len(shape) and value.shape[0] == 1:
        value = value[0]
    if value.numel() == 1:
        return value.reshape(())
    if value.dim() > len(shape):
        refuse(title, f"a constant of shape {tuple(value.shape)} differs from sample to sample of the batch")
    return value.expand(shape)
