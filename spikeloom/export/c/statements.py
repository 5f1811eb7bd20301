"""The function of a neuron in C: one loop over the elements, with the assignments of the equation in it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ...engine.graph import Symbol
from .equation import Equation, Text, variables
from .form import function, loop
from .identifiers import LOCAL, Names, identifier
from .layers import Neuron


@dataclass(frozen=True)
class Locals:
    """The types in a neuron's function.

    Args:
        x: of the inputs.
        local: of the variables.
        out: of the outputs.
        stored: how a result is converted to be stored as a state.
        fired: how the output is.
    """

    x: str
    local: str
    out: str
    stored: Callable[[str], str] = lambda text: text
    fired: Callable[[str], str] = lambda text: text


def neuron_function(
    layer: Neuron, prefix: str, text: Text, types: Locals, once: list[str], each: list[str]
) -> list[str]:
    """The function.

    Args:
        layer: the neuron.
        prefix: of the network.
        text: writes expressions; it knows the names of the constants.
        types: of the variables.
        once: lines that declare the constants.
        each: lines that declare the constants of an element.
    """
    equation = layer.equation
    chosen = frozenset(a.node for a in equation.assignments)
    reads = Counter(leaf for a in equation.assignments for leaf in variables(equation, a.node, chosen))
    reads.update(equation.results)
    each = list(each)
    each += _inputs(layer, text, types, reads)
    changed = {a.name for a in equation.assignments if not a.declares}
    free = Names(
        LOCAL | {equation.value_name(node) for node in equation.values} | set(map(identifier, equation.input_names))
    )
    for name, leaf in equation.states.items():
        variable = free.new(identifier(name), f"{identifier(name)}_")
        if reads[leaf]:
            const = "" if variable in changed else "const "
            each.append(f"{const}{types.local} {variable} = net->{layer.states[name].name}[n];")
        text.names[leaf] = variable
    stored = set[Symbol]()
    stored_at = [f"net->{layer.states[name].name}[n]" for name in equation.states]
    places = {node: (k, at) for k, (node, at) in enumerate(zip(equation.results[1:], stored_at, strict=True), start=1)}
    for a in equation.assignments:
        if a.stored and a.node is equation.results[0]:
            each.append(f"out[n] = {types.fired(text.result(0, inline=True))};")
            stored.add(a.node)
        elif a.stored:
            k, place = places[a.node]
            each.append(f"{place} = {types.stored(text.result(k, inline=True))};")
            stored.add(a.node)
        else:
            declared = ("const " if a.constant else "") + f"{types.local} " if a.declares else ""
            each.append(f"{declared}{a.name} = {text.inside(a.node)};")
        text.names[a.node] = a.name
    if equation.results[0] not in stored:
        each.append(f"out[n] = {types.fired(text.result(0, inline=False))};")
    for k, (leaf, at) in enumerate(zip(equation.states.values(), stored_at, strict=True), start=1):
        node = equation.results[k]
        if node not in stored and node is not leaf:
            each.append(f"{at} = {types.stored(text.result(k, inline=False))};")
    struct = [f"struct {prefix} *net"] if layer.states else []
    xs = [f"const {types.x} *{argument}" for argument in arguments(layer)]
    head = f"static void {layer.name}({', '.join([*struct, *xs, f'{types.out} *out'])})"
    gap = [""] if once else []
    return function(head, [*once, *gap, *loop("n", layer.y.size, each)])


def arguments(layer: Neuron) -> list[str]:
    """The names of the arrays that a neuron reads."""
    if len(layer.x) == 1:
        return ["x"]
    return ["x", "back"] if len(layer.equation.inputs) != len(layer.x) else [f"x{k}" for k in range(len(layer.x))]


def _inputs(layer: Neuron, text: Text, types: Locals, reads: Counter[Symbol]) -> list[str]:
    """The inputs as variables; a single array that is read once needs none."""
    equation, arrays, lines = layer.equation, arguments(layer), list[str]()
    size = layer.y.size
    for k, leaf in enumerate(equation.inputs):
        at = "n" if len(equation.inputs) in (1, len(arrays)) else f"{k * size} + n" if k else "n"
        own = [arrays[k]] if len(arrays) == len(equation.inputs) > 1 else arrays
        wide = f"({types.local})" if len(own) > 1 and types.local != types.x else ""
        read = wide + " + ".join(f"{array}[{at}]" for array in own)
        if not reads[leaf]:
            continue
        inline = types.local == types.x or not _meets_inputs_alone(equation, leaf)
        if len(own) == 1 and reads[leaf] == 1 and text.once(leaf) and inline:
            text.names[leaf] = read
            continue
        wish = identifier(equation.input_names[k])
        variable = f"{wish}_n" if wish in (*arrays, "x", "n", "out", "net") else wish
        lines.append(f"const {types.local} {variable} = {read};")
        text.names[leaf] = variable
    return lines


def _meets_inputs_alone(equation: Equation, leaf: Symbol) -> bool:
    """Whether an operation has inputs alone as arguments, this one among them, and so the type of inputs in C."""
    arguments = [frozenset(equation.arguments(node)) for node in equation.nodes if node not in equation.values]
    return any(leaf in own and own <= frozenset(equation.inputs) for own in arguments)
