"""Kernel source for Numba, from the graph of one step.

The scan runs over M = B * prod(N) independent elements for T steps. A kernel gets one address, that of its arguments:
64-bit words in the order of `forward_arguments` and `backward_arguments`. It splits its share of the elements into
blocks whose state stays in the L1 cache, and runs each block over all time. The compiler vectorizes the inner loop over
the elements of a block. The source contains every operation as it is in the cell.

Memory per element and step, in values of the dtype:
forward: 1 read (input), 1 written (spikes), 1 written per state that is saved at every step.
backward: 1 read (gradient of the spikes), 1 read per saved state, 1 written (gradient of the input).
If the input is constant in time, states need not be saved: a block of the backward recomputes them in the L2 cache.
Arrays that are constant in time (a static input, the gradient of a sum) are one row, read with time stride 0.

Several inputs are one tensor, [B, inputs * width], where width is prod(N): concatenated per batch row, as a matrix
product or a convolution returns them. A block then ends at the end of its row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .. import tuning
from ..graph import Derivation, InputGrad, Param, State, Symbol, Variant, needed
from ..jit import KernelSource, lines

RAISED = "({0} if {0} >= {1} or {0} != {0} else {1})"
"""A value after the lower bound of a clamp is applied."""

TEMPLATES: Mapping[str, str] = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "neg": "-{}",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "gt": "{} > {}",
    "ge": "{} >= {}",
    "eq": "{} == {}",
    "ne": "{} != {}",
    "and": "{} & {}",
    "or": "{} | {}",
    "xor": "{} != {}",
    "not": "not {}",
    "exp": "exp({})",
    "log": "math.log({})",
    "sqrt": "math.sqrt({})",
    "abs": "abs({})",
    "tanh": "tanh({})",
    "sigmoid": "R(1) / (R(1) + exp(-{}))",
    "sin": "math.sin({})",
    "cos": "math.cos({})",
    # comparisons with NaN are false, so each branch is chosen such that NaN propagates
    "minimum": "{0} if {0} < {1} or {0} != {0} else {1}",
    "maximum": "{0} if {0} > {1} or {0} != {0} else {1}",
    "clamp": f"{RAISED} if {RAISED} <= {{2}} or {RAISED} != {RAISED} else {{2}}",
    "where": "{1} if {0} else {2}",
    "spike": "R(1) if {} > R(0) else R(0)",
    "detach": "{}",
    "full": "{}",
    "count": "R(1) if {} else R(0)",
}


def forward_arguments(states: int, params: int) -> dict[str, int | None]:
    """The arguments of a forward kernel, before `own_arguments`."""
    first = dict.fromkeys(("steps", "size", "team", "x*", "x_stride", "spk*"))
    return {**first, "state*": states, "trace*": states, "param*": params}


def backward_arguments(states: int, params: int) -> dict[str, int | None]:
    """The arguments of a backward kernel, before `own_arguments`."""
    first = dict.fromkeys(("steps", "size", "team", "x*", "x_stride", "dx*"))
    each = {"grad*": states + 1, "grad_stride": states + 1, "initial*": states, "trace*": states, "carry*": states}
    return {**first, **each, "param*": params, "total*": params}


def own_arguments(variant: Variant, inputs: int = 1) -> dict[str, int | None]:
    """The last arguments of a kernel.

    For one step: `width`, the distance between two inputs in elements, and the memory of its `copies`. For several
    steps: `block`, the elements of a block, and `strips`, memory through which the forward writes past the caches (see
    `_to_strips`).
    """
    if variant.single:
        return {"width": None, "copy*": len(copies(variant))}
    return dict.fromkeys(["width"] if inputs > 1 else ["block"] if variant.grad else ["block", "strips*"])


def copies(variant: Variant) -> list[str]:
    """The old states and the new ones that the forward of one step copies for its backward, so that the caller may
    modify the states."""
    states = [*enumerate(variant.states)]
    olds = [f"old{k}" for k, state in states if state in (State.OLD, State.BOTH)]
    return [*olds, *(f"new{k}" for k, state in states if state in (State.NEW, State.BOTH))]


BODY = """{uniforms}
    part = (size + threads * 16 - 1) // (threads * 16) * 16
    low = me * part
    end = min(low + part, size)
    while low < end:
        high = min(low + {block}, end)
{row}
{again}
        for {time}:
{rows}
            for m in range(low, high):
{body}
{streamed}
        low = high
{settled}
"""


ROW = ("row = low // width", "high = min(high, (row + 1) * width)")
"""The arguments that several inputs add."""


def emit(derivation: Derivation, variant: Variant, title: str) -> KernelSource:
    """A kernel, forward or, if the variant has a gradient, backward."""
    inputs = len(derivation.step.inputs)
    count = len(derivation.step.states), len(variant.params)
    arguments = backward_arguments(*count) if variant.grad else forward_arguments(*count)
    own = own_arguments(variant, inputs)
    part = backward_part(derivation, variant) if variant.grad else forward_part(derivation, variant)
    names = streamed(variant) if "strips*" in own else []
    rows, source = lines([*part.rows, *_to_strips(names)], 3), lines(part.body, 4)
    row, uniforms = lines(ROW if inputs > 1 else (), 2), lines(part.uniforms, 1)
    again = lines(_again(derivation, variant), 2) if variant.recomputes else ""
    body = BODY.format(
        block="block" if "block" in own else tuning.shapes.block,
        row=row,
        uniforms=uniforms,
        again=again,
        time=part.time,
        rows=rows,
        body=source,
        streamed=lines(_from_strips(names), 3),
        settled="    settled()" if names else "",
    )
    imports = FLOW.format(variant.dtype) if names else ""
    return KernelSource(title, variant.dtype, arguments | own, body, imports)


FLOW = "from spikeloom.engine.jit.intrinsics import flow_{} as flow, settled\n"


def streamed(variant: Variant) -> list[str]:
    """The sequences that a forward may write with streaming stores, which bypass the caches."""
    return ["spk", *(f"trace{k}" for k, state in enumerate(variant.states) if state == State.SAVED)]


def _to_strips(names: Sequence[str]) -> list[str]:
    """If `strips` is the address of a buffer for the threads, rows of a block are written there, and `_from_strips`
    copies them by streaming stores, past the caches. That pays if the caches hold nothing else (static input)."""
    strips = [f"strips + SIZE * ((me * {len(names)} + {k}) * {tuning.shapes.strip} - low)" for k in range(len(names))]
    own = [f"    {name}_t = {strip}" for name, strip in zip(names, strips, strict=True)]
    return [*(f"{name}_row = {name}_t" for name in names), *(["if strips != 0:", *own] if names else [])]


def _from_strips(names: Sequence[str]) -> list[str]:
    flows = [f"    flow({name}_t + SIZE * low, high - low, {name}_row + SIZE * low)" for name in names]
    return ["if strips != 0:", *flows] if names else []


@dataclass(frozen=True)
class Part:
    """Lines of a kernel: loads before the loop, the loop over time, and the lines per step and per element."""

    uniforms: list[str]
    time: str
    rows: list[str]
    body: list[str]


class Names:
    """The name of each node in the source."""

    templates = TEMPLATES
    condition = "({} != R(0))"  # a hoisted condition is passed as a number

    def __init__(self, derivation: Derivation, recalled: bool):
        step = derivation.step
        self.names: dict[Symbol, str] = {x: f"x{k or ''}_m" for k, x in enumerate(step.inputs)}
        if recalled:
            self.names.update({n: f"new{k}_m" for k, n in enumerate(step.new_states)})
        self.names.update({s: f"state{k}_m" for k, s in enumerate(step.states)})
        self.names.update({g: f"grad{k}_m" for k, g in enumerate(derivation.cotangents)})
        hoisted = enumerate(derivation.hoisted)
        self.names.update({h: (self.condition if h.logical else "{}").format(f"param{k}_m") for k, h in hoisted})

    def __call__(self, node: Symbol | None) -> str:
        if node is None or node.op == "const":
            return self.number(0 if node is None else node.value)
        return self.names.get(node, f"v{node.index}")

    def number(self, value: float) -> str:
        """A number of the kernel's dtype."""
        return f"R({value!r})"

    def assign(self, nodes: Iterable[Symbol]) -> list[str]:
        return [f"{self(node)} = {self.expression(node)}" for node in nodes if node.args and node not in self.names]

    def expression(self, node: Symbol) -> str:
        """The operation of a node, as source."""
        return self.templates[node.op].format(*map(self, node.args))


def _uniforms(variant: Variant) -> list[str]:
    return [f"param{k}_m = load(param{k}, 0)" for k, kind in enumerate(variant.params) if kind.fixed == Param.NUMBER]


def _per_element(variant: Variant) -> list[str]:
    return [f"param{k}_m = load(param{k}, m)" for k, kind in enumerate(variant.params) if kind.fixed == Param.ELEMENT]


def _places(derivation: Derivation) -> list[str]:
    """The address of each input of element m, and of its gradient."""
    count = len(derivation.step.inputs)
    return ["m"] if count == 1 else [f"m + width * ({count - 1} * row + {k})" for k in range(count)]


def _step_lines(
    derivation: Derivation, variant: Variant, results: Sequence[Symbol], state: str, fed: str = ""
) -> list[str]:
    """An element's input, states and parameters, and what these results take; `state` is the address of one."""
    name, step = Names(derivation, recalled=False), derivation.step
    body = [f"{name(x)} = load(x_t, {place}){fed}" for x, place in zip(step.inputs, _places(derivation), strict=True)]
    body += [f"state{k}_m = load({state.format(k)}, m)" for k in range(len(step.states))]
    return body + _per_element(variant) + name.assign(needed(results, frozenset(derivation.hoisted)))


def forward_part(derivation: Derivation, variant: Variant, fed: str = "") -> Part:
    """The forward of a step; `fed` is the source of the term that is added to the input."""
    states = range(len(derivation.step.states))
    name = Names(derivation, recalled=False)
    spk, *new = derivation.forward
    rows = ["x_t = x + SIZE * t * x_stride", "spk_t = spk + SIZE * t * size"]
    body = _step_lines(derivation, variant, derivation.forward, "state{}", fed)
    body.append(f"store(spk_t, m, {name(spk)})")
    body += [f"store(state{k}, m, {name(new[k])})" for k in states if not variant.single]
    saved = [k for k in states if variant.single or variant.states[k] == State.SAVED]
    rows += [f"trace{k}_t = trace{k} + SIZE * t * size" for k in saved]
    body += [f"store(trace{k}_t, m, {name(new[k])})" for k in saved]
    values = {f"old{k}": f"state{k}_m" for k in states} | {f"new{k}": name(new[k]) for k in states}
    body += [f"store(copy{i}, m, {values[copy]})" for i, copy in enumerate(copies(variant))]
    return Part(_uniforms(variant), "t in range(steps)", rows, body)


def backward_part(derivation: Derivation, variant: Variant, fed: str = "") -> Part:
    """The backward of a step; `fed` is the source of the term that is added to the gradient of the spikes."""
    step = derivation.step
    states = range(len(step.states))
    name = Names(derivation, recalled=True)
    dxs, carries, totals = derivation.gradients
    places = _places(derivation)
    nodes = derivation.backward_nodes(variant.params, variant.grad)
    reads = set(nodes)

    saved, width = ("again", "block") if variant.recomputes else ("trace", "size")

    rows, body = [], []
    if not reads.isdisjoint(step.inputs):
        rows.append("x_t = x + SIZE * t * x_stride")
    body += [f"{name(x)} = load(x_t, {place})" for x, place in zip(step.inputs, places, strict=True) if x in reads]
    for k, (old, new) in enumerate(zip(step.states, step.new_states, strict=True)):
        if old in reads:
            rows.append(f"state{k}_t = {saved}{k} + SIZE * (t - 1) * {width} if t > 0 else initial{k}")
            body.append(f"state{k}_m = load(state{k}_t, m)")
        if new in reads and new not in frozenset(step.states):
            rows.append(f"new{k}_t = {saved}{k} + SIZE * t * {width}")
            body.append(f"new{k}_m = load(new{k}_t, m)")
    for k, g in enumerate(derivation.cotangents):
        if g in reads:
            rows.append(f"grad{k}_t = grad{k} + SIZE * t * grad_stride{k}")
            carried = fed if k == 0 else "" if variant.single else f" + load(carry{k - 1}, m)"
            body.append(f"grad{k}_m = load(grad{k}_t, m){carried}")
    body += _per_element(variant) + name.assign(nodes)
    if variant.grad == InputGrad.FED_BACK:
        rows.append("dx_t = dx + SIZE * t * dx_stride")
        body += [f"store(dx_t, m, {name(dxs[0])})", f"store(summed, m, load(summed, m) + {name(dxs[0])})"]
    elif variant.grad != InputGrad.UNWANTED:
        rows.append(f"dx_t = dx + SIZE * t * size * {len(dxs)}" if variant.grad == InputGrad.EACH else "dx_t = dx")
        for place, dx in zip(places, dxs, strict=True):
            before = f"load(dx_t, {place}) + " if variant.grad == InputGrad.SUM else ""
            body.append(f"store(dx_t, {place}, {before}{name(dx)})")
    body += [f"store(carry{k}, m, {name(carries[k])})" for k in states]
    body += [
        f"store(total{k}, m, {'' if variant.single else f'load(total{k}, m) + '}{name(g)})"
        for k, (g, kind) in enumerate(zip(totals, variant.params, strict=True))
        if kind.learned and (variant.single or g is not None)
    ]
    return Part(_uniforms(variant), "t in range(steps - 1, -1, -1)", rows or ["pass"], body)


def _again(derivation: Derivation, variant: Variant) -> list[str]:
    """The forward of a block once more, its states to the block's own memory: `trace` holds that of all threads, rows
    of `block` elements for each step of each thread."""
    name, states = Names(derivation, recalled=False), range(len(derivation.step.states))
    _, *new = derivation.forward
    rows = ["x_t = x + SIZE * t * x_stride"]
    rows += [f"state{k}_t = again{k} + SIZE * (t - 1) * block if t > 0 else initial{k}" for k in states]
    rows += [f"new{k}_t = again{k} + SIZE * t * block" for k in states]
    body = _step_lines(derivation, variant, new, "state{}_t")
    body += [f"store(new{k}_t, m, {name(new[k])})" for k in states]
    return [
        *(f"again{k} = trace{k} + SIZE * (me * steps * block - low)" for k in states),
        "for t in range(steps):",
        *(f"    {row}" for row in rows),
        "    for m in range(low, high):",
        *(f"        {line}" for line in body),
    ]
