"""Shared parts of the source of every Triton kernel: the operations of a step, and the lines around them.

The source has the operations of the cell, in order. Divisions and square roots round as in torch, except divisions that
only gradients depend on. The launch disables fused multiply-add.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ..cpu import TEMPLATES, Names
from ..graph import NUMBERS, Derivation, Param, Symbol, Target, Variant, needed
from ..tuning import triton_shapes

TANH = '''
@triton.jit
def tanh(u):
    """-expm1(y) / (2 + expm1(y)) with y = -2|u|; expm1 by Kahan's formula, in which errors cancel near 0."""
    y = tl.abs(u) * -2.0
    e = tl.exp(y)
    small = (e < 1.0) & (y > -1.0)
    quotient = {quotient}
    less_one = tl.where(small, quotient, tl.where(e == 1.0, y, e - 1.0))
    size = {ratio}
    return tl.where(u < 0.0, size, size * -1.0)

'''

RAISED = "tl.where(({0} >= {1}) | ({0} != {0}), {0}, {1})"

OWN: Mapping[str, str] = {
    "neg": "{} * -1.0",  # some releases of Triton compute -u as 0 - u, which loses the sign of zero
    "exp": "tl.exp({})",
    "log": "tl.log({})",
    "sqrt": "tl.sqrt({})",
    "abs": "tl.abs({})",
    "tanh": "tanh({})",
    "sin": "tl.sin({})",
    "cos": "tl.cos({})",
    "minimum": "tl.where(({0} < {1}) | ({0} != {0}), {0}, {1})",
    "maximum": "tl.where(({0} > {1}) | ({0} != {0}), {0}, {1})",
    "clamp": f"tl.where(({RAISED} <= {{2}}) | ({RAISED} != {RAISED}), {RAISED}, {{2}})",
    "not": "{} == 0",
    "full": "tl.broadcast_to({}, m.shape)",
    "where": "tl.where({0}, {1}, {2})",
}


class TritonNames(Names):
    """Names and expressions of the nodes; with `at`, those of one step of a span."""

    condition = "({} != 0.0)"

    def __init__(self, derivation: Derivation, variant: Variant, recalled: bool, at: int | None = None):
        super().__init__(derivation, recalled)
        if at is not None:  # one of several unrolled steps: the states of each step have their own names
            step = derivation.step
            self.names |= {step.inputs[0]: f"x_{at}"}
            self.names |= {new: f"state{k}_{at + 1}" for k, new in enumerate(step.new_states) if recalled}
            self.names |= {old: f"state{k}_{at}" for k, old in enumerate(step.states)}
        self.dtype, self.on_gpu = f"tl.{variant.computed}", variant.target == Target.TRITON
        self.exact = frozenset(needed(derivation.forward)) if recalled else None
        self.one, zero = self.number(1), self.number(0)
        own = {**TEMPLATES, **OWN, "spike": f"tl.where({{}} > 0.0, {self.one}, {zero})"}
        own["count"] = f"tl.where({{}}, {self.one}, {zero})"
        if variant.computed == "float32":  # Triton's plain division and root are approximate in float32
            own |= {"div": "tl.div_rn({}, {})", "sqrt": "tl.sqrt_rn({})"}
        own["sigmoid"] = own["div"].format(self.one, f"({self.one} + tl.exp({{}} * -1.0))")
        self.templates = own

    def number(self, value: float) -> str:
        shown = repr(float(value))
        return f"tl.full((), {shown if shown[-1].isdigit() else f'float({shown!r})'}, {self.dtype})"

    def expression(self, node: Symbol) -> str:
        if node.op == "div" and node.args[1].op in NUMBERS and self.on_gpu:
            # tensor / number is tensor * (1 / number) in torch on a GPU, and rounds differently from a division
            reciprocal = self.templates["div"].format(self.one, self(node.args[1]))
            return f"{self(node.args[0])} * {reciprocal}"
        if node.op == "div" and self.exact is not None and node not in self.exact:
            return TEMPLATES["div"].format(*map(self, node.args))  # in gradients only: without branches
        if node.op in ("minimum", "maximum", "clamp"):  # their conditions cannot be broadcast in the interpreter
            return self.templates[node.op].format(*map(self.block, node.args))
        return super().expression(node)

    def block(self, node: Symbol | None) -> str:
        """A node as one value per element of a block, since values carried by a loop must not change shape."""
        return self(node) if node is not None and node.varying else f"tl.broadcast_to({self(node)}, m.shape)"


@dataclass
class Lines:
    """The parts of a kernel: its loop over time, its arguments, and the lines before, in and after the loop."""

    time: str = "t in range(steps)"
    arguments: list[str] = field(default_factory=lambda: ["steps", "size"])
    before: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    moves: list[str] = field(default_factory=list)  # updates of pointers and states at the end of a step
    places: dict[str, str] = field(default_factory=dict)  # offset of an element in a row, if it is not `element`
    element: str = "m"

    def constants(self, variant: Variant) -> None:
        """Load the parameters that are the same at every step, once."""
        for k, kind in enumerate(variant.params):
            if kind.fixed == Param.STEP:
                continue
            self.arguments.append(f"param{k}")
            # a single number is broadcast to each element, since the interpreter cannot broadcast conditions
            value = (
                f"tl.broadcast_to(tl.load(param{k}), m.shape)"
                if kind.fixed == Param.NUMBER
                else f"tl.load(param{k} + m, mask=inside)"
            )
            self.before.append(f"param{k}_m = {value}")

    def held(self, name: str, argument: str) -> None:
        """Load a value per element that stays in a register."""
        self.arguments.append(argument)
        self.before.append(f"{name}_m = tl.load({argument} + m, mask=inside)")

    def inputs(self, count: int) -> None:
        """Compute the address of the first of several inputs of a step, and of its gradient; see `cpu.source`."""
        if count > 1:
            self.arguments.append("width")
            self.before.append(f"first = m + m // width * width * {count - 1}")
            self.places |= dict.fromkeys(("x", "dx"), "first")

    def pointer(self, name: str, stride: str, backwards: bool) -> str:
        """Add a pointer into a sequence, which advances by a row at each step."""
        self.arguments += [name] if stride == "size" else [name, stride]
        start = f" + (steps - 1).to(tl.int64) * {stride}" if backwards else ""
        self.before.append(f"{name}_t = {name} + {self.places.get(name, self.element)}{start}")
        self.moves.append(f"{name}_t {'-' if backwards else '+'}= {stride}")
        return f"{name}_t"

    def ahead(
        self, value: str, sequence: str, stride: str, dtype: str, first: str = "", later: int = 0, other: str = ""
    ) -> None:
        """Software-pipelined loads of a sequence: issued some steps ahead, and held in registers until they are used.

        Otherwise the load would be issued after the stores of the previous step, which might alias it as far as the
        compiler knows; with few elements per device, each step would wait for its memory.

        Args:
            value: the name of the loaded value, converted to `dtype`.
            first: the row of the first step, if rows are read backwards.
            later: the number of last steps that read `other` instead.
        """
        self.arguments += [name for name in (sequence, stride) if name not in self.arguments]
        start, sign = (f" + ({first}).to(tl.int64) * {stride}", "-") if first else ("", "+")
        place, other = f"{sequence}_t", other and f", other={other}"
        waiting = [f"{sequence}_{k}" for k in range(triton_shapes.ahead_backwards if first else triton_shapes.ahead)]
        self.before.append(f"{place} = {sequence} + m{start}")
        for k, ahead in enumerate(waiting):
            self.before.append(f"{ahead} = tl.load({place}, mask={k + later} < left{other})")
            self.before.append(f"{place} {sign}= {stride}")
        self.body.append(f"{value} = {waiting[0]}.to({dtype})")
        self.body += [f"{ahead} = {following}" for ahead, following in pairwise(waiting)]
        self.body.append(f"{waiting[-1]} = tl.load({place}, mask=t + {len(waiting) + later} < left{other})")
        self.body.append(f"{place} {sign}= {stride}")

    def stored(self, name: str, value: str) -> None:
        """Store a value through a pointer at each step."""
        self.body.append(f"tl.store({name}_t, {value}, mask=inside)")

    def result(self, argument: str, value: str) -> None:
        """Store a value once, after the last step."""
        self.arguments.append(argument)
        self.after.append(f"tl.store({argument} + m, {value}, mask=inside)")

    def carried(self, values: Mapping[str, str], live: str = "") -> None:
        """Assign the values that a live step passes to the next, by name; all at once, since one may become another."""
        new = [f"tl.where({live}, {value}, {name})" if live else value for name, value in values.items()]
        if new:
            self.body.append(f"{', '.join(values)} = {', '.join(new)}")


def varying(variant: Variant) -> list[str]:
    """The names of the parameters that are read at each step."""
    return [f"param{k}" for k, kind in enumerate(variant.params) if kind.fixed == Param.STEP]


def helpers(body: Sequence[str], variant: Variant) -> str:
    """The source of the functions that the body calls."""
    if not any(" tanh(" in line for line in body):
        return ""
    div = "tl.div_rn({}, {})" if variant.computed == "float32" else "({}) / ({})"
    quotient = div.format("(e - 1.0) * y", "tl.where(small, tl.log(e), y)")
    return TANH.format(quotient=quotient, ratio=div.format("less_one", "less_one + 2.0"))


def integers(arguments: Sequence[str]) -> list[str]:
    """The arguments that are not specialized. Triton specializes the others on divisibility by 16."""
    return [a for a in arguments if a in ("steps", "rows")]
