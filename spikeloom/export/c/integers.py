"""A network in integers, in C: the operations of the simulation."""

import torch
from torch import Tensor

from ...engine.graph import Symbol
from . import fixed_point, kernels, norms, timed_kernels
from .equation import PRECEDENCE, SIGNS, TIGHTEST, Text, shortest
from .errors import refuse
from .floats import lags, places, transposed
from .form import comment, function, loop
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
from .lowering import Code, Lowered
from .norms import Norm
from .programs import Sample
from .quantize import IntegerNetwork, Rescale
from .simulate import start_of
from .statements import Locals, neuron_function
from .writer import Table, Writer, calls, numbers

HELPERS = {
    **fixed_point.HELPERS,
    "narrow": """
/* A value within 8 bits. */
static inline int8_t narrow(int64_t v)
{
    return v > 127 ? 127 : v < -127 ? -127 : (int8_t)v;
}
""",
    "times": """
/* A rounded product, of which the last bits are dropped. */
static inline int64_t times(int64_t a, int64_t b, int shift)
{
    return (saturate(a) * (int64_t)saturate(b) + ((int64_t)1 << (shift - 1))) >> shift;
}
""",
    "minimum": """
static inline int64_t minimum(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
""",
    "maximum": """
static inline int64_t maximum(int64_t a, int64_t b)
{
    return a > b ? a : b;
}
""",
    "absolute": """
static inline int64_t absolute(int64_t v)
{
    return v < 0 ? -v : v;
}
""",
}
"""Functions that the layers call."""


def times_of(value: str, factor: str, shift: int) -> str:
    """A rounded product of 32-bit values."""
    return f"times({value}, {factor}, {shift})"


class IntegerText(Text):
    """Expressions on integers, which stand for those of the equation."""

    def __init__(self, made: Lowered):
        super().__init__(made.equation, {})
        self.made = made

    def result(self, k: int, inline: bool) -> str:
        """The output, 0, or a new state, as it is stored."""
        return self.code(self.made.inlined(k) if inline else self.made.results[k], 0)

    def inside(self, node: Symbol) -> str:
        """The operation of an assigned value."""
        return self.code(self.made.codes[node], 0)

    def code(self, code: Code, least: int) -> str:
        """An operation; in parentheses if it binds less tightly than `least`."""
        text, binds = self._code(code)
        return text if binds >= least else f"({text})"

    def _code(self, code: Code) -> tuple[str, int]:
        if code.op == "ref":
            assert code.node is not None
            return self.names[code.node], TIGHTEST
        if code.op == "constant":
            assert code.node is not None
            return constant_name(self.made, code.node, code.form), TIGHTEST
        if code.op in ("literal", "one"):
            return ("ONE" if code.op == "one" else str(code.number)), TIGHTEST if code.number >= 0 else 8
        if code.op == "times":
            return f"times({self.code(code.args[0], 0)}, {self.code(code.args[1], 0)}, {self._shift(code)})", TIGHTEST
        if code.op.startswith("fixed_"):
            return f"{code.op}({', '.join(self.code(arg, 0) for arg in code.args)}, FRACTION)", TIGHTEST
        args, binds = code.args, PRECEDENCE.get(code.op, TIGHTEST)
        if code.op in ("neg", "not"):
            return f"{'-' if code.op == 'neg' else '!'}{self.code(args[0], TIGHTEST)}", binds
        if code.op == "where":
            return f"{self.code(args[0], 2)} ? {self.code(args[1], 2)} : {self.code(args[2], 1)}", binds
        if code.op in SIGNS:
            return f"{self.code(args[0], binds)} {SIGNS[code.op]} {self.code(args[1], binds + 1)}", binds
        name = {"abs": "absolute"}.get(code.op, code.op)
        return f"{name}({', '.join(self.code(arg, 0) for arg in args)})", TIGHTEST

    def _shift(self, code: Code) -> str:
        return "FRACTION" if code.number == self.made.fraction and code.args[0].op != "constant" else str(code.number)


def constant_name(made: Lowered, node: Symbol, form: str) -> str:
    """The variable of a constant, which has several if it has several forms."""
    name = made.equation.value_name(node)
    return f"{name}_{form}" if form == "inverse" or (form == "factor" and (node, "term") in made.constants) else name


class IntegerWriter(Writer):
    """Writes integers of 8 bits for weights, spikes and inputs, and of 32 bits for currents and states."""

    def __init__(self, net: IntegerNetwork, prefix: str, steps: int | None, length: int, sample: Sample):
        self.net = net
        super().__init__(net.network, prefix, steps, length, sample)

    def ctype(self, array: Array) -> str:
        """By the format of the array."""
        return f"int{self.net.formats[array.name].bits}_t"

    @property
    def total(self) -> str:
        """The type of sums over time."""
        return "int32_t" if self.ctype(self.network.y) == "int8_t" else "int64_t"

    def literal(self, value: float, array: Array) -> str:
        """A whole number."""
        return str(int(value))

    def start(self, state: str, layer: Neuron) -> str:
        """The value of a state before the first step."""
        return str(start_of(self.net, layer, state))

    def one(self, layer: Layer) -> str:
        """The input that stands for 1."""
        return str(max(-127, min(127, round(1 / self.net.formats["x"].scale))))

    def promise(self) -> str:
        """What is equal to the library."""
        formats = self.net.formats
        x, y = formats["x"], formats[self.network.y.name]
        return (
            "Integers alone: weights of 8 bits with a scale per output, states and currents of 32 bits with "
            f"{self.net.fraction} fractional bits. The results are those of spikeloom.export.simulate_int8, bit for "
            "bit. "
            f"An input v stands for v * {shortest(x.scale)}, an output v for v * {shortest(y.scale)}."
        )

    def interface(self) -> list[str]:
        """The conversion of inputs."""
        p, u = self.prefix, self.upper
        unit = shortest(self.net.formats["x"].scale)
        comment_text = f"Converts {u}_INPUTS numbers to inputs of the network: v / {unit}, rounded, within 127."
        return [*comment([comment_text]), f"void {p}_quantize(const float *values, int8_t *x);", ""]

    def more(self) -> list[str]:
        """The conversion of inputs."""
        inverse = torch.tensor(1 / self.net.formats["x"].scale, dtype=torch.float32)
        each = [
            f"const float v = values[n] * {_float(float(inverse))};",
            "x[n] = (int8_t)lrintf(v >= 127 ? 127 : v >= -127 ? v : -127);",
        ]
        head = f"void {self.prefix}_quantize(const float *values, int8_t *x)"
        return function(head, loop("n", f"{self.upper}_INPUTS", each))

    def read_value(self) -> list[str]:
        """Converts a number."""
        inverse = torch.tensor(1 / self.net.formats["x"].scale, dtype=torch.float32)
        return [
            f"const float v = value * {_float(float(inverse))};",
            "x[n] = (int8_t)lrintf(v >= 127 ? 127 : v >= -127 ? v : -127);",
        ]

    def preamble(self) -> list[str]:
        """What is included."""
        return ["#include <math.h>", ""]

    def helpers(self, body: str) -> dict[str, list[str]]:
        """Those that the layers use."""
        used, text = set[str](), body
        for name in reversed(HELPERS):  # each may call those before it
            if calls(name, text):
                used.add(name)
                text += HELPERS[name]
        return {name: [*HELPERS[name].strip().splitlines(), ""] for name in HELPERS if name in used}

    # -- layers -------------------------------------------------------------------------------------------------------

    def types(self, layer: Layer) -> Types:
        """The types of a layer's arrays; and how a sum begins and ends."""
        name, outputs = layer.name, layer.y.size
        finish: list[str] = []
        if isinstance(layer, (Linear, Conv, DelayedLinear)):
            channels, own = len(layer.bias), self.net.weights[name]
            bias = f"{name}_bias[o] + " if bool(own.bias.any()) else ""
            size = outputs // channels if isinstance(layer, Conv) else 1
            scaled = "y[{0}] = saturate({1}times(y[{0}], {2}_scale[o], {3}));"
            at = "o" if size == 1 else f"o * {size} + n"
            line = scaled.format(at, bias, name, own.shift)
            finish = loop("o", channels, [line] if size == 1 else loop("n", size, [line]))
        return Types(self.ctype(layer.x[0]), self.ctype(layer.y), "0", finish)

    def layer(self, layer: Layer) -> list[str]:
        """The function of a layer."""
        types = self.types(layer)
        if isinstance(layer, Linear):
            return kernels.linear(layer, types)
        if isinstance(layer, Conv):
            return kernels.conv(layer, types)
        if isinstance(layer, Pool):
            return self._pool(layer, types)
        if isinstance(layer, Pick):
            return kernels.pick(layer, types)
        if isinstance(layer, Product):
            return kernels.product(layer, [*map(self.ctype, layer.x)], types.y, "int64_t", "saturate(sum)")
        if isinstance(layer, Norm):
            return norms.in_integers(layer, self.net.norms[layer.name], types)
        if isinstance(layer, Delay):
            return timed_kernels.delay(layer, types, self.prefix)
        if isinstance(layer, DelayedLinear):
            return timed_kernels.delayed_linear(layer, types, self.prefix)
        if isinstance(layer, Scale):
            _, shift, added = self.net.scales[layer.name]
            at = "[k][c]" if isinstance(layer, StepScale) else "[c]"
            more = f" + {layer.name}_shift{at}" if bool(added.any()) else ""
            value = f"saturate({times_of(f'{layer.name}_scale{at}', 'x[n]', shift)}{more})"
            if isinstance(layer, StepScale):
                return timed_kernels.step_scale(layer, types, self.prefix, value)
            return kernels.scale(layer, types, value)
        if isinstance(layer, Rescale):
            cut = "narrow" if types.y == "int8_t" else "saturate"
            product = f"((int64_t)x[n] * {layer.factor} + ((int64_t)1 << {layer.shift - 1})) >> {layer.shift}"
            return function(kernels.head(layer.name, types), loop("n", layer.y.size, [f"y[n] = {cut}({product});"]))
        if isinstance(layer, Join):
            return kernels.join(layer, types, {array.name: self.ctype(array) for array in layer.x})
        if isinstance(layer, Neuron):
            return self._neuron(layer)
        return refuse(layer.title, "it has no form in integers")

    def _pool(self, layer: Pool, types: Types) -> list[str]:
        if layer.kind == "max":
            return kernels.pool(layer, types, "INT8_MIN" if types.x == "int8_t" else "INT32_MIN", "", "")
        means = self.net.means[layer.name]
        if means is None:
            return kernels.pool(layer, types, "", "narrow(sum)", "int")
        factors, shift = means
        even = bool((factors == factors.flatten()[0]).all())
        factor = str(int(factors.flatten()[0])) if even else f"{layer.name}_factors[r][q]"
        mean = f"saturate((sum * {factor} + ((int64_t)1 << {shift - 1})) >> {shift})"
        return kernels.pool(layer, types, "", mean, "int64_t")

    def _neuron(self, layer: Neuron) -> list[str]:
        made = self.net.neurons[layer.name]
        out = self.ctype(layer.y)
        types = Locals(
            x=self.ctype(layer.x[0]),
            local="int64_t",
            out=out,
            stored=lambda text: f"saturate({text})",
            fired=lambda text: text if made.is_spike else f"narrow({text})" if out == "int8_t" else f"saturate({text})",
        )
        lines = neuron_function(layer, self.prefix, IntegerText(made), types, *_constants(layer, made))
        names = [f"#define FRACTION {made.fraction}", "#define ONE ((int64_t)1 << FRACTION)"]
        text = "\n".join(lines)
        needed = [line for line in names if line.split()[1] in text or ("ONE" in text and "FRACTION" in line)]
        undo = [f"#undef {line.split()[1]}" for line in needed]
        return [*needed, *lines[:-1], *undo, ""]

    def _events(self) -> list[str]:
        assert self.first is not None
        return kernels.events(self.first, self.types(self.first), self.index, self.one(self.first))

    def tables(self, layer: Layer) -> list[Table]:
        """The constants of a layer."""
        found: list[Table] = []

        def add(name: str, values: Tensor, kind: str = "int32_t") -> None:
            sizes = "".join(f"[{n}]" for n in values.shape)
            texts = [str(int(v)) for v in numbers(values)]
            found.append((f"static const {kind} {layer.name}_{name}{sizes}", texts, tuple(values.shape)))

        if isinstance(layer, (Delay, DelayedLinear)):
            found.extend(lags(layer))
        if isinstance(layer, Pick):
            found.extend(places(layer))
        if isinstance(layer, (Linear, Conv, DelayedLinear)):
            own = self.net.weights[layer.name]
            add("weight", transposed(layer, own.weight), "int8_t")
            add("scale", own.factor)
            if bool(own.bias.any()):
                add("bias", own.bias)
        elif isinstance(layer, Norm):
            add("weight", self.net.norms[layer.name].weight)
            if bool(self.net.norms[layer.name].bias.any()):
                add("bias", self.net.norms[layer.name].bias)
        elif isinstance(layer, Pool):
            means = self.net.means.get(layer.name)
            if means is not None and not bool((means[0] == means[0].flatten()[0]).all()):
                add("factors", means[0])
        elif isinstance(layer, Scale):
            factors, _, added = self.net.scales[layer.name]
            add("scale", factors)
            if bool(added.any()):
                add("shift", added)
        elif isinstance(layer, Neuron):
            made = self.net.neurons[layer.name]
            for name, values, _ in _values(made):
                if values.dim():
                    add(name, values.expand(layer.y.shape).flatten())
        return found


def _values(made: Lowered) -> list[tuple[str, Tensor, str]]:
    """The constants of an equation: the variable, the integers, and what they stand for."""
    found = []
    for (node, form), constant in made.constants.items():
        number = made.equation.number(node)
        shown = "per neuron" if number is None else ("1 / " if form == "inverse" else "") + shortest(number)
        comment_text = f"{shown}, {constant.shift} fractional bits"
        found.append((constant_name(made, node, form), constant.values, comment_text))
    return found


def _constants(layer: Neuron, made: Lowered) -> tuple[list[str], list[str]]:
    """The lines that declare the constants: once, and for each element."""
    once, each = list[str](), list[str]()
    for name, values, comment_text in _values(made):
        if values.dim():
            each.append(f"const int64_t {name} = {layer.name}_{name}[n]; /* {comment_text} */")
        else:
            once.append(f"const int64_t {name} = {int(values)}; /* {comment_text} */")
    return once, each


def _float(value: float) -> str:
    text = shortest(value)
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
