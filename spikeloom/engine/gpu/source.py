"""Kernel source for Triton, generated from the same graph of one step as the Numba kernels.

A program of the grid runs BLOCK of the M = B * prod(N) elements over all T steps. States, their gradients and the
sums of the parameters' gradients stay in registers, and parameters are read once.

Memory per element and step, in values of the dtype:
forward: 1 read (input), 1 written (spikes), 1 written per state that is saved at every step.
backward: 1 read (gradient of the spikes), 1 read per saved state, even if a step needs the old one and the new one,
1 written (gradient of the input). Arrays that are constant in time are one row, read with a time stride of 0.
If the states are not requested, they are saved every SPAN steps only; the backward recomputes them from the input.

In half precision the input, the spikes and their gradients take two bytes each; states and arithmetic are float32.
"""

from collections.abc import Callable, Sequence
from functools import partial

from ..graph import Derivation, InputGrad, Param, State, Symbol, Variant, needed
from ..jit import lines
from ..tuning import triton_shapes
from .step_source import Lines, TritonNames, helpers, integers, varying

SPAN = triton_shapes.span
LAST = "steps - 1"

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


def emit_triton(derivation: Derivation, variant: Variant, title: str) -> str:
    """The source of a module with `kernel`, forward or, if the variant has a gradient, backward.

    Its arguments are named as in `launch`; it has only those that it uses.
    """
    backward = _rebuilding if State.SPANS in variant.states else _backward
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
    states = range(len(derivation.step.states))
    name, part = TritonNames(derivation, variant, recalled=False), Lines()
    spk, *new = derivation.forward
    part.constants(variant)
    part.inputs(len(derivation.step.inputs))
    _read(part, derivation, name)
    for param in varying(variant):
        part.ahead(f"{param}_m", param, "size", name.dtype)
    part.pointer("spk", "size", backwards=False)
    for k in states:
        part.held(f"state{k}", f"initial{k}")
    part.body += name.assign(needed(derivation.forward, frozenset(derivation.hoisted)))
    part.stored("spk", name(spk))
    for k in states:
        if variant.states[k] == State.SAVED:
            part.pointer(f"trace{k}", "size", backwards=False)
            part.stored(f"trace{k}", name(new[k]))
        elif variant.states[k] == State.SPANS:
            part.arguments.append(f"trace{k}")
            part.before.append(f"trace{k}_t = trace{k} + m")
            part.body.append(f"if (t % {SPAN} == {SPAN - 1}) & (t + 1 < steps):")
            part.body.append(f"    tl.store(trace{k}_t, {name(new[k])}, mask=inside)")
            part.body.append(f"    trace{k}_t += size")
        part.result(f"final{k}", f"state{k}_m")
    part.carried({f"state{k}_m": name.block(new[k]) for k in states})
    return part


def _read(part: Lines, derivation: Derivation, name: TritonNames, first: str = "") -> None:
    """Load the inputs of a step. Only a kernel of a single step has several."""
    inputs = derivation.step.inputs
    if len(inputs) == 1:
        part.ahead(name(inputs[0]), "x", "x_stride", name.dtype, first)
        return
    part.arguments.append("x")
    for k, x in enumerate(inputs):
        part.body.append(f"{name(x)} = tl.load(x + {part.places['x']}{_offset(k)}, mask=inside).to({name.dtype})")


def _offset(k: int) -> str:
    """The offset of the k-th of several inputs, or of its gradient, from the first."""
    return f" + width * {k}" if k else ""


def _backward(derivation: Derivation, variant: Variant) -> Lines:
    """The backward from the last step to the first, with states that the forward saved at every step."""
    step, part = derivation.step, results(derivation, variant)
    name, reads = (
        TritonNames(derivation, variant, recalled=True),
        set(derivation.backward_nodes(variant.params, variant.grad)),
    )
    part.inputs(len(step.inputs))
    if not reads.isdisjoint(step.inputs):
        _read(part, derivation, name, LAST)
    for k, (old, new) in enumerate(zip(step.states, step.new_states, strict=True)):
        reads_old, reads_new = old in reads, new in reads and new not in frozenset(step.states)
        if reads_old:
            part.held(f"initial{k}", f"initial{k}")
            earlier = f"{LAST} - 1", 1, f"initial{k}_m"
            part.ahead(f"state{k}_m", f"trace{k}", "size", name.dtype, *earlier)
        if reads_old and reads_new:  # the old state is the previous new state: read once
            place = f"trace{k} + m + ({LAST}).to(tl.int64) * size"
            part.before.append(f"new{k}_m = tl.load({place}, mask=0 < left)")
            part.moves.append(f"new{k}_m = state{k}_m")
        elif reads_new:
            part.ahead(f"new{k}_m", f"trace{k}", "size", name.dtype, LAST)
    for param in varying(variant):
        part.ahead(f"{param}_m", param, "size", name.dtype, LAST)
    for k in incoming(derivation, variant):
        part.ahead(f"cotangent{k}", f"grad{k}", f"grad{k}_stride", name.dtype, LAST)
    _backward_step(part, derivation, variant, name, "cotangent{}", partial(part.pointer, backwards=True))
    return part


def _rebuilding(derivation: Derivation, variant: Variant) -> Lines:
    """The backward with recomputed states: from each saved state, SPAN steps forward in registers, then backward.

    All loads of a span are issued at its beginning (see `Lines.ahead`).
    """
    step, part = derivation.step, results(derivation, variant)
    part.time = f"span in range((steps + {SPAN - 1}) // {SPAN})"
    part.before.append(f"begin = (steps + {SPAN - 1}) // {SPAN} * {SPAN}")
    part.body.append(f"begin -= {SPAN}")

    def start(sequence: str, stride: str, row: str) -> None:
        part.arguments += [name for name in (sequence, stride) if name not in part.arguments]
        part.body.append(f"{sequence}_t = {sequence} + m + ({row}).to(tl.int64) * {stride}")

    for k in range(len(step.states)):
        part.held(f"initial{k}", f"initial{k}")
        part.arguments.append(f"trace{k}")
        saved = f"trace{k} + m + (begin // {SPAN} - 1).to(tl.int64) * size"
        part.body.append(f"state{k}_0 = tl.load({saved}, mask=tl.where(inside, begin, 0) > 0, other=initial{k}_m)")
    part.body += [f"live{at} = begin + {at} < left" for at in range(SPAN)]
    cotangents = {f"grad{k}": f"cotangent{k}" for k in incoming(derivation, variant)}
    for sequence, value in {"x": "given", **cotangents}.items():
        start(sequence, f"{sequence}_stride", "begin")
        for at in range(SPAN):
            part.body.append(f"{value}_{at} = tl.load({sequence}_t, mask=live{at})")
            part.body.append(f"{sequence}_t += {sequence}_stride")
    for at in range(SPAN):
        name = TritonNames(derivation, variant, recalled=False, at=at)
        part.body.append(f"x_{at} = given_{at}.to({name.dtype})")
        part.body += name.assign(needed(step.new_states, frozenset(derivation.hoisted)))
        part.body += [f"state{k}_{at + 1} = {name.block(new)}" for k, new in enumerate(step.new_states)]
    for sequence in stored(derivation, variant):
        start(sequence, "size", f"begin + {SPAN}")
    for at in reversed(range(SPAN)):
        name = TritonNames(derivation, variant, recalled=True, at=at)
        part.body += [f"{sequence}_t -= size" for sequence in stored(derivation, variant)]
        _backward_step(
            part, derivation, variant, name, f"cotangent{{}}_{at}.to({name.dtype})", "{}_t".format, f"live{at}"
        )
    return part


def results(derivation: Derivation, variant: Variant, zero: str = "", whole: str = "{}_m") -> Lines:
    """The loads before the first step of a backward and the stores after its last; it has no steps yet.

    Args:
        zero: the initial value of sums, if it is not zero for each element.
        whole: the expression of a sum that is stored.
    """
    part = Lines()
    part.constants(variant)
    for k in range(len(derivation.step.states)):
        part.held(f"carry{k}", f"grad_final{k}")
        part.result(f"carry{k}", f"carry{k}_m")
    zero = zero or TritonNames(derivation, variant, recalled=True).block(None)
    for total in sums(derivation, variant):
        part.before.append(f"{total}_m = {zero}")
        part.result(total, whole.format(total))
    return part


def sums(derivation: Derivation, variant: Variant) -> dict[str, Symbol | None]:
    """The gradients that are summed over time."""
    (dx, *_), _, _ = derivation.gradients
    constant = (Param.LEARNED_NUMBER, Param.LEARNED_ELEMENT)
    return _totals(derivation, variant, constant) | ({"dx": dx} if variant.grad == InputGrad.SUM else {})


def stored(derivation: Derivation, variant: Variant) -> dict[str, Sequence[Symbol | None]]:
    """The gradients that are written at each step; the gradients of several inputs are one entry."""
    dxs, _, _ = derivation.gradients
    totals = {name: [total] for name, total in _totals(derivation, variant, (Param.LEARNED_STEP,)).items()}
    return totals | ({"dx": dxs} if variant.grad == InputGrad.EACH else {})


def _totals(derivation: Derivation, variant: Variant, kinds: Sequence[Param]) -> dict[str, Symbol | None]:
    """The gradients of the parameters of the given kinds."""
    _, _, totals = derivation.gradients
    return {f"total{k}": g for k, (g, kind) in enumerate(zip(totals, variant.params, strict=True)) if kind in kinds}


def incoming(derivation: Derivation, variant: Variant) -> list[int]:
    """The numbers of the results whose gradients are read at each step: the spikes, and requested states."""
    nodes = derivation.backward_nodes(variant.params, variant.grad)
    requested = (True, *(state != State.SPANS for state in variant.states))
    return [k for k, g in enumerate(derivation.cotangents) if g in nodes and requested[k]]


def _backward_step(
    part: Lines,
    derivation: Derivation,
    variant: Variant,
    name: TritonNames,
    cotangent: str,
    place: Callable[[str, str], str],
    live: str = "",
) -> None:
    """Append one step of the backward, computed from the states and the input of this step.

    Args:
        cotangent: the gradient of a result of this step, by its number.
        place: returns the address of the step's row in a sequence, from its name and stride.
        live: the mask of the elements that have such a step, if not all have.
    """
    _, carries, _ = derivation.gradients
    nodes, read = derivation.backward_nodes(variant.params, variant.grad), incoming(derivation, variant)
    for k, g in enumerate(derivation.cotangents):
        if g in nodes:
            terms = [cotangent.format(k)] * (k in read) + [f"carry{k - 1}_m"] * (k > 0)
            part.body.append(f"grad{k}_m = {' + '.join(terms)}")
    part.body += name.assign(nodes)
    for sequence, values in stored(derivation, variant).items():
        start = place(sequence, "size")
        for k, value in enumerate(values):
            part.body.append(f"tl.store({start}{_offset(k)}, {name.block(value)}, mask={live or 'inside'})")
    carry = {f"carry{k}_m": name.block(g) for k, g in enumerate(carries)}
    for total, addend in sums(derivation, variant).items():
        if addend is not None:
            carry[f"{total}_m"] = f"{total}_m + {name(addend)}"
    part.carried(carry, live)
