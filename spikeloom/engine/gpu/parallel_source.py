"""Kernel source for Triton that processes many steps at once, for recurrences whose steps can be composed (`affine`).

A program of the grid processes BLOCK of the M = B * prod(N) elements over all time, TIME steps at once. Each step is a
slope and an intercept; an associative scan combines them into the state before each step. The code of the step itself
is the same as in the sequential kernel, for TIME steps at once. The state after the last of them is the initial state
of the next TIME steps. The backward pass goes from the last step to the first. Arguments and memory traffic are those
of `source`.
"""

from collections.abc import Collection

from ..graph import Derivation, State, Symbol, Variant, needed
from ..jit import lines
from .affine import Affine, recurrence
from .source import results, stored, sums
from .step_source import Lines, TritonNames, helpers, integers, varying

SOURCE = '''"""{title}"""
import triton
import triton.language as tl

{helpers}
@triton.jit
def joined(slope, rest, slope_before, rest_before, next_slope, next_rest, next_slope_before, next_rest_before):
    """Some steps and the next ones: how a value goes through all of them, and through all but the last."""
    return (
        next_slope * slope,
        next_slope * rest + next_rest,
        next_slope_before * slope,
        next_slope_before * rest + next_rest_before,
    )


@triton.jit(do_not_specialize={integers})
def kernel({arguments}, TIME: tl.constexpr, BLOCK: tl.constexpr):
    m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = m < size
    one, zero = tl.full([TIME, BLOCK], 1.0, {dtype}), tl.zeros([TIME, BLOCK], {dtype})
{before}
    for first in range(0, steps, TIME):
        count = first + tl.arange(0, TIME).to(tl.int64)[:, None]
        t = {t}
        live = (count < steps) & inside
        last = count + 1 == tl.minimum(first + TIME, steps)
{body}
{after}
'''

SUMMED = "tl.sum({}_m, axis=0, keep_dims=True)"
"""A sum over time, held as one partial sum per step: a reduction across threads at each step would synchronize them."""


def emit_triton_parallel(derivation: Derivation, variant: Variant, title: str) -> str | None:
    """The source of a module with `kernel`, forward or, if the variant has a gradient, backward.

    None if the equation is not an affine recurrence, or if the backward recomputes states step by step.
    """
    found = recurrence(derivation, backward=bool(variant.grad))
    if found is None or State.SPANS in variant.states:
        return None
    part = (_backward if variant.grad else _forward)(derivation, variant, found)
    return SOURCE.format(
        title=title,
        helpers=helpers(part.body, variant),
        integers=integers(part.arguments),
        arguments=", ".join(part.arguments),
        dtype=f"tl.{variant.computed}",
        before=lines(part.before, 1),
        t="steps - 1 - count" if variant.grad else "count",
        body=lines(part.body, 2),
        after=lines(part.after, 1),
    )


def _forward(derivation: Derivation, variant: Variant, step: Affine) -> Lines:
    name, part, known = TritonNames(derivation, variant, recalled=False), Lines(), frozenset(derivation.hoisted)
    spk, new = derivation.forward
    part.constants(variant)
    part.held("state0", "initial0")
    part.body.append(f"x_m = tl.load({_row(part, 'x', 'x_stride')}, mask=live).to({name.dtype})")
    _varying(part, variant)
    done = _joined(part, name, step, known, "state0_m", name(step.rest))
    part.body += name.assign(node for node in needed(derivation.forward, known) if node not in done)
    part.body.append(f"tl.store({_row(part, 'spk', 'size')}, {name(spk)}, mask=live)")
    if variant.states == (State.SAVED,):
        part.body.append(f"tl.store({_row(part, 'trace0', 'size')}, {name(new)}, mask=live)")
    part.body.append(f"state0_m = {_last(name(new))}")
    part.result("final0", "state0_m")
    return part


def _backward(derivation: Derivation, variant: Variant, step: Affine) -> Lines:
    (old,), (new,), (x,) = derivation.step.states, derivation.step.new_states, derivation.step.inputs
    _, (carry,), _ = derivation.gradients
    name, part = TritonNames(derivation, variant, recalled=True), results(derivation, variant, "zero", SUMMED)
    nodes = derivation.backward_nodes(variant.params, variant.grad)
    if x in nodes:
        part.body.append(f"x_m = tl.load({_row(part, 'x', 'x_stride')}, mask=live).to({name.dtype})")
    if old in nodes:
        part.held("initial0", "initial0")
        place = f"{_row(part, 'trace0', 'size')} - size"
        part.body.append(f"state0_m = tl.load({place}, mask=live & (t > 0), other=initial0_m)")
    if new in nodes and new is not old:
        part.body.append(f"new0_m = tl.load({_row(part, 'trace0', 'size')}, mask=live)")
    for k, g in enumerate(derivation.cotangents):
        if g in nodes:
            place = _row(part, f"grad{k}", f"grad{k}_stride")
            part.body.append(f"grad{k}_m = tl.load({place}, mask=live).to({name.dtype})")
    _varying(part, variant)
    rest = f"{name(step.slope)} * grad1_m + {name(step.rest)}"  # only the contribution of the next step
    done = _joined(part, name, step, derivation.recalled, "carry0_m", rest)
    part.body.append("grad1_m += carry0_m")
    part.body += name.assign(node for node in nodes if node not in done)
    for sequence, (value,) in stored(derivation, variant).items():
        part.body.append(f"tl.store({_row(part, sequence, 'size')}, {name(value)}, mask=live)")
    for total, addend in sums(derivation, variant).items():
        if addend is not None:
            part.body.append(f"{total}_m += tl.where(live, {name(addend)}, zero)")
    part.body.append(f"carry0_m = {_last(name(carry))}")
    return part


def _joined(
    part: Lines, name: TritonNames, step: Affine, known: frozenset[Symbol], value: str, rest: str
) -> Collection[Symbol]:
    """Compute the value before each of TIME steps from that before the first; also returns its intermediate values."""
    nodes = needed([node for node in step if node is not None], known)
    part.body += name.assign(nodes)
    given = f"tl.where(live, {name(step.slope)}, one), tl.where(live, {rest}, zero), one, zero"
    part.body.append(f"_, _, slope, rest = tl.associative_scan(({given}), 0, joined)")
    part.body.append(f"{value} = slope * {value} + rest")
    return nodes


def _varying(part: Lines, variant: Variant) -> None:
    """The parameters that are read at each step."""
    part.body += [f"{param}_m = tl.load({_row(part, param, 'size')}, mask=live)" for param in varying(variant)]


def _row(part: Lines, sequence: str, stride: str) -> str:
    """The addresses of the rows of a sequence for TIME steps."""
    part.arguments += [name for name in (sequence, stride) if name not in part.arguments]
    return f"{sequence} + m + t * {stride}"


def _last(value: str) -> str:
    """Select a value at the last of the TIME steps."""
    return f"tl.sum(tl.where(last, {value}, zero), axis=0, keep_dims=True)"
