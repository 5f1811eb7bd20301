"""A network in floating point: every operation in the order and precision of the library."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ...engine.graph import Symbol
from . import kernels, norms, timed_kernels
from .equation import Equation, Text, shortest
from .errors import refuse
from .form import function
from .kernels import Types
from .layers import (
    Array,
    Conv,
    Delay,
    DelayedLinear,
    Join,
    Layer,
    Linear,
    Neuron,
    Pick,
    Pool,
    Product,
    Scale,
    StepScale,
)
from .norms import Norm
from .statements import Locals, neuron_function
from .writer import Table, Writer, calls, numbers

HELPERS: Mapping[str, tuple[str, str]] = {
    "spike": ("real u", "u > 0 ? 1 : 0"),
    "sigmoid": ("real u", "1 / (1 + exp_(-u))"),
    # comparisons are false for NaN, so each branch is chosen such that NaN comes through
    "minimum": ("real a, real b", "a < b || a != a ? a : b"),
    "maximum": ("real a, real b", "a > b || a != a ? a : b"),
    "clamp": ("real u, real low, real high", "minimum(maximum(u, low), high)"),
}
"""Functions that equations use: arguments and result."""

LIBRARY = ("exp", "log", "sqrt", "tanh", "sin", "cos", "abs")
"""Functions of math.h, with the suffix of the type; `abs` is fabs."""

STRICT = """
#ifdef __FAST_MATH__
#error "compile without -ffast-math, which changes the spikes"
#endif
#if defined(FLT_EVAL_METHOD) && (FLT_EVAL_METHOD == 1 || FLT_EVAL_METHOD == 2)
#error "this compiler computes with more precision than the type has; on x86 pass -msse2 -mfpmath=sse"
#endif

/* A fused multiply-add rounds once instead of twice, which changes the spikes. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#else
#pragma STDC FP_CONTRACT OFF
#endif
""".strip().splitlines()


class FloatText(Text):
    """Expressions in C, in float or double."""

    def __init__(self, equation: Equation, names: Mapping[Symbol, str], dtype: torch.dtype):
        super().__init__(equation, names)
        self.dtype = dtype

    def call(self, op: str, args: list[str]) -> str:
        """A function, or a condition as a number."""
        if op == "count":
            return f"({args[0]} ? {self.literal(1)} : {self.literal(0)})"
        suffix = "f" if self.dtype == torch.float32 else ""
        own = {"abs": "fabs"}.get(op, op) + suffix if op in LIBRARY else op
        return f"{own}({', '.join(args)})"

    def literal(self, value: float) -> str:
        """A number of the type."""
        return real_literal(value, self.dtype)


def real_literal(value: float, dtype: torch.dtype) -> str:
    """A number in C that is exactly this value of the dtype."""
    if value != value:
        return "NAN"
    if value in (float("inf"), float("-inf")):
        return "INFINITY" if value > 0 else "-INFINITY"
    text = shortest(value, dtype)
    text = text if "." in text or "e" in text else f"{text}.0"
    return f"{text}f" if dtype == torch.float32 else text


class FloatWriter(Writer):
    """Writes float or double, which is the dtype of the network's input."""

    @property
    def real(self) -> str:
        """The type of all values."""
        return {torch.float32: "float", torch.float64: "double"}[self.network.dtype]

    @property
    def total(self) -> str:
        """The type of sums over time."""
        return self.real

    @property
    def value(self) -> tuple[str, str]:
        """The type of a number that is read, and its format."""
        return self.real, "%f" if self.real == "float" else "%lf"

    def ctype(self, array: Array) -> str:
        """The same for all arrays."""
        return self.real

    def literal(self, value: float, array: Array) -> str:
        """A number."""
        return real_literal(value, self.network.dtype)

    def start(self, state: str, layer: Neuron) -> str:
        """The value of a state before the first step."""
        return self.literal(layer.equation.starts[state], layer.y)

    def promise(self) -> str:
        """What is equal to the library."""
        return (
            "Each operation of an equation is that of the library, in the same order and precision, so the spikes of a "
            "neuron are the same for the same input. Weighted sums add up in the order of the inputs; the library may "
            "add in another order, and where the sums are not exact, a membrane within rounding of its threshold may "
            "fire differently."
        )

    def read_value(self) -> list[str]:
        """Stores a number."""
        return ["x[n] = value;"]

    def differs(self, out: str, want: str, binary: bool) -> str:
        """Spikes must be equal; other values within rounding."""
        if binary:
            return f"{out} != {want}"
        absolute, tiny = ("fabsf", "1e-4f") if self.real == "float" else ("fabs", "1e-9")
        return f"!({absolute}({out} - {want}) <= {tiny} * (1 + {absolute}({want})))"

    def preamble(self) -> list[str]:
        """Conditions on the compiler."""
        return ["#include <float.h>", "#include <math.h>", "", *STRICT, ""]

    def helpers(self, body: str) -> dict[str, list[str]]:
        """Those that the equations use."""
        found = dict[str, list[str]]()
        suffix = "f" if self.real == "float" else ""
        for name, (arguments, result) in HELPERS.items():
            if calls(name, body) or (name in ("minimum", "maximum") and calls("clamp", body)):
                head = f"static inline {self.real} {name}({arguments.replace('real', self.real)})"
                found[name] = function(head, [f"return {result.replace('exp_', f'exp{suffix}')};"])
        return found

    # -- layers -------------------------------------------------------------------------------------------------------

    def layer(self, layer: Layer) -> list[str]:
        """The function of a layer."""
        real, bias = self.real, isinstance(layer, (Linear, Conv, DelayedLinear)) and bool(layer.bias.any())
        types = Types(real, real, start=f"{layer.name}_bias[o]" if bias else "0")
        if isinstance(layer, Linear):
            return kernels.linear(layer, types)
        if isinstance(layer, Conv):
            return kernels.conv(layer, types)
        if isinstance(layer, Pool):
            shared = layer.divisors.unique().numel() == 1
            by = self.literal(float(layer.divisors.flatten()[0]), layer.y) if shared else f"{layer.name}_sizes[r][q]"
            return kernels.pool(layer, types, "-INFINITY", f"sum / {by}", real)
        if isinstance(layer, Pick):
            return kernels.pick(layer, types)
        if isinstance(layer, Product):
            return kernels.product(layer, [real, real], real, real, "sum")
        if isinstance(layer, Norm):
            root = "sqrtf" if real == "float" else "sqrt"
            return norms.in_floats(layer, types, root, self.literal(layer.eps, layer.y))
        if isinstance(layer, Delay):
            return timed_kernels.delay(layer, types, self.prefix)
        if isinstance(layer, DelayedLinear):
            return timed_kernels.delayed_linear(layer, types, self.prefix)
        if isinstance(layer, StepScale):
            shift = "" if layer.shift is None else f" + {layer.name}_shift[k][c]"
            return timed_kernels.step_scale(layer, types, self.prefix, f"x[n] * {layer.name}_scale[k][c]{shift}")
        if isinstance(layer, Scale):
            shift = "" if layer.shift is None else f" + {layer.name}_shift[c]"
            return kernels.scale(layer, types, f"x[n] * {layer.name}_scale[c]{shift}")
        if isinstance(layer, Join):
            return kernels.join(layer, types, {array.name: real for array in layer.x})
        if isinstance(layer, Neuron):
            return self.neuron(layer)
        return refuse(layer.title, "it has no form in floating point")

    def _events(self) -> list[str]:
        assert self.first is not None
        bias = f"{self.first.name}_bias[o]" if bool(self.first.bias.any()) else "0"
        return kernels.events(self.first, Types(self.real, self.real, start=bias), self.index, "1")

    def tables(self, layer: Layer) -> list[Table]:
        """The constants of a layer."""
        found: list[Table] = []

        def add(name: str, values: Tensor) -> None:
            sizes = "".join(f"[{n}]" for n in values.shape)
            texts = [self.literal(v, layer.y) for v in numbers(values)]
            found.append((f"static const {self.real} {layer.name}_{name}{sizes}", texts, tuple(values.shape)))

        if isinstance(layer, (Linear, Conv, DelayedLinear, Norm)):
            add("weight", layer.weight if isinstance(layer, Norm) else transposed(layer, layer.weight))
            if bool(layer.bias.any()):
                add("bias", layer.bias)
        if isinstance(layer, (Delay, DelayedLinear)):
            found.extend(lags(layer))
        elif isinstance(layer, Pick):
            found.extend(places(layer))
        elif isinstance(layer, Pool) and layer.kind == "avg" and layer.divisors.unique().numel() > 1:
            add("sizes", layer.divisors)
        elif isinstance(layer, Scale):
            add("scale", layer.scale)
            if layer.shift is not None:
                add("shift", layer.shift)
        elif isinstance(layer, Neuron):
            for name, values in vectors(layer).items():
                add(name, values.flatten())
        return found

    # -- neurons ------------------------------------------------------------------------------------------------------

    def neuron(self, layer: Neuron) -> list[str]:
        """The function of a neuron: an assignment per assignment of the equation, for each element."""
        equation, real = layer.equation, self.real
        text, once, each = FloatText(equation, {}, self.network.dtype), list[str](), list[str]()
        for node in [node for node in equation.nodes if node in equation.values]:
            name, number = equation.value_name(node), equation.number(node)
            comment_text = "" if node in equation.own_names else f" /* {text.mathematics(node)} */"
            if number is not None:
                once.append(f"const {real} {name} = {self.literal(number, layer.y)};{comment_text}")
            else:
                each.append(f"const {real} {name} = {layer.name}_{name}[n];{comment_text}")
            text.names[node] = name
        return neuron_function(layer, self.prefix, text, Locals(real, real, real), once, each)


def transposed(layer: Linear | Conv | DelayedLinear, weight: Tensor) -> Tensor:
    """The weights by input: [I, O], or [C, O / groups, kh, kw]."""
    if not isinstance(layer, Conv):
        return weight.t()
    outputs, per_group, high, wide = weight.shape
    grouped = weight.reshape(layer.groups, outputs // layer.groups, per_group, high, wide)
    return grouped.transpose(1, 2).reshape(layer.groups * per_group, outputs // layer.groups, high, wide)


def lags(layer: Delay | DelayedLinear) -> list[Table]:
    """The delays: per element if they differ, [I, O] of connections."""
    if isinstance(layer, Delay) and layer.lag.unique().numel() == 1:
        return []
    lag = layer.lag.t() if isinstance(layer, DelayedLinear) else layer.lag.flatten()
    kind, sizes = "uint8_t" if layer.steps <= 256 else "int32_t", "".join(f"[{n}]" for n in lag.shape)
    return [(f"static const {kind} {layer.name}_lag{sizes}", [str(int(v)) for v in numbers(lag)], tuple(lag.shape))]


def places(layer: Pick) -> list[Table]:
    """The places that a layer reads, unless they are a formula."""
    if not kernels.place(layer).endswith("]"):
        return []
    index, most = layer.index.flatten(), int(layer.index.max())
    kind = "int32_t" if most > 32767 else "int16_t" if bool((index < 0).any()) else "uint16_t"
    return [(f"static const {kind} {layer.name}_from[{len(index)}]", [str(int(v)) for v in index], (len(index),))]


def vectors(layer: Neuron) -> dict[str, Tensor]:
    """The values of an equation that differ from element to element, by the name of their table."""
    equation, found = layer.equation, dict[str, Tensor]()
    for node in equation.nodes:
        if node in equation.values and equation.number(node) is None:
            found[equation.value_name(node)] = equation.values[node].expand(layer.y.shape)
    return found
