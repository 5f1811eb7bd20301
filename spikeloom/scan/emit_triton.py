"""Kernel source for Triton, from the same graph of one step that makes the Numba kernels.

A program of the grid takes BLOCK of the M = B * prod(N) elements through all T steps. States, their gradients and the
totals of the parameters' gradients stay in registers, and parameters are read once. Every operation stands in the
source as in the cell; divisions and roots are those that round as torch's do, and the launch forbids fusing.

Memory per element and step, in words of the dtype:
forward: 1 read (input), 1 written (spikes), 1 written per state that is kept at every step.
backward: 1 read (gradient of the spikes), 1 read per saved state, even where a step needs the old one and the new one,
1 written (gradient of the input). What is constant in time is one row, read with time stride 0.
Where nobody asks for the states, one in SPAN steps is kept, and the backward reads that and the input.

In half precision the input, the spikes and their gradients are words of two bytes, states and arithmetic are float32.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from .emit_numba import TEMPLATES, Names, Variant
from .numba_module import lines
from .program import Derivation
from .trace import Symbol, needed

SPAN = 8
"""Of so many steps one leaves its states, where the backward rebuilds those between from the input, in registers.

What is kept is written and read, the input is only read: so a neuron of one state moves 21 bytes per step, where it
would be 24 with its state kept at every step. With 16 it would be half a byte less, for twice the registers, compiled
for sm_90. Not tuned: no choice has been measured on a GPU."""

SOURCE = '''"""{title}"""
import triton
import triton.language as tl

{helpers}
@triton.jit(do_not_specialize={integers})
def kernel({arguments}, BLOCK: tl.constexpr):
    m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = m < size
    left = tl.where(inside, steps, 0)
{before}
    for {time}:
{body}
{after}
'''

TANH = '''
@triton.jit
def tanh(u):
    """-expm1(y) / (2 + expm1(y)) with y = -2|u|; expm1 as Kahan has it, whose errors of exp and log cancel near 0."""
    y = tl.abs(u) * -2.0
    e = tl.exp(y)
    small = (e < 1.0) & (y > -1.0)
    quotient = {quotient}
    less_one = tl.where(small, quotient, tl.where(e == 1.0, y, e - 1.0))
    size = {ratio}
    return tl.where(u < 0.0, size, size * -1.0)

'''

OWN: Mapping[str, str] = {
    "neg": "{} * -1.0",  # the minus of some releases of Triton is 0 - u, which loses the sign of zero
    "exp": "tl.exp({})",
    "log": "tl.log({})",
    "sqrt": "tl.sqrt({})",
    "abs": "tl.abs({})",
    "tanh": "tanh({})",
    "sin": "tl.sin({})",
    "cos": "tl.cos({})",
    "minimum": "tl.where(({0} < {1}) | ({0} != {0}), {0}, {1})",
    "maximum": "tl.where(({0} > {1}) | ({0} != {0}), {0}, {1})",
    "clamp": "tl.where({0} < {1}, {1}, tl.where({0} > {2}, {2}, {0}))",
    "where": "tl.where({0}, {1}, {2})",
}


class TritonNames(Names):
    """What each node is called, and how its operation is written; in step `at` of a span, if that is given."""

    def __init__(self, derivation: Derivation, variant: Variant, recalled: bool, at: int | None = None):
        super().__init__(derivation, recalled)
        if at is not None:  # a step of several, each of whose states has a name
            step = derivation.trace
            self.names |= {step.inputs[0]: f"x_{at}"}
            self.names |= {new: f"state{k}_{at + 1}" for k, new in enumerate(step.new_states) if recalled}
            self.names |= {old: f"state{k}_{at}" for k, old in enumerate(step.states)}
        self.dtype, self.on_gpu = f"tl.{variant.computed}", variant.machine == "triton"
        self.one, zero = self.number(1), self.number(0)
        own = {**TEMPLATES, **OWN, "spike": f"tl.where({{}} > 0.0, {self.one}, {zero})"}
        if variant.computed == "float32":  # whose plain division and root are approximate
            own |= {"div": "tl.div_rn({}, {})", "sqrt": "tl.sqrt_rn({})"}
        own["sigmoid"] = own["div"].format(self.one, f"({self.one} + tl.exp({{}} * -1.0))")
        self.templates = own

    def number(self, value: float) -> str:
        told = repr(float(value))
        return f"tl.full((), {told if told[-1].isdigit() else f'float({told!r})'}, {self.dtype})"

    def expression(self, node: Symbol) -> str:
        if node.op == "div" and node.args[1].op == "const" and self.on_gpu:
            # tensor / number is tensor * (1 / number) in torch on a GPU, and rounds differently from a division
            reciprocal = self.templates["div"].format(self.one, self(node.args[1]))
            return f"{self(node.args[0])} * {reciprocal}"
        return super().expression(node)

    def block(self, node: Symbol | None) -> str:
        """A value for each element of a block, for what a loop carries may not change its shape."""
        return self(node) if node is not None and node.varying else f"tl.broadcast_to({self(node)}, m.shape)"


@dataclass
class Lines:
    """A kernel as it is written: its loop over time, its arguments, and the lines before, in and after the loop."""

    time: str = "t in range(steps)"
    arguments: list[str] = field(default_factory=lambda: ["steps", "size"])
    before: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    moves: list[str] = field(default_factory=list)  # of pointers and states, at the end of a step
    places: dict[str, str] = field(default_factory=dict)  # of an element in a row, where that is not m

    def constants(self, variant: Variant) -> None:
        """The parameters that are the same at every step, read once."""
        for k, kind in enumerate(variant.params):
            if kind in "tT":
                continue
            self.arguments.append(f"param{k}")
            place = "" if kind in "uU" else " + m, mask=inside"
            self.before.append(f"param{k}_m = tl.load(param{k}{place})")

    def varying(self, variant: Variant, place: Callable[[str, str], str], mask: str) -> None:
        """The others, read at each step; `place` is as in `_pull`."""
        for k, kind in enumerate(variant.params):
            if kind in "tT":
                self.body.append(f"param{k}_m = tl.load({place(f'param{k}', 'size')}, mask={mask})")

    def held(self, name: str, argument: str) -> None:
        """A value per element that stays in a register."""
        self.arguments.append(argument)
        self.before.append(f"{name}_m = tl.load({argument} + m, mask=inside)")

    def inputs(self, count: int) -> None:
        """Where the first of several inputs lies, of a single step, and its gradient: see `emit_numba`."""
        if count > 1:
            self.arguments.append("width")
            self.before.append(f"first = m + m // width * width * {count - 1}")
            self.places |= dict.fromkeys(("x", "dx"), "first")

    def pointer(self, name: str, stride: str, backwards: bool) -> str:
        """A pointer into a sequence, which moves by a row at each step."""
        self.arguments += [name] if stride == "size" else [name, stride]
        start = f" + (steps - 1).to(tl.int64) * {stride}" if backwards else ""
        self.before.append(f"{name}_t = {name} + {self.places.get(name, 'm')}{start}")
        self.moves.append(f"{name}_t {'-' if backwards else '+'}= {stride}")
        return f"{name}_t"

    def stored(self, name: str, value: str) -> None:
        """What a pointer writes at each step."""
        self.body.append(f"tl.store({name}_t, {value}, mask=inside)")

    def result(self, argument: str, value: str) -> None:
        """What is written once, after the last step."""
        self.arguments.append(argument)
        self.after.append(f"tl.store({argument} + m, {value}, mask=inside)")

    def carried(self, values: Mapping[str, str], live: str = "") -> None:
        """What a step leaves to the next, by name, where it is live; at once, for one may become another."""
        new = [f"tl.where({live}, {value}, {name})" if live else value for name, value in values.items()]
        if new:
            self.body.append(f"{', '.join(values)} = {', '.join(new)}")


def helpers(body: Sequence[str], variant: Variant) -> str:
    """The functions that those lines call."""
    if not any(" tanh(" in line for line in body):
        return ""
    div = "tl.div_rn({}, {})" if variant.computed == "float32" else "({}) / ({})"
    quotient = div.format("(e - 1.0) * y", "tl.where(small, tl.log(e), y)")
    return TANH.format(quotient=quotient, ratio=div.format("less_one", "less_one + 2.0"))


def integers(arguments: Sequence[str]) -> list[str]:
    """Those of the arguments that are numbers of steps or elements, which are not to be compiled in."""
    return [a for a in arguments if a in ("steps", "size", "rows") or a.endswith("_stride")]


def emit_triton(derivation: Derivation, variant: Variant, title: str) -> str:
    """The source of a module with `kernel`, forward or, if the variant has a gradient, backward.

    Its arguments are named as in `triton_kernels`, and are those alone that it uses.
    """
    backward = _rebuilding if "c" in variant.traced else _backward
    part = (backward if variant.grad else _forward)(derivation, variant)
    return SOURCE.format(
        title=title,
        helpers=helpers(part.body, variant),
        integers=integers(part.arguments),
        arguments=", ".join(part.arguments),
        before=lines(part.before, 1),
        time=part.time,
        body=lines([*part.body, *part.moves], 2),
        after=lines(part.after, 1),
    )


def _forward(derivation: Derivation, variant: Variant) -> Lines:
    states = range(len(derivation.trace.states))
    name, part = TritonNames(derivation, variant, recalled=False), Lines()
    spk, *new = derivation.forward
    part.constants(variant)
    part.inputs(len(derivation.trace.inputs))
    part.pointer("x", "x_stride", backwards=False)
    part.pointer("spk", "size", backwards=False)
    for k in states:
        part.held(f"state{k}", f"initial{k}")
    part.body += _read(derivation, name)
    part.varying(variant, partial(part.pointer, backwards=False), "inside")
    part.body += name.assign(needed(derivation.forward, frozenset(derivation.hoisted)))
    part.stored("spk", name(spk))
    for k in states:
        if variant.traced[k] == "1":
            part.pointer(f"trace{k}", "size", backwards=False)
            part.stored(f"trace{k}", name(new[k]))
        elif variant.traced[k] == "c":
            part.arguments.append(f"trace{k}")
            part.before.append(f"trace{k}_t = trace{k} + m")
            part.body.append(f"if (t % {SPAN} == {SPAN - 1}) & (t + 1 < steps):")
            part.body.append(f"    tl.store(trace{k}_t, {name(new[k])}, mask=inside)")
            part.body.append(f"    trace{k}_t += size")
        part.result(f"final{k}", f"state{k}_m")
    part.carried({f"state{k}_m": name.block(new[k]) for k in states})
    return part


def _read(derivation: Derivation, name: TritonNames) -> list[str]:
    """The inputs of a step."""
    inputs = enumerate(derivation.trace.inputs)
    return [f"{name(x)} = tl.load(x_t{_behind(k)}, mask=inside).to({name.dtype})" for k, x in inputs]


def _behind(k: int) -> str:
    """How far the k-th of several inputs, or its gradient, lies behind the first."""
    return f" + width * {k}" if k else ""


def _backward(derivation: Derivation, variant: Variant) -> Lines:
    """From the last step to the first, by the states that the forward has kept at every step."""
    step, part = derivation.trace, results(derivation, variant)
    name, reads = TritonNames(derivation, variant, recalled=True), set(derivation.pulled(variant.params, variant.grad))
    part.inputs(len(step.inputs))
    if not reads.isdisjoint(step.inputs):
        part.pointer("x", "x_stride", backwards=True)
        part.body += _read(derivation, name)
    for k, (old, new) in enumerate(zip(step.states, step.new_states, strict=True)):
        reads_old, reads_new = old in reads, new in reads and new not in step.states
        if reads_old or reads_new:
            part.pointer(f"trace{k}", "size", backwards=True)
        if reads_old:
            part.held(f"initial{k}", f"initial{k}")
            earlier = f"tl.load(trace{k}_t - size, mask=t + 1 < left, other=initial{k}_m)"
            part.body.append(f"state{k}_m = {earlier}")
        if reads_old and reads_new:  # the old state of a step is the new one of the step before: read once
            part.before.append(f"new{k}_m = tl.load(trace{k}_t, mask=left > 0)")
            part.moves.append(f"new{k}_m = state{k}_m")
        elif reads_new:
            part.body.append(f"new{k}_m = tl.load(trace{k}_t, mask=inside)")

    place = partial(part.pointer, backwards=True)
    part.varying(variant, place, "inside")
    _pull(part, derivation, variant, name, place)
    return part


def _rebuilding(derivation: Derivation, variant: Variant) -> Lines:
    """The same by the input: from each state that was kept, SPAN steps forward in registers, and then back."""
    step, part = derivation.trace, results(derivation, variant)
    part.time = f"span in range((steps + {SPAN - 1}) // {SPAN})"
    part.arguments += ["x", "x_stride"]
    part.before.append(f"begin = (steps + {SPAN - 1}) // {SPAN} * {SPAN}")
    part.body.append(f"begin -= {SPAN}")
    for k in range(len(step.states)):
        part.held(f"initial{k}", f"initial{k}")
        part.arguments.append(f"trace{k}")
        kept = f"trace{k} + m + (begin // {SPAN} - 1).to(tl.int64) * size"
        part.body.append(f"state{k}_0 = tl.load({kept}, mask=tl.where(inside, begin, 0) > 0, other=initial{k}_m)")
    for at in range(SPAN):
        name = TritonNames(derivation, variant, recalled=False, at=at)
        part.body.append(f"live{at} = begin + {at} < left")
        place = f"x + m + (begin + {at}).to(tl.int64) * x_stride"
        part.body.append(f"x_{at} = tl.load({place}, mask=live{at}).to({name.dtype})")
        part.body += name.assign(needed(step.new_states, frozenset(derivation.hoisted)))
        part.body += [f"state{k}_{at + 1} = {name.block(new)}" for k, new in enumerate(step.new_states)]
    for at in reversed(range(SPAN)):
        row = f"(begin + {at}).to(tl.int64)"

        def place_of(sequence: str, stride: str, row: str = row) -> str:
            part.arguments += [name for name in (sequence, stride) if name not in part.arguments]
            return f"{sequence} + m + {row} * {stride}"

        name = TritonNames(derivation, variant, recalled=True, at=at)
        _pull(part, derivation, variant, name, place_of, f"live{at}")
    return part


def results(derivation: Derivation, variant: Variant) -> Lines:
    """A backward of no steps: what it reads once, and what it writes at the end."""
    part = Lines()
    part.constants(variant)
    for k in range(len(derivation.trace.states)):
        part.held(f"carry{k}", f"grad_final{k}")
        part.result(f"carry{k}", f"carry{k}_m")
    zero = TritonNames(derivation, variant, recalled=True).block(None)
    for total in sums(derivation, variant):
        part.before.append(f"{total}_m = {zero}")
        part.result(total, f"{total}_m")
    return part


def sums(derivation: Derivation, variant: Variant) -> dict[str, Symbol | None]:
    """The gradients that are summed up over time."""
    (dx, *_), _, _ = derivation.gradients
    return _totals(derivation, variant, "UV") | ({"dx": dx} if variant.grad == "sum" else {})


def stored(derivation: Derivation, variant: Variant) -> dict[str, Sequence[Symbol | None]]:
    """The gradients that are written at each step, those of several inputs together."""
    dxs, _, _ = derivation.gradients
    totals = {name: [total] for name, total in _totals(derivation, variant, "T").items()}
    return totals | ({"dx": dxs} if variant.grad == "each" else {})


def _totals(derivation: Derivation, variant: Variant, kinds: str) -> dict[str, Symbol | None]:
    """The gradients of the parameters of some kinds."""
    _, _, totals = derivation.gradients
    return {f"total{k}": g for k, (g, kind) in enumerate(zip(totals, variant.params, strict=True)) if kind in kinds}


def _pull(
    part: Lines,
    derivation: Derivation,
    variant: Variant,
    name: TritonNames,
    place: Callable[[str, str], str],
    live: str = "",
) -> None:
    """One step of the backward, by the states and the input at hand.

    Args:
        place: the address of a step's row in a sequence of that name and stride.
        live: the mask of the elements for which there is such a step, if not for all.
    """
    _, carries, _ = derivation.gradients
    nodes, mask = derivation.pulled(variant.params, variant.grad), live or "inside"
    for k, g in enumerate(derivation.cotangents):
        if g not in nodes:
            continue
        if k and variant.traced[k - 1] == "c":  # nobody asked for this state at every step
            part.body.append(f"grad{k}_m = carry{k - 1}_m")
        else:
            carried = f" + carry{k - 1}_m" if k else f".to({name.dtype})"
            part.body.append(f"grad{k}_m = tl.load({place(f'grad{k}', f'grad{k}_stride')}, mask={mask}){carried}")
    part.body += name.assign(nodes)
    for sequence, values in stored(derivation, variant).items():
        start = place(sequence, "size")
        for k, value in enumerate(values):
            part.body.append(f"tl.store({start}{_behind(k)}, {name.block(value)}, mask={mask})")
    carry = {f"carry{k}_m": name.block(g) for k, g in enumerate(carries)}
    for total, addend in sums(derivation, variant).items():
        if addend is not None:
            carry[f"{total}_m"] = f"{total}_m + {name(addend)}"
    part.carried(carry, live)
