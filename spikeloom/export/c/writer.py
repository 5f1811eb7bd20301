"""The file of a network in C: what is the same for all kinds of numbers."""

import re

import torch
from torch import Tensor

from .form import comment, function, indented, loop, table, wrapped
from .kernels import flat
from .layers import Array, Conv, Delay, DelayedLinear, Layer, Linear, Network, Neuron, StepScale
from .programs import Programs, Sample

Table = tuple[str, list[str], tuple[int, ...]]
"""A constant array: its declaration, its numbers, its shape."""


USE = (
    "All state is in the struct, so a program may hold several. The outputs are an array of the struct, valid until "
    "the next step. Compile this file with -std=c99 and link with -lm. Define {u}_INTERFACE before you include it "
    "elsewhere, to get the declarations alone. With {u}_MAIN defined it is a program that reads samples and prints the "
    "sums of the outputs, with {u}_TEST one that compares its outputs with those of the library."
)


def names_of_file(prefix: str) -> frozenset[str]:
    """The names that a file has besides those of its layers."""
    functions = ("reset", "step", "step_events", "run", "quantize", "state", "before", "after", "test_x", "test_out")
    macros = ("INPUTS", "OUTPUTS", "STEPS", "DECLARED", "INTERFACE", "MAIN", "TEST")
    return frozenset((*functions, *macros, *(f"{prefix.upper()}_{name}" for name in macros), f"{prefix}_state"))


class Writer(Programs):
    """Writes a network. Subclasses know one kind of numbers.

    Args:
        network: the network.
        prefix: of all names that other files see.
        steps: the number of steps of a static input; None if each step has its own input.
        length: the number of steps of the example.
        sample: what the test compares.
    """

    def __init__(self, network: Network, prefix: str, steps: int | None, length: int, sample: Sample):
        self.network, self.prefix, self.steps, self.length, self.sample = network, prefix, steps, length, sample
        self.upper = prefix.upper()
        self.index = "uint16_t" if network.x.size <= 65535 else "uint32_t"
        first = network.layers[0]
        reads = sum(array.name == "x" for layer in network.layers for array in layer.x)
        fits = isinstance(first, (Linear, Conv)) and reads == 1 and first.x[0].name == "x" and in_one_call(first)
        self.first = first if fits and isinstance(first, (Linear, Conv)) else None

    # -- for subclasses -----------------------------------------------------------------------------------------------

    def layer(self, layer: Layer) -> list[str]:
        """The function of a layer."""
        raise NotImplementedError

    def tables(self, layer: Layer) -> list[Table]:
        """The constants of a layer."""
        raise NotImplementedError

    def preamble(self) -> list[str]:
        """What stands before the layers: conditions on the compiler."""
        raise NotImplementedError

    def helpers(self, body: str) -> dict[str, list[str]]:
        """The functions that the source of the layers calls, by name."""
        raise NotImplementedError

    def start(self, state: str, layer: Neuron) -> str:
        """The value of a state before the first step."""
        raise NotImplementedError

    def one(self, layer: Layer) -> str:
        """The value of an event."""
        return "1"

    def interface(self) -> list[str]:
        """Further declarations."""
        return []

    def more(self) -> list[str]:
        """Further functions."""
        return []

    def promise(self) -> str:
        """What the numbers are."""
        raise NotImplementedError

    def bytes_of_constants(self) -> int:
        """The size of all tables."""
        entries = [entry for layer in self.network.layers for entry in self.tables(layer)]
        return sum(len(values) * _bytes(head) for head, values, _ in entries)

    def bytes_of_state(self) -> int:
        """The size of the struct, in which each array begins at a multiple of the size of its values."""
        total, largest = 0, 1
        for array in self._arrays():
            size = _bytes(self._type(array))
            total, largest = -(-total // size) * size + array.size * size, max(largest, size)
        return -(-total // largest) * largest

    def _type(self, array: Array) -> str:
        return "int" if array.counts else self.ctype(array)

    def _arrays(self) -> list[Array]:
        """The arrays of the struct, in order."""
        found: list[Array] = []
        for layer in self.network.layers:
            found += [layer.y, *layer.kept]
        return found

    # -- the file -----------------------------------------------------------------------------------------------------

    def source(self) -> str:
        """The file."""
        layers = self.network.layers
        body = [line for layer in layers for line in [*self._described(layer), *self.layer(layer)]]
        if self.first is not None:
            body += self._events()
        tables = [entry for layer in layers for entry in self.tables(layer)]
        declared = [f"{head};" for head, *_ in tables]
        filled = [line for entry in tables for line in table(*entry)]
        helpers = self.helpers("\n".join(body))
        renamed = [f"#define {name} {self.prefix}_{name}" for name in helpers]
        lines = [
            *self._title(),
            f"#ifndef {self.upper}_DECLARED",
            f"#define {self.upper}_DECLARED",
            "",
            *self._declarations(),
            f"#endif /* {self.upper}_DECLARED */",
            "",
            f"#ifndef {self.upper}_INTERFACE",
            "",
            *self.preamble(),
            *([*comment(["So that several such files can be included in one."]), *renamed, ""] if helpers else []),
            *(line for lines in helpers.values() for line in lines),
            *([*comment(["The constants, which stand at the end of this file."]), *declared, ""] if declared else []),
            *body,
            *self._steps(),
            *filled,
            *self.main(),
            *self.test(),
            *(f"#undef {name}" for name in helpers),
            f"#endif /* {self.upper}_INTERFACE */",
        ]
        return "\n".join(lines) + "\n"

    def _title(self) -> list[str]:
        p, u, net = self.prefix, self.upper, self.network
        x_type, y_type = self.ctype(net.x), self.ctype(net.y)
        given = "x is the same at every step" if self.steps is not None else "x has a row for each step"
        use = [
            f"static struct {p} {p}_state;",
            f"{p}_reset(&{p}_state);",
            f"const {y_type} *out = {p}_step(&{p}_state, x);    one step: {net.x.size} values in, {net.y.size} out",
            f"{p}_run(&{p}_state, x, {u}_STEPS, total);    all steps from the initial state; {given}",
        ]
        lost = [f"- {line}" for line in net.lost]
        about = [
            f"{net.title} as C99, written by spikeloom.",
            "",
            f"Input  {flat(net.x)}, {x_type}",
            *(f"{layer.y.name}: {flat(layer.y)}    {layer.title}" for layer in net.layers),
            f"Output {net.y.name}, {flat(net.y)}, {y_type}",
            "",
            *wrapped(self.promise()),
            "",
            *indented(use),
            "",
            *wrapped(USE.format(u=u)),
            "",
            *(["Not in this file:", *(line for item in lost for line in wrapped(item, "  "))] if lost else []),
        ]
        return [*comment(about), ""]

    def _declarations(self) -> list[str]:
        p, u, net = self.prefix, self.upper, self.network
        x_type, y_type = self.ctype(net.x), self.ctype(net.y)
        fields = [
            f"{self._type(array)} {array.name}{'' if array.counts else f'[{array.size}]'};" for array in self._arrays()
        ]
        lines = ["#include <stdint.h>", "", f"#define {u}_INPUTS {net.x.size}", f"#define {u}_OUTPUTS {net.y.size}"]
        lines += [f"#define {u}_STEPS {self.length}", ""]
        lines += [f"struct {p} {{", *indented(fields), "};", ""]
        lines += [
            *comment(["Sets all states to their initial values."]),
            f"void {p}_reset(struct {p} *net);",
            "",
            *comment([f"One step; x has {u}_INPUTS values. Returns the {u}_OUTPUTS outputs."]),
            f"const {y_type} *{p}_step(struct {p} *net, const {x_type} *x);",
            "",
            *comment(
                [
                    "One step for the list of inputs that are 1, in ascending order; the others are 0.",
                    "Indices out of range are ignored.",
                ]
            ),
            f"const {y_type} *{p}_step_events(struct {p} *net, const {self.index} *active, int count);",
            "",
            *comment(
                [
                    "Resets, runs all steps and adds up the outputs of each neuron: spike counts.",
                    "x has one row of inputs, for all steps."
                    if self.steps is not None
                    else "x has a row of inputs for each step.",
                ]
            ),
            f"void {p}_run(struct {p} *net, const {x_type} *x, int steps, {self.total} *total);",
            "",
        ]
        return [*lines, *self.interface()]

    def _described(self, layer: Layer) -> list[str]:
        lines = wrapped(layer.title)
        if isinstance(layer, Neuron):
            lines += ["", *indented(layer.equation.comment)]
        elif isinstance(layer, (Linear, Conv)):
            lines += ["Adds the weights of each nonzero input to the outputs."]
        elif isinstance(layer, Delay):
            lines += ["y at step t is x at step t - lag: a ring has the last inputs."]
        elif isinstance(layer, DelayedLinear):
            lines += [
                "y[o] at step t adds up weight[i][o] * x[i] at step t - lag[i][o].",
                "A ring has the sums of the next steps.",
            ]
        elif isinstance(layer, StepScale):
            lines += ["Each step has its own scale and shift; after the last ones, those."]
        return comment(lines)

    def _events(self) -> list[str]:
        raise NotImplementedError

    # -- step and run -------------------------------------------------------------------------------------------------

    def call(self, layer: Layer) -> str:
        """The call of a layer's function."""
        arrays = ", ".join("x" if array.name == "x" else f"net->{array.name}" for array in layer.x)
        state = "net, " if layer.kept else ""
        return f"{layer.name}({state}{arrays}, net->{layer.y.name});"

    def _steps(self) -> list[str]:
        p, net = self.prefix, self.network
        x_type, y_type = self.ctype(net.x), self.ctype(net.y)
        before, after = net.layers[: net.before], net.layers[net.before :]
        later_x = any(array.name == "x" for layer in after for array in layer.x)
        head_x, pass_x = (f", const {x_type} *x", ", x") if later_x else ("", "")
        lines = self._reset()
        if before:
            lines += comment(["The layers before the first state, which may run once for all steps."])
            lines += function(
                f"static void {p}_before(struct {p} *net, const {x_type} *x)", [self.call(k) for k in before]
            )
            lines += comment(["The layers from the first state on."])
            unused = [] if after else ["(void)net;"]
            lines += function(f"static void {p}_after(struct {p} *net{head_x})", [*map(self.call, after), *unused])
        once = [f"{p}_before(net, x);"] if before else []
        each = [f"{p}_after(net{pass_x});" if before else f"{p}_step(net, x);"]
        y = "x" if net.y.name == "x" else f"net->{net.y.name}"
        lines += function(
            f"const {y_type} *{p}_step(struct {p} *net, const {x_type} *x)",
            [*once, *(each if before else map(self.call, after)), f"return {y};"],
        )
        lines += self._step_events(later_x, y, y_type)
        body = loop("k", net.y.size, ["total[k] = 0;"])
        sums = loop("k", net.y.size, [f"total[k] += {y}[k];"])
        if self.steps is not None:
            body = [*once, *body]
            each = [*each, *sums]
        else:
            each = [f"{p}_step(net, x + (long)step * {self.upper}_INPUTS);", *sums]
        head = f"void {p}_run(struct {p} *net, const {x_type} *x, int steps, {self.total} *total)"
        return [*lines, *function(head, [f"{p}_reset(net);", *body, *loop("step", "steps", each)]), *self.more()]

    def _step_events(self, later_x: bool, y: str, y_type: str) -> list[str]:
        p, net = self.prefix, self.network
        head = f"const {y_type} *{p}_step_events(struct {p} *net, const {self.index} *active, int count)"
        if self.first is not None:
            rest = net.layers[1 : net.before]
            body = [f"{self.first.name}_events(active, count, net->{self.first.y.name});", *map(self.call, rest)]
            return function(head, [*body, f"{p}_after(net);", f"return {y};"])
        x_type = self.ctype(net.x)
        body = [f"{x_type} x[{self.upper}_INPUTS] = {{0}};"]
        body += loop(
            "n", "count", [f"if (active[n] < {self.upper}_INPUTS)", f"    x[active[n]] += {self.one(net.layers[0])};"]
        )
        return function(head, [*body, f"return {p}_step(net, x);"])

    def _reset(self) -> list[str]:
        arrays: list[tuple[Array, str]] = []
        written = {layer.y.name for layer in self.network.layers}
        done: set[str] = set()
        for layer in self.network.layers:
            arrays += [(a, "0") for a in layer.x if a.name in written - done]  # spikes that are fed back
            if isinstance(layer, Neuron):
                arrays += [(array, self.start(state, layer)) for state, array in layer.states.items()]
            else:
                arrays += [(array, "0") for array in layer.kept]
            done.add(layer.y.name)
        body: list[str] = []
        for array, value in arrays:
            own = f"net->{array.name}"
            body += [f"{own} = 0;"] if array.counts else loop("n", array.size, [f"{own}[n] = {value};"])
        return function(f"void {self.prefix}_reset(struct {self.prefix} *net)", body or ["(void)net;"])


def _bytes(declaration: str) -> int:
    """The size of one value of a type that a declaration contains."""
    sizes = {"double": 8, "int64_t": 8, "float": 4, "int32_t": 4, "int": 4}
    sizes |= {"int16_t": 2, "uint16_t": 2, "int8_t": 1, "uint8_t": 1}
    return next(size for name, size in sizes.items() if name in declaration.split())


def calls(name: str, text: str) -> bool:
    """Whether C source calls a function."""
    return re.search(rf"\b{name}\(", text) is not None


def in_one_call(layer: Linear | Conv) -> bool:
    """Whether a weighted layer is one call of its function."""
    return isinstance(layer, Conv) or layer.x[0].size == layer.weight.shape[1]


def numbers(values: Tensor) -> list[float]:
    """The numbers of a tensor in order."""
    flat_values: list[float] = values.detach().to(torch.float64).flatten().tolist()
    return flat_values
