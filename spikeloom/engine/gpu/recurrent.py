"""The recurrent scan on a GPU: one kernel forward and one backward. `cpu/recurrent.py` has the equations.

A program of the grid processes BLOCK batch rows over all time. Rows are independent, so no program waits for another.
Between two steps it multiplies the result of the previous step (spikes or, in the backward, gradients of the currents)
by the matrix, tile by tile. The code of the step itself is the same as in the other kernels. The states of a row and
the matrix are small enough to stay in the cache.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .. import tuning
from ..feedback import Recurrence
from ..graph import Cotangents, Derivation, Gradients, Param, Saved, State, Variant, needed, structure_of
from ..jit import TritonKernel, lines, rows, sum_to
from .launch import named, params_by_name, run
from .step_source import Lines, TritonNames, helpers, integers

SOURCE = '''"""{title}"""
import triton
import triton.language as tl

{helpers}
@triton.jit(do_not_specialize={integers})
def kernel({arguments}, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
{before}
    for t in range(steps):
        for low in range(0, width, {tile}):
            n = low + tl.arange(0, {tile})[None, :]
            m = row * width + n
            inside = (row < rows) & (n < width)
            left = tl.where(inside, steps, 0)
            fed = tl.zeros([BLOCK, {tile}], {dtype})
            for first in range(0, {reach}, {tile}):
                deep = first + tl.arange(0, {tile})
                across, down = deep[None, :], deep[:, None]
                earlier = tl.load(last + row * width + across, mask=(row < rows) & (across < width), other=0.0)
                weight = tl.load(matrix + down * width + n, mask=(down < width) & (n < width), other=0.0)
                fed = tl.dot(earlier, weight, fed, input_precision="ieee", out_dtype={dtype})
{body}
        tl.debug_barrier()
{moves}
'''


@dataclass
class Tile(Lines):
    """A kernel whose body processes one tile of elements; pointers are advanced between two steps."""

    arguments: list[str] = field(default_factory=lambda: ["steps", "size", "rows", "width", "matrix", "last"])
    element: str = "0"  # the offset of a tile is added to a pointer at each access

    def constants(self, variant: Variant) -> None:
        """Load the parameters: one number each, or one per element."""
        for k, kind in enumerate(variant.params):
            self.arguments.append(f"param{k}")
            if kind.fixed == Param.NUMBER:
                self.before.append(f"param{k}_m = tl.load(param{k})")
            else:
                self.read(f"param{k}_m", f"param{k}")

    def read(self, name: str, place: str) -> None:
        """Load the value of an element at an address."""
        self.body.append(f"{name} = tl.load({place} + m, mask=inside)")

    def write(self, place: str, value: str) -> None:
        """Store the value of an element."""
        self.body.append(f"tl.store({place} + m, {value}, mask=inside)")


def emit_triton_recurrent(derivation: Derivation, variant: Variant, title: str) -> str:
    """The source of a module with `kernel`, forward or, if the variant has a gradient, backward."""
    part = (_backward_tile if variant.grad else _forward_tile)(derivation, variant)
    return SOURCE.format(
        title=title,
        helpers=helpers(part.body, variant),
        integers=integers(part.arguments),
        arguments=", ".join(part.arguments),
        before=lines(part.before, 1),
        body=lines(part.body, 3),
        moves=lines(part.moves, 2),
        reach="width * (t > 0)" if variant.grad else "width",  # the last step has no feedback gradient
        tile=tuning.triton_shapes.tile,
        dtype=f"tl.{variant.computed}",
    )


def _forward_tile(derivation: Derivation, variant: Variant) -> Tile:
    name, part = TritonNames(derivation, variant, recalled=False), Tile()
    spk, *new = derivation.forward
    part.constants(variant)
    part.arguments.append("bias")
    part.read("x_m", part.pointer("x", "x_stride", backwards=False))
    part.body.append(f"x_m = x_m.to({name.dtype}) + (fed + tl.load(bias + n, mask=n < width))")
    for k in range(len(new)):
        part.arguments.append(f"final{k}")
        part.read(f"state{k}_m", f"final{k}")
    part.body += name.assign(needed(derivation.forward, frozenset(derivation.hoisted)))
    for k, value in enumerate(new):
        part.write(f"final{k}", name(value))
        if variant.states[k] == State.SAVED:
            part.write(part.pointer(f"trace{k}", "size", backwards=False), name(value))
    if variant.states[-1] == State.SAVED:
        part.write(part.pointer("current", "size", backwards=False), "x_m")
    part.moves.append("last = spk_t")
    part.write(part.pointer("spk", "size", backwards=False), name(spk))
    return part


def _backward_tile(derivation: Derivation, variant: Variant) -> Tile:
    step = derivation.step
    name, part = TritonNames(derivation, variant, recalled=True), Tile()
    (dx,), carries, totals = derivation.gradients
    nodes = derivation.backward_nodes(variant.params, variant.grad)
    part.constants(variant)
    if step.inputs[0] in nodes:
        part.read("x_m", part.pointer("current", "size", backwards=True))
    for k, (old, new) in enumerate(zip(step.states, step.new_states, strict=True)):
        if old in nodes or (new in nodes and new not in frozenset(step.states)):
            place = part.pointer(f"trace{k}", "size", backwards=True)
            part.read(f"new{k}_m", place)
        if old in nodes:
            part.arguments.append(f"initial{k}")
            part.read(f"initial{k}_m", f"initial{k}")
            part.body.append(f"state{k}_m = tl.load({place} - size + m, mask=t + 1 < left, other=initial{k}_m)")
    for k, g in enumerate(derivation.cotangents):
        if k:
            part.arguments.append(f"carry{k - 1}")
        if g in nodes:
            part.read(f"grad{k}_m", part.pointer(f"grad{k}", f"grad{k}_stride", backwards=True))
            part.body.append(f"grad{k}_m += " + (f"tl.load(carry{k - 1} + m, mask=inside)" if k else "fed"))
    part.body += name.assign(nodes)
    for k, g_old in enumerate(carries):
        part.write(f"carry{k}", name(g_old))
    for k, (total, kind) in enumerate(zip(totals, variant.params, strict=True)):
        if kind.learned and total is not None:
            part.arguments.append(f"total{k}")
            part.write(f"total{k}", f"tl.load(total{k} + m, mask=inside) + {name(total)}")
    part.moves.append("last = dx_t")
    part.write(part.pointer("dx", "size", backwards=True), name(dx))
    return part


def refusals(spk: Tensor) -> Iterator[str]:
    """The reason why the kernel does not support a layer with spikes of this shape, [*S]; empty if it does."""
    width, most = spk.shape[-1], tuning.limits.gpu_recurrent_most
    if width > most:
        yield f"the recurrent kernel takes up to {most} neurons, whose weights stay in the cache, got {width}"


@cache
def _kernel(key: str, variant: Variant) -> TritonKernel:
    title = f"A scan of a recurrent neuron: {variant}."
    return TritonKernel(
        emit_triton_recurrent(structure_of(key).derivation, variant, title), tuning.triton_shapes.recurrent_rows
    )


def forward(
    plan: Recurrence, x: Tensor, weight: Tensor, bias: Tensor | None, states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor | None]:
    """Run the scan; see `feedback.Runner`. The full input of a step is the current."""
    first, variant, shape = states[0].contiguous(), plan.variant, states[0].shape
    x, stride = rows(x)
    spk = first.new_empty((plan.steps, *shape))
    final_states = [s.clone(memory_format=torch.contiguous_format) for s in states[1:]]
    *traces, current = [torch.empty_like(spk) if state == State.SAVED else None for state in variant.states]
    given = _sizes(plan, weight.t().contiguous(), first) | {"x": x, "x_stride": stride, "spk": spk, "current": current}
    given |= {"last": first, "bias": torch.zeros_like(weight[0]) if bias is None else bias.contiguous()}
    given |= named("final", final_states) | named("trace", traces) | params_by_name(params, variant, first, shape)
    run(_kernel(plan.key, variant.forward), given, first, given["rows"])
    return [spk, *final_states, *(trace for trace in traces if trace is not None)], current


def backward(plan: Recurrence, weight: Tensor, saved: Saved, grads: Cotangents) -> Gradients:
    """Run the adjoint scan; see `feedback.Runner`."""
    variant, (like, *states), params = plan.variant, saved.states, saved.params
    zero = torch.zeros_like(like, memory_format=torch.contiguous_format)
    carries = [
        zero.clone() if g is None else g.clone(memory_format=torch.contiguous_format) for g in grads.final_states[1:]
    ]
    totals = [zero.clone() if kind.learned else None for kind in variant.params]
    dx = like.new_empty((plan.steps, *like.shape))
    given = _sizes(plan, weight.contiguous(), like) | {"dx": dx, "current": saved.x, "last": zero}
    given |= named("initial", [s.contiguous() for s in states]) | named("trace", saved.traces)
    given |= named("carry", carries) | named("total", totals) | params_by_name(params, variant, like, like.shape)
    for name, sequence in named("grad", (grads.spk, *grads.traces)).items():
        given[name], given[f"{name}_stride"] = (zero, 0) if sequence is None else rows(sequence)
    run(_kernel(plan.key, variant), given, like, given["rows"])
    sums = [None if total is None else sum_to(total, p) for total, p in zip(totals, params, strict=True)]
    back = dx[0] @ weight if plan.steps else zero
    return Gradients(dx, [back, *carries], sums)


def _sizes(plan: Recurrence, matrix: Tensor, like: Tensor) -> dict[str, Any]:
    """The first arguments of both kernels, without the feedback into the first step."""
    size, width = like.numel(), len(matrix)
    return {"steps": plan.steps, "size": size, "rows": size // width, "width": width, "matrix": matrix}
