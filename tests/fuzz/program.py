"""A random equation: lines in single assignment, its parameters, and how it is asked to run; and its source."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, nan

INEXACT = ("exp", "log", "sqrt", "tanh", "sigmoid", "sin", "cos")
"""Words whose last bits are the machine's."""

# what a line is written as, what its arguments are and what it is: v a value, c a condition, n a number
OPERATIONS: Mapping[str, tuple[str, str, str]] = {
    **{sign: (f"{{}} {sign} {{}}", "vv", "v") for sign in "+-*/"},
    **{f"number {sign}": (f"{{}} {sign} {{}}", "nv", "v") for sign in "+-*/"},
    **{f"{sign} number": (f"{{}} {sign} {{}}", "vn", "v") for sign in "+-*/"},
    **{sign: (f"{{}} {sign} {{}}", "vv", "c") for sign in ("<", "<=", ">", ">=", "==", "!=")},
    **{f"{sign} number": (f"{{}} {sign} {{}}", "vn", "c") for sign in ("<", "<=", ">", ">=", "==", "!=")},
    **{f"c {sign}": (f"{{}} {sign} {{}}", "cc", "c") for sign in ("&", "|", "^", "==", "!=", "+", "*")},
    "~": ("~{}", "c", "c"),
    "c * v": ("{} * {}", "cv", "v"),
    "v + c": ("{} + {}", "vc", "v"),
    "c / v": ("{} / {}", "cv", "v"),
    "neg": ("-{}", "v", "v"),
    "abs": ("ops.abs({})", "v", "v"),
    "square": ("{} ** 2", "v", "v"),
    "cube": ("{} ** 3", "v", "v"),
    "detach": ("ops.detach({})", "v", "v"),
    "spike": ("ops.spike({})", "v", "v"),
    "full_like": ("ops.full_like({}, {})", "vn", "v"),
    "where": ("ops.where({}, {}, {})", "cvv", "v"),
    "where number": ("ops.where({}, {}, {})", "cvn", "v"),
    "number where": ("ops.where({}, {}, {})", "cnv", "v"),
    # + 0.0: of two zeros torch takes one or the other, in vectors otherwise than in single numbers
    "clamp": ("ops.clamp({}, {}, {}) + 0.0", "vnn", "v"),
    "clamp to values": ("ops.clamp({}, {}, {}) + 0.0", "vvv", "v"),
    "clamp to both": ("ops.clamp({}, {}, {}) + 0.0", "vnv", "v"),
    "minimum": ("ops.minimum({}, {}) + 0.0", "vv", "v"),
    "maximum": ("ops.maximum({}, {}) + 0.0", "vv", "v"),
    "minimum number": ("ops.minimum({}, {}) + 0.0", "vn", "v"),
    "number maximum": ("ops.maximum({}, {}) + 0.0", "nv", "v"),
    **{operation: (f"ops.{operation}({{}})", "v", "v") for operation in INEXACT},
}

TAME = (0, 1, 2, -1, 0.0, 1.0, 0.5, -0.5, 0.25, 0.9, -0.3, 1.7)
WILD = (-0.0, 1e-40, 1e30, -1e30, 1e-7, inf, -inf, nan)
VALUES = (0.0, 0.5, -0.5, 0.9, 0.3, -1.0, 2, 1, 0, -0.0)
GRID = (-2.0, -1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 1.0, 2.0)

MODES = ("unroll", "steps", "static", "hidden", "checkpoint")
SURROGATES = ("atan()", "fast_sigmoid(slope=3)", "triangular()", "sigmoid(slope=2)", "straight_through_estimator()")
SURROGATES += ("LSO()", "boxcar()", "triangle(width=0.7)", "gaussian()", "no_gradient()", "SFS(slope=2, B=0.5)")


@dataclass(frozen=True)
class Line:
    """One assignment: the operation, and the names or numbers that it takes."""

    name: str
    operation: str
    args: tuple[str, ...]

    @property
    def source(self) -> str:
        return f"{self.name} = {OPERATIONS[self.operation][0].format(*self.args)}"


@dataclass(frozen=True)
class Program:
    """An equation and a way to run it.

    Args:
        states: names.
        params: names with their values, a number or one per neuron, as source.
        learned: which parameters are.
        lines: of the equation.
        results: the value that the spike is of, then the new states.
        mode, dtype, surrogate: how it runs.
        steps, shape: T, and the shape of a step.
        seed: of the input.
    """

    states: tuple[str, ...]
    params: Mapping[str, str]
    learned: tuple[str, ...]
    lines: tuple[Line, ...]
    results: tuple[str, ...]
    mode: str
    dtype: str
    surrogate: str
    steps: int
    shape: tuple[int, ...]
    seed: int

    @property
    def exact(self) -> bool:
        """Whether kernels round as torch does."""
        return not any(line.operation in INEXACT for line in self.lines)

    @property
    def wild(self) -> bool:
        """Whether it has numbers beside which others vanish."""
        return any(repr(number) in line.args for number in WILD for line in self.lines)

    @property
    def equation(self) -> str:
        """Its source."""
        params = [f"{name}={value if '[' not in value else 0.5}" for name, value in self.params.items()]
        arguments = ", ".join(("x", *self.states, *(["*", *params] if params else [])))
        body = [
            *(line.source for line in self.lines),
            f"return {', '.join((f'ops.spike({self.results[0]})', *self.results[1:]))}",
        ]
        return "\n".join(("@snn.cell", f"def neuron({arguments}):", *(f"    {line}" for line in body)))

    @property
    def options(self) -> str:
        """The arguments of the neuron, as source."""
        given = [f"{name}={value}" for name, value in self.params.items()]
        return ", ".join((*given, f"learn={self.learned}", f"spike_grad=surrogate.{self.surrogate}"))


def drawn(seed: int) -> Program:
    """The program of that seed."""
    rng = random.Random(seed)
    states = tuple(f"s{k}" for k in range(rng.choice((1, 1, 2, 3, 4))))
    shape = (rng.choice((1, 2)), rng.choice((3, 8, 17)))
    params = {f"p{k}": _value(rng, shape[-1]) for k in range(rng.choice((0, 1, 2, 3)))}
    learned = tuple(name for name in params if rng.random() < 0.6)
    usable = [operation for operation in OPERATIONS if operation not in INEXACT or rng.random() < 0.02]
    values, conditions, lines = ["x", *states, *params], list[str](), list[Line]()
    for k in range(rng.randint(2, 10)):
        wanted = rng.choice("vvvc")
        operation = rng.choice(
            [w for w in usable if OPERATIONS[w][2] == wanted and ("c" not in OPERATIONS[w][1] or conditions)]
        )
        _, kinds, kind = OPERATIONS[operation]
        recent = values[-3:] if rng.random() < 0.6 else values
        pools: Mapping[str, Callable[[], str]] = {
            "v": lambda recent=recent: rng.choice(recent if rng.random() < 0.5 else values),
            "c": lambda: rng.choice(conditions),
            "n": lambda: repr(rng.choice(WILD if rng.random() < 0.06 else TAME)),
        }
        lines.append(Line(f"{kind}{k}", operation, tuple(pools[each]() for each in kinds)))
        (values if kind == "v" else conditions).append(lines[-1].name)
    _gather(rng, lines, values)
    varying = _varying(states, lines, [name for name in values if name.startswith("v")])
    unused = [name for name in varying if not any(name in line.args for line in lines)]
    results = tuple(unused.pop() if unused else rng.choice(varying) for _ in range(1 + len(states)))
    steps = rng.choice((1, 2, 4, 9))
    options = (rng.choice(MODES), rng.choice(("float32", "float64")), rng.choice(SURROGATES))
    return Program(states, params, learned, tuple(lines), results, *options, steps, shape, seed)


def _gather(rng: random.Random, lines: list[Line], values: list[str]) -> None:
    """Lines that make use of what nothing has made use of."""

    def unused(kind: str) -> list[str]:
        return [line.name for line in lines if line.name[0] == kind and not any(line.name in o.args for o in lines)]

    for condition in unused("c"):
        lines.append(Line(f"v{len(lines)}", "where", (condition, rng.choice(values), rng.choice(values))))
        values.append(lines[-1].name)
    while len(left := unused("v")) > 2:
        lines.append(Line(f"v{len(lines)}", rng.choice("+-*"), (left[0], left[1])))
        values.append(lines[-1].name)


def _value(rng: random.Random, neurons: int) -> str:
    if rng.random() < 0.5:
        return repr(rng.choice(VALUES))
    values = [rng.choice(VALUES) for _ in range(neurons)]
    return f"torch.tensor({values if rng.random() < 0.8 else [int(value) for value in values]})"


def _varying(states: Sequence[str], lines: Sequence[Line], names: Sequence[str]) -> list[str]:
    """Those of the values that have the shape of the input, with x and the states."""
    found = {"x", *states}
    for line in lines:
        if not found.isdisjoint(line.args):
            found.add(line.name)
    return ["x", *states, *(name for name in names if name in found)]


def smaller(program: Program) -> Iterator[Program]:
    """Programs that are a little simpler, the greatest steps first."""
    for steps in {1, program.steps // 2} - {0, program.steps}:
        yield replace(program, steps=steps)
    for mode in MODES[: MODES.index(program.mode)]:
        yield replace(program, mode=mode)
    if program.surrogate != "straight_through_estimator()":
        yield replace(program, surrogate="straight_through_estimator()")
    if program.shape != (1, 3):
        yield replace(program, shape=(1, 3), params={n: "0.5" if "[" in v else v for n, v in program.params.items()})
    for name in program.params:
        used = any(name in line.args for line in program.lines) or name in program.results
        if not used:
            params = {n: v for n, v in program.params.items() if n != name}
            yield replace(program, params=params, learned=tuple(n for n in program.learned if n != name))
        if "[" in program.params[name]:
            yield replace(program, params={**program.params, name: "0.5"})
        if name in program.learned:
            yield replace(program, learned=tuple(n for n in program.learned if n != name))
    for at in range(len(program.states) - 1, -1, -1):
        if len(program.states) > 1 and not any(program.states[at] in line.args for line in program.lines):
            left = [name for k, name in enumerate(program.states) if k != at]
            results = tuple(r for k, r in enumerate(program.results) if k != at + 1)
            if program.states[at] not in results:
                yield replace(program, states=tuple(left), results=results)
    for at, line in enumerate(program.lines):
        rest = (*program.lines[:at], *program.lines[at + 1 :])
        kind = line.name[0]
        others = [arg for arg in line.args if _kind(arg) == kind]
        if kind == "v":
            others += ["x", *program.states[:1]]
        for other in dict.fromkeys(others):
            yield replace(program, lines=_renamed(rest, line.name, other), results=tuple(
                other if r == line.name else r for r in program.results))  # fmt: skip
        if not any(line.name in other.args for other in rest) and line.name not in program.results:
            yield replace(program, lines=rest)
        for k, arg in enumerate(line.args):
            simpler = ["1"] if _kind(arg) == "n" else ["x", *program.states[:1]] if _kind(arg) == "v" else []
            for other in simpler:
                if arg != other and arg != "x":
                    args = (*line.args[:k], other, *line.args[k + 1 :])
                    yield replace(
                        program, lines=(*program.lines[:at], replace(line, args=args), *program.lines[at + 1 :])
                    )
    for k, result in enumerate(program.results):
        for other in ("x", *program.states[:1]):
            if result not in ("x", other):
                yield replace(program, results=(*program.results[:k], other, *program.results[k + 1 :]))


def _kind(arg: str) -> str:
    return "c" if arg[0] == "c" else "v" if arg[0] in "vxsp" else "n"


def _renamed(lines: Sequence[Line], name: str, other: str) -> tuple[Line, ...]:
    return tuple(replace(line, args=tuple(other if a == name else a for a in line.args)) for line in lines)
