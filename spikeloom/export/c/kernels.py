"""The functions of layers without states, in C, for any types of numbers.

A weighted layer visits the nonzero inputs in order, and each adds its weights to the outputs. So the sums have one
order, that of the inputs, whether the input comes as an array or as a list of events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch

from .form import function, loop
from .layers import Array, Conv, Join, Layer, Linear, Pick, Pool, Product, Scale, planes


@dataclass(frozen=True)
class Types:
    """The C types of a layer.

    Args:
        x, y: of the values that it reads and writes.
        start: of a weighted layer, the expression with which output `o` begins.
        finish: lines that convert the sums in `y`, if there are any.
        widened: of a mean, the type of its sum.
    """

    x: str
    y: str
    start: str = ""
    finish: Sequence[str] = ()


def head(name: str, types: Types, more: str = "") -> str:
    """The first line of a layer's function."""
    return f"static void {name}(const {types.x} *x, {types.y} *y{more})"


def linear(layer: Linear, types: Types) -> list[str]:
    """A Linear layer, over the last dimension."""
    outputs, inputs = layer.weight.shape
    rows = layer.x[0].size // inputs
    add = function(
        f"static void {layer.name}_add({types.y} *y, int i, {types.y} x)",
        loop("o", outputs, [f"y[o] += {layer.name}_weight[i][o] * x;"]),
    )
    each = [*_start(layer, types, outputs, 1), *visit(layer, inputs), *types.finish]
    return [*add, *over_rows(layer, types, rows, inputs, outputs, each)]


def over_rows(layer: Layer, types: Types, rows: int, inputs: int, outputs: int, each: list[str]) -> list[str]:
    """A function that computes each row."""
    if rows == 1:
        return function(head(layer.name, types), each)
    one = function(head(f"{layer.name}_row", types), each)
    return [
        *one,
        *function(
            head(layer.name, types), loop("n", rows, [f"{layer.name}_row(x + n * {inputs}, y + n * {outputs});"])
        ),
    ]


def _start(layer: Linear | Conv, types: Types, outputs: int, size: int) -> list[str]:
    if size == 1:
        return loop("o", outputs, [f"y[o] = {types.start};"])
    return loop("o", outputs, loop("n", size, [f"y[o * {size} + n] = {types.start};"]))


def visit(layer: Layer, inputs: int, to: str = "y") -> list[str]:
    """A loop over the nonzero inputs; each adds its weights."""
    return loop("i", inputs, ["if (x[i] != 0)", f"    {layer.name}_add({to}, i, x[i]);"])


def conv(layer: Conv, types: Types) -> list[str]:
    """A convolution."""
    (channels, height, width), (outputs, rows, columns) = planes(layer.x[0].shape), planes(layer.y.shape)
    high, wide = layer.weight.shape[2:]
    per_group, group = outputs // layer.groups, channels // layer.groups
    inner = [f"y[(o * {rows} + r) * {columns} + q] += {layer.name}_weight[c][k][a][b] * x;"]
    inner = _window("b", "column", "q", wide, columns, layer.stride[1], layer.padding[1], layer.dilation[1], inner)
    inner = _window("a", "row", "r", high, rows, layer.stride[0], layer.padding[0], layer.dilation[0], inner)
    first = "k" if layer.groups == 1 else f"c / {group} * {per_group} + k"
    places = {"row": _place("i", width, height), "column": _rest("i", width)}
    body = [
        f"const int c = {_quotient('i', height * width)};",
        *(f"const int {place} = {at};" for place, at in places.items() if any(place in line for line in inner)),
        *loop("k", per_group, [f"const int o = {first};", *inner]),
    ]
    add = function(f"static void {layer.name}_add({types.y} *y, int i, {types.y} x)", body)
    each = [*_start(layer, types, outputs, rows * columns), *visit(layer, layer.x[0].size), *types.finish]
    return [*add, *function(head(layer.name, types), each)]


def _quotient(index: str, by: int) -> str:
    return index if by == 1 else f"{index} / {by}"


def _rest(index: str, of: int) -> str:
    return "0" if of == 1 else f"{index} % {of}"


def _place(index: str, width: int, height: int) -> str:
    return "0" if height == 1 else f"{_quotient(index, width)} % {height}"


def _window(
    tap: str, at: str, out: str, taps: int, outputs: int, stride: int, padding: int, dilation: int, body: list[str]
) -> list[str]:
    """A loop over the taps of a kernel through which an input at `at` reaches the output at `out`."""
    if taps == 1 and outputs == 1 and not padding:
        return [f"const int {tap} = 0, {out} = 0;", *body]
    shifted = f"{at} + {padding}" if padding else at
    tapped = f"{tap} * {dilation}" if dilation != 1 else tap
    lines = [f"const int {out} = {shifted} - {tapped};"]
    if stride == 1:
        lines.append(f"if ({out} < 0 || {out} >= {outputs})")
    else:
        lines = [f"const int {out}s = {shifted} - {tapped}, {out} = {out}s / {stride};"]
        lines.append(f"if ({out}s < 0 || {out}s % {stride} != 0 || {out} >= {outputs})")
    return loop(tap, taps, [*lines, "    continue;", *body])


def pool(layer: Pool, types: Types, lowest: str, divided: str, total: str) -> list[str]:
    """The maximum or the mean of windows.

    Args:
        lowest: what is below all values.
        divided: the mean of window (r, q), whose sum is `sum`.
        total: the type of a sum.
    """
    (channels, height, width), (_, rows, columns) = planes(layer.x[0].shape), planes(layer.y.shape)
    sides = zip(
        layer.kernel, layer.stride, layer.padding, layer.dilation, (height, width), (rows, columns), strict=True
    )
    inside = [p == 0 and (n - 1) * s + (k - 1) * d < size for k, s, p, d, size, n in sides]
    places = []
    for which, (name, out, tap) in enumerate((("row", "r", "a"), ("column", "q", "b"))):
        s, p, d = layer.stride[which], layer.padding[which], layer.dilation[which]
        terms = [f"{out} * {s}" if s != 1 else out, f"{tap} * {d}" if d != 1 else tap]
        places.append(f"const int {name} = {' + '.join(terms)}{f' - {p}' if p else ''};")
    read = f"x[(c * {height} + row) * {width} + column]"
    if layer.kind == "max":
        body = [
            f"const {types.x} v = {read};",
            "if (v > best || v != v)" if types.x in ("float", "double") else "if (v > best)",
            "    best = v;",
        ]
        first, last = f"{types.y} best = {lowest};", "best"
    else:
        body, first, last = [f"sum += {read};"], f"{total} sum = 0;", divided
    inner = [places[1], *_inside("column", width, inside[1]), *body]
    window = loop(
        "a", layer.kernel[0], [places[0], *_inside("row", height, inside[0]), *loop("b", layer.kernel[1], inner)]
    )
    each = [first, *window, f"y[(c * {rows} + r) * {columns} + q] = {last};"]
    return function(head(layer.name, types), loop("c", channels, loop("r", rows, loop("q", columns, each))))


def _inside(name: str, size: int, always: bool) -> list[str]:
    return [] if always else [f"if ({name} < 0 || {name} >= {size})", "    continue;"]


def scale(layer: Scale, types: Types, value: str) -> list[str]:
    """A factor and a shift per channel `c`; `value` is the result for an input `x[n]`."""
    channels = layer.y.shape[0]
    each = layer.y.size // channels
    if each == 1:
        return function(head(layer.name, types), loop("c", channels, [f"y[c] = {value.replace('x[n]', 'x[c]')};"]))
    inner = loop("n", f"(c + 1) * {each}", [f"y[n] = {value};"], first=f"c * {each}")
    return function(head(layer.name, types), loop("c", channels, inner))


def join(layer: Join, types: Types, of: Mapping[str, str]) -> list[str]:
    """Several arrays one after another along a dimension; `of` is the type of each."""
    arguments = ", ".join(f"const {of[a.name]} *x{k}" for k, a in enumerate(layer.x))
    blocks = prod(layer.y.shape[: layer.dim])
    body: list[str] = []
    for k, array in enumerate(layer.x):
        size = array.size // blocks
        body += loop("i", size, [f"*y++ = x{k}[n * {size} + i];"])
    return function(f"static void {layer.name}({arguments}, {types.y} *y)", loop("n", blocks, body))


def pick(layer: Pick, types: Types) -> list[str]:
    """Values from other places; from a table, unless the places are a formula of `n`."""
    at = place(layer)
    padded = bool((layer.index < 0).any())
    value = f"{at} < 0 ? 0 : x[{at}]" if padded else f"x[{at}]"
    return function(head(layer.name, types), loop("n", layer.y.size, [f"y[n] = {value};"]))


def place(layer: Pick) -> str:
    """The place in x of output `n`."""
    index = layer.index.flatten()
    n = torch.arange(len(index))
    first, size = int(index[0]) if len(index) else 0, layer.x[0].size
    if torch.equal(index, n + first):
        return f"n + {first}" if first > 0 else "n" if first == 0 else f"{layer.name}_from[n]"
    if len(index) % size == 0 and torch.equal(index, n // (len(index) // size)):
        return f"n / {len(index) // size}" if size > 1 else "0"
    if torch.equal(index, n % size):
        return f"n % {size}"
    return f"{layer.name}_from[n]"


def product(layer: Product, of: Sequence[str], y: str, total: str, stored: str) -> list[str]:
    """A product of matrices; `of` are the types of both, `total` that of a sum, `stored` the result for `sum`."""
    (rows, inner), columns = layer.x[0].shape, layer.x[1].shape[1]
    term = f"x0[r * {inner} + k] * {'(int64_t)' if total == 'int64_t' else ''}x1[k * {columns} + q]"
    each = [f"{total} sum = 0;", *loop("k", inner, [f"sum += {term};"]), f"y[r * {columns} + q] = {stored};"]
    head_text = f"static void {layer.name}(const {of[0]} *x0, const {of[1]} *x1, {y} *y)"
    return function(head_text, loop("r", rows, loop("q", columns, each)))


def events(layer: Linear | Conv, types: Types, index: str, one: str) -> list[str]:
    """The same layer for a list of active inputs, each of value 1, which is written as `one`."""
    outputs = layer.weight.shape[0]
    size = 1 if isinstance(layer, Linear) else layer.y.size // outputs
    visit = loop("n", "count", [f"if (active[n] < {layer.x[0].size})", f"    {layer.name}_add(y, active[n], {one});"])
    body = [*_start(layer, types, outputs, size), *visit, *types.finish]
    return function(f"static void {layer.name}_events(const {index} *active, int count, {types.y} *y)", body)


def flat(array: Array) -> str:
    """The shape of an array for readers."""
    return " x ".join(map(str, array.shape)) or "1"
