"""An equation in integers: every operation on fixed-point numbers as operations on 64-bit integers.

A fixed-point number v stands for v / 2^fraction. A spike, a condition and what is computed from them alone are plain
integers ("units"), so a product with a spike is a plain product. Constants that multiply have as many fractional bits
as fit 32 bits. Before a product both factors are limited to 32 bits, so no operation overflows.

The result is used twice: printed in C, and run by the simulation.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...engine.graph import Symbol
from .equation import Equation
from .fixed_point import FUNCTIONS, LEAST, MOST, saturated

COMPARED = ("lt", "le", "gt", "ge", "eq", "ne")


@dataclass(frozen=True, eq=False)
class Code:
    """An operation on integers.

    Args:
        op: "ref" (a leaf or an assigned value), "constant", "literal", "times" (a product of fixed-point numbers),
            "one" (1 as a fixed-point number), a function of `fixed_point`, or an operation of the graph.
        args: what it operates on.
        unit: whether the value is a plain integer; otherwise it is a fixed-point number.
        node: of a ref or a constant.
        number: a literal, or the shift of a product.
        form: of a constant.
    """

    op: str
    args: tuple["Code", ...] = ()
    unit: bool = False
    node: Symbol | None = None
    number: int = 0
    form: str = "term"


@dataclass(frozen=True)
class Constant:
    """A constant of an equation in integers.

    Args:
        values: one number, or one per element.
        shift: the fractional bits.
    """

    values: Tensor
    shift: int


@dataclass
class Lowered:
    """An equation in integers.

    Args:
        equation: the equation.
        fraction: the fractional bits of all values that vary.
        codes: of each assigned value.
        results: of the output and of the new states; these are fixed-point numbers.
        constants: by node and form: a "term" is added or compared and has `fraction` bits; a "factor" multiplies; an
            "inverse" is 1 / value and multiplies, too.
    """

    equation: Equation
    fraction: int
    codes: dict[Symbol, Code] = field(default_factory=dict)
    results: list[Code] = field(default_factory=list)
    constants: dict[tuple[Symbol, str], Constant] = field(default_factory=dict)

    @property
    def fires(self) -> bool:
        """Whether the output is a plain integer."""
        return self.results[0].unit

    @property
    def is_spike(self) -> bool:
        """Whether the output is 0 or 1."""
        code = self.results[0]
        while code.op == "ref" and code.node in self.codes:
            code = self.codes[code.node]
        return code.op in COMPARED

    def inlined(self, result: int) -> Code:
        """A result without a reference to its assignment."""
        code = self.codes[self.equation.results[result]]
        return Code("mul", (code, Code("one"))) if result and code.unit else code


def lowered(equation: Equation, fraction: int) -> Lowered:
    """The equation in integers; raises `CannotExport` for an operation that integers do not have."""
    made = Lowered(equation, fraction)
    maker = _Maker(made)
    for assignment in equation.assignments:
        made.codes[assignment.node] = maker.inside(assignment.node)
    spk, *news = equation.results
    made.results = [maker(spk) if maker(spk).unit else maker.fixed(spk), *map(maker.fixed, news)]
    return made


class _Maker:
    def __init__(self, made: Lowered):
        self.made, self.equation = made, made.equation

    def __call__(self, node: Symbol) -> Code:
        """A reference to an assigned value or a leaf, or the operation itself."""
        node = self.equation.resolved(node)
        if node in self.made.codes:
            return Code("ref", unit=self.made.codes[node].unit, node=node)
        if node.op in ("x", "state"):
            return Code("ref", node=node)
        return self.inside(node)

    def constant(self, node: Symbol) -> float | Tensor | None:
        """The value of a constant, one number or one per element; None if the node varies."""
        node = self.equation.resolved(node)
        if node.op in ("full", "full_like"):
            return self.constant(node.args[-1])
        if not self.equation.is_value(node):
            return None
        number = self.equation.number(node)
        return self.equation.values[node] if number is None else number

    def fixed(self, node: Symbol) -> Code:
        """A node as a fixed-point number."""
        value = self.constant(node)
        if value is not None:
            return self.term(node, value)
        code = self(node)
        return Code("mul", (code, Code("one"))) if code.unit else code

    def term(self, node: Symbol, value: float | Tensor) -> Code:
        """A constant with the fractional bits of the values."""
        node = self._source(node)
        if node.op == "const" and value == 1.0:
            return Code("one")
        if node.op == "const" and value == 0.0:
            return Code("literal")
        self.made.constants[node, "term"] = Constant(_rounded(value, self.made.fraction), self.made.fraction)
        return Code("constant", node=node)

    def _source(self, node: Symbol) -> Symbol:
        node = self.equation.resolved(node)
        return self._source(node.args[-1]) if node.op in ("full", "full_like") else node

    def units(self, *nodes: Symbol) -> tuple[Code, ...] | None:
        """The nodes as plain integers if at least one is and the others are whole numbers in the equation's text."""
        codes = list[Code]()
        for node in nodes:
            value = self.constant(node)
            if value is None:
                code = self(node)
                if not code.unit:
                    return None
                codes.append(code)
            elif (
                isinstance(value, float)
                and self._source(node).op == "const"
                and value.is_integer()
                and abs(value) < 128
            ):
                codes.append(Code("literal", unit=True, number=int(value)))
            else:
                return None
        return tuple(codes) if any(code.op != "literal" for code in codes) else None

    def inside(self, node: Symbol) -> Code:
        """The operation of a node."""
        op, args = node.op, self.equation.arguments(node)
        value = self.constant(node)
        if value is not None:
            return self.term(node, value)
        if op in FUNCTIONS and op != "div":
            return Code(f"fixed_{op}", (self.fixed(args[0]),))
        if op == "mul":
            return self._product(*args)
        if op == "div":
            return self._quotient(*args)
        if op == "spike":
            code = self(args[0])
            return Code("gt", (code, Code("literal", unit=True)), unit=True)
        if op in ("and", "or", "xor", "not", "count"):
            codes = tuple(self(arg) for arg in args)
            return codes[0] if op == "count" else Code(op, codes, unit=True)
        if op == "clamp":
            return self._clamp(*args)
        if op == "where":
            branches = self.units(*args[1:])
            unit = branches is not None
            return Code("where", (self(args[0]), *(branches or map(self.fixed, args[1:]))), unit=unit)
        operands = self.units(*args)
        codes = operands if operands is not None else tuple(map(self.fixed, args))
        return Code(op, codes, unit=operands is not None or op in COMPARED)

    def _product(self, a: Symbol, b: Symbol) -> Code:
        whole = self.units(a, b)
        if whole is not None:
            return Code("mul", whole, unit=True)
        if self.constant(a) is not None:
            a, b = b, a
        left, factor = self(a), self.constant(b)
        if factor is not None:
            return Code("mul", (left, self.fixed(b))) if left.unit else self._scaled(left, b, factor, "factor")
        right = self(b)
        if left.unit or right.unit:
            return Code("mul", (left, right))
        return Code("times", (left, right), number=self.made.fraction)

    def _scaled(self, code: Code, node: Symbol, factor: float | Tensor, form: str) -> Code:
        node = self._source(node)
        constant = self.made.constants[node, form] = Constant(*_factor(factor))
        return Code("times", (Code("constant", node=node, form=form), code), number=constant.shift)

    def _quotient(self, a: Symbol, b: Symbol) -> Code:
        by = self.constant(b)
        if by is None or bool((torch.as_tensor(by) == 0).any()):
            return Code("fixed_div", (self.fixed(a), self.fixed(b)))
        left = self(a)
        return self._scaled(Code("mul", (left, Code("one"))) if left.unit else left, b, 1.0 / by, "inverse")

    def _clamp(self, u: Symbol, low: Symbol, high: Symbol) -> Code:
        code = self.fixed(u)
        for op, bound, none in (("maximum", low, -math.inf), ("minimum", high, math.inf)):
            value = self.constant(bound)
            if isinstance(value, Tensor) or value != none:
                code = Code(op, (code, self.fixed(bound)))
        return code


def _rounded(value: float | Tensor, fraction: int) -> Tensor:
    """The integers of a constant, within 32 bits."""
    scaled = torch.as_tensor(value, dtype=torch.float64) * 2.0**fraction
    return scaled.round().nan_to_num(0.0, MOST, LEAST).clamp(LEAST, MOST).to(torch.int64)


def _factor(value: float | Tensor) -> tuple[Tensor, int]:
    """A constant with as many fractional bits as fit, and their number."""
    most = float(torch.as_tensor(value, dtype=torch.float64).abs().max())
    shift = 30 if not 0 < most < math.inf else min(60, max(1, 30 - math.floor(math.log2(most))))
    whole = _rounded(value, shift)
    while shift > 1 and int(whole.abs().max()) >= MOST:
        shift -= 1
        whole = _rounded(value, shift)
    return whole, shift


# -- running -----------------------------------------------------------------------------------------------------------


def times(a: Tensor, b: Tensor, shift: int) -> Tensor:
    """A rounded product of which `shift` bits are fractional."""
    product: Tensor = (saturated(a) * saturated(b) + (1 << (shift - 1))) >> shift
    return product


def run(code: Code, made: Lowered, known: Mapping[Symbol, Tensor]) -> Tensor:
    """The value of an operation, int64; `known` are the leaves and the assigned values."""
    if code.op == "ref":
        assert code.node is not None
        return known[code.node]
    if code.op == "constant":
        assert code.node is not None
        return made.constants[code.node, code.form].values
    if code.op in ("literal", "one"):
        return torch.tensor(code.number if code.op == "literal" else 1 << made.fraction)
    args = [run(arg, made, known) for arg in code.args]
    if code.op == "times":
        return times(args[0], args[1], code.number)
    if code.op.startswith("fixed_"):
        return FUNCTIONS[code.op.removeprefix("fixed_")](*args, made.fraction)
    result: Tensor = RUNS[code.op](*args)
    return result


RUNS: Mapping[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "neg": torch.neg,
    "abs": torch.abs,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "where": lambda c, a, b: torch.where(c != 0, a, b),
    "and": lambda a, b: ((a != 0) & (b != 0)).long(),
    "or": lambda a, b: ((a != 0) | (b != 0)).long(),
    "xor": lambda a, b: (a != b).long(),
    "not": lambda a: (a == 0).long(),
    "lt": lambda a, b: (a < b).long(),
    "le": lambda a, b: (a <= b).long(),
    "gt": lambda a, b: (a > b).long(),
    "ge": lambda a, b: (a >= b).long(),
    "eq": lambda a, b: (a == b).long(),
    "ne": lambda a, b: (a != b).long(),
}
"""Operations on int64 tensors."""
