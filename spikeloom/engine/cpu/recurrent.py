"""Neurons whose spikes are fed back through a matrix: one kernel for the forward scan, one for the backward.

With W the weight and b the bias of the recurrent layer, and a cell that charges on a current c,

    c[t] = x[t] + (b + W @ spk[t-1]),    spk[t], states[t] = cell(c[t], states[t-1])

and backwards, with dc[t] the gradient of c[t]: the spikes of step t get W.T @ dc[t+1] added to their own gradient,
dx[t] = dc[t], db = sum of dc, dW = sum over t of the outer product of dc[t] and spk[t-1].

Batch rows are independent, so threads share rows. Up to `recurrent_rows` of them are processed over all time together.
Between two steps, their spikes (in the backward, the gradients of their currents) are multiplied by the recurrent
weights. The step itself is that of `source`, with the product as a term of its input.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import tuning
from ..feedback import LinearMap, Recurrence
from ..feedback import weight_gradient as dense_weight_gradient
from ..graph import Cotangents, Derivation, Gradients, InputGrad, Saved, State, Variant
from ..jit import KernelSource, buffer_pool, lines, rows, spread, sum_to
from ..sparse import csr, importing
from .launch import kernel
from .source import backward_arguments, backward_part, forward_arguments, forward_part

WEIGHTS = dict.fromkeys(("rows", "width", "wide", "panels", "skip", "matrix*", "scratch*"))
FORWARD = WEIGHTS | dict.fromkeys(("bias*", "fed*", "initial_spk*", "current*"))
BACKWARD = WEIGHTS | dict.fromkeys(("dx_stride", "summed*", "back*"))
"""The arguments of a recurrent kernel beyond those of `cpu.source`, which come first.

The layer is rows x width neurons; a row of a packed matrix, of `bias`, `fed` and `back` is wide >= width elements.
"""

BLOCKS = """{uniforms}
    part = (rows + threads - 1) // threads
    low = me * part
    end = min(low + part, rows)
    while low < end:
        count = min({count}, end - low)
        first, block, mine = SIZE * low * width, SIZE * low * wide, scratch + 16 * low * (width + 1)
        for {time}:
{rows}
{work}
        low += count"""

FORWARD_WORK = """            last = spk + SIZE * (t - 1) * size if t > 0 else initial_spk
            for r in range(low, low + count):
                for n in range(wide):
                    store(fed, r * wide + n, load(bias, n))
            product(last + first, width, matrix, panels, fed + block, count, mine, skip)
            for r in range(low, low + count):
                fed_r = fed + SIZE * r * (wide - width)
                for m in range(r * width, (r + 1) * width):
{body}"""

BACKWARD_WORK = """            for r in range(low, low + count):
                back_r = back + SIZE * r * (wide - width)
                for m in range(r * width, (r + 1) * width):
{body}
            for n in range(low * wide, (low + count) * wide):
                store(back, n, R(0))
            product(dx_t + first, width, matrix, panels, back + block, count, mine, skip)"""


def emit_recurrent(derivation: Derivation, variant: Variant, title: str) -> KernelSource:
    """A recurrent scan's kernel, forward or, if the variant has a gradient, backward."""
    count = len(derivation.step.states), len(variant.params)
    if variant.grad:
        part = backward_part(derivation, variant, fed=" + load(back_r, m)")
        arguments, work = backward_arguments(*count) | BACKWARD, BACKWARD_WORK
    else:
        part = forward_part(derivation, variant, fed=" + load(fed_r, m)")
        arguments, work = forward_arguments(*count) | FORWARD, FORWARD_WORK
        if variant.states[-1] == State.SAVED:
            part.rows.append("current_t = current + SIZE * t * size")
            part.body.append("store(current_t, m, x_m)")
    uniforms, rows, source = lines(part.uniforms, 1), lines(part.rows, 3), work.format(body=lines(part.body, 5))
    body = BLOCKS.format(uniforms=uniforms, count=tuning.shapes.recurrent_rows, time=part.time, rows=rows, work=source)
    return KernelSource(title, variant.dtype, arguments, body, importing(variant.dtype, "product"))


def _weights(matrix: Tensor, like: Tensor) -> dict[str, Any]:
    """The arguments of `WEIGHTS` for a layer with such a state."""
    width = matrix.shape[0]
    count, wide, packed = like.numel() // width, csr.whole_panels(width, like), csr.pack_panels(matrix)
    panels = {"wide": wide, "panels": len(packed.panels), "skip": int(packed.finite), "matrix": packed.panels}
    return {"rows": count, "width": width, "scratch": csr.list_scratch(count, width), **panels}


def _widened(values: Tensor, width: int) -> Tensor:
    """[*S] as rows [R, whole panels of width], padded with zeros."""
    flat = values.reshape(-1, width)
    out = flat.new_zeros((len(flat), csr.whole_panels(width, flat)))
    out[:, :width] = flat
    return out


def forward(
    plan: Recurrence, x: Tensor, weight: Tensor, bias: Tensor | None, states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor | None]:
    """Run the scan; see `feedback.Runner`. The full input of a step is the current."""
    shape, variant = x.shape[1:], plan.variant
    x, stride = rows(x)
    spk = buffer_pool.empty((plan.steps, *shape), x)
    first, *final_states = [s.clone(memory_format=torch.contiguous_format) for s in states]
    *traces, current = [buffer_pool.empty(spk.shape, spk) if state == State.SAVED else None for state in variant.states]
    biases = _widened(torch.zeros_like(weight[0]) if bias is None else bias, len(weight))
    kernel(plan.key, variant.forward, emit_recurrent).run(
        steps=plan.steps,
        size=first.numel(),
        x=x,
        x_stride=stride,
        spk=spk,
        state=final_states,
        trace=traces,
        param=[spread(p, kind, shape) for p, kind in zip(params, variant.params, strict=True)],
        bias=biases,
        fed=biases.new_empty((first.numel() // len(weight), biases.shape[1])),
        initial_spk=first,
        current=current,
        **_weights(weight.t(), first),
    )
    return [spk, *final_states, *(trace for trace in traces if trace is not None)], current


def backward(plan: Recurrence, weight: Tensor, saved: Saved, grads: Cotangents) -> Gradients:
    """Run the adjoint scan; see `feedback.Runner`. If the gradient of the input is not required at each step, one
    row of it is stored."""
    variant, (like, *states), params, width = plan.variant, saved.states, saved.params, len(weight)
    zero = torch.zeros_like(like, memory_format=torch.contiguous_format)
    every = plan.weight_learns or plan.x_grad == InputGrad.EACH
    currents = buffer_pool.empty((plan.steps if every else 1, *like.shape), like)
    summed, back = zero.clone(), _widened(zero, width)
    carries = [
        zero.clone() if g is None else g.clone(memory_format=torch.contiguous_format) for g in grads.final_states[1:]
    ]
    totals = [zero.clone() if kind.learned else None for kind in variant.params]
    given, stride = (zero, 0) if saved.x is None else rows(saved.x)
    cotangents = [(zero, 0) if g is None else rows(g) for g in (grads.spk, *grads.traces)]
    kernel(plan.key, variant, emit_recurrent).run(
        steps=plan.steps,
        size=like.numel(),
        x=given,
        x_stride=stride,
        dx=currents,
        dx_stride=like.numel() if every else 0,
        grad=[row for row, _ in cotangents],
        grad_stride=[stride for _, stride in cotangents],
        initial=[state.contiguous() for state in states],
        trace=saved.traces,
        carry=carries,
        param=[spread(p, kind, like.shape) for p, kind in zip(params, variant.params, strict=True)],
        total=totals,
        summed=summed,
        back=back,
        **_weights(weight, like),
    )
    to_spk = back[:, :width].reshape(like.shape)
    sums = [None if t is None else sum_to(t, p) for t, p in zip(totals, params, strict=True)]
    return Gradients(currents, [to_spk, *carries], sums, summed)


def weight_gradient(map: LinearMap, weight: Tensor, first: Tensor, spk: Tensor, g: Gradients) -> Tensor:
    """As `feedback.weight_gradient`, from the nonzero spikes."""
    assert g.x is not None
    assert g.summed is not None
    if not len(spk) or not csr.finite(g.summed):
        return dense_weight_gradient(map, weight, first, spk, g)
    width, parts = spk.shape[-1], [(first.unsqueeze(0), g.x[:1]), (spk[:-1], g.x[1:])]
    pairs = [(b.reshape(-1, width).contiguous(), a.reshape(-1, width)) for b, a in parts if len(a)]
    return csr.outer(*((csr.listed(before), after) for before, after in pairs))[0]
