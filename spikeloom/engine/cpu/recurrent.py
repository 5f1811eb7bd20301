"""Neurons whose spikes come back through a matrix: the whole scan in one kernel forward, one backward.

With W the weight and b the bias of the recurrent layer, and a cell that charges on a current c,

    c[t] = x[t] + (b + W @ spk[t-1]),    spk[t], states[t] = cell(c[t], states[t-1])

and backwards, with dc[t] the gradient of c[t]: the spikes of step t get W.T @ dc[t+1] besides their own gradient,
dx[t] = dc[t], db = sum of dc, dW = sum over t of the outer product of dc[t] and spk[t-1].

Batch rows do not know of each other, so threads take rows. Up to `ROWS` of them go through all time together; between
two steps their spikes, or in the backward the gradients of their currents, are multiplied by the recurrent weights. The
step itself is that of `source`, with the product as a part of its input.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..feedback import Feedback
from ..graph import Derivation, Variant
from ..jit import ROWS, address, buffer_pool, lines, module_source, rows, spread, sum_to
from ..saved_tensors import saved_by
from ..sparse import csr, importing
from .launch import kernel
from .source import backward_part, backward_words, forward_part, forward_words

WEIGHTS = ["rows", "width", "wide", "panels", "skip", "matrix", "room"]
FORWARD = [*WEIGHTS, "bias", "fed", "initial_spk", "current"]
BACKWARD = [*WEIGHTS, "dx_stride", "summed", "back"]
"""The arguments of a recurrent kernel beyond those of `cpu.source`, which come first.

The layer is rows x width neurons; a row of a packed matrix, of `bias`, `fed` and `back` is wide >= width elements.
"""

BLOCKS = """{uniforms}
    part = (rows + threads - 1) // threads
    low = me * part
    end = min(low + part, rows)
    while low < end:
        count = min({count}, end - low)
        first, block, mine = SIZE * low * width, SIZE * low * wide, room + 16 * low * (width + 1)
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


def emit_recurrent(derivation: Derivation, variant: Variant, title: str, team: bool, cached: bool) -> str:
    """The source of a recurrent scan's kernel, forward or, if the variant has a gradient, backward."""
    count = len(derivation.trace.states), len(variant.params)
    if variant.grad:
        part = backward_part(derivation, variant, fed=" + load(back_r, m)")
        words, work = [*backward_words(*count), *BACKWARD], BACKWARD_WORK
    else:
        part = forward_part(derivation, variant, fed=" + load(fed_r, m)")
        words, work = [*forward_words(*count), *FORWARD], FORWARD_WORK
        if variant.traced[-1] == "1":
            part.rows.append("current_t = current + SIZE * t * size")
            part.body.append("store(current_t, m, x_m)")
    uniforms, rows, source = lines(part.uniforms, 1), lines(part.rows, 3), work.format(body=lines(part.body, 5))
    body = BLOCKS.format(uniforms=uniforms, count=ROWS, time=part.time, rows=rows, work=source)
    return module_source(title, variant.dtype, words, body, team, cached, importing(variant.dtype, "product"))


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def refusals(feedback: Feedback, x: Tensor) -> list[str]:
    """Why the scan cannot do what the recurrent layer does to the spikes, in sentences; x is [*, *S]."""
    layer = feedback.layer
    if type(layer) is not nn.Linear:
        return [f"the recurrent layer is {type(layer).__name__}, not nn.Linear: the steps are fused one by one"]
    why = []
    if "forward" in vars(layer) or any(getattr(layer, name) for name in HOOKS):
        why.append("the recurrent layer has hooks or a forward of its own, which are called at every step")
    if type(layer.weight) is not nn.Parameter or (layer.weight.dtype, layer.weight.device) != (x.dtype, x.device):
        told = f"{layer.weight.dtype} on {layer.weight.device}"
        why.append(f"the recurrent weight is {told}, the state {x.dtype} on {x.device}")
    if layer.weight.shape != (x.shape[-1],) * 2:
        why.append(f"the recurrent weight is of shape {tuple(layer.weight.shape)}, for {x.shape[-1]} neurons")
    if torch.is_autocast_enabled("cuda" if x.is_cuda else "cpu"):
        why.append("autocast is on, and lowers the precision of the recurrent layer")
    return why


@dataclass(frozen=True)
class Plan:
    """What a scan is besides its tensors.

    Args:
        key: of the program.
        variant: of the kernel; its states are those of the program, and one digit more says whether the current at
            every step is kept, which the backward of some equations reads.
        layer: how messages name the neuron.
        steps: T.
        x_grad: the gradient of the input: "each" step, "sum" over time (a static input) or "none".
        weight_learns: whether the weight's gradient is wanted.
    """

    key: str
    variant: Variant
    layer: str
    steps: int
    x_grad: str
    weight_learns: bool


Outs = tuple[Tensor, list[Tensor], list[Tensor]]
"""Spikes [T, *S]; the last states [*S], the first of them spikes; the other states after every step, those kept."""


def scan(plan: Plan, x: Tensor, layer: nn.Linear, states: Sequence[Tensor], params: Sequence[Tensor]) -> Outs:
    """Run the program over time, fed back through the layer.

    Args:
        x: input, [T, *S], or [1, *S] if it is the same at every step.
        states: before the first step, [*S]; the first is the last spikes, the others are the program's.
        params: the program's hoisted values.
    """
    if not plan.variant.grad:
        return _forward(plan, x, layer.weight, layer.bias, states, params)[:3]
    n = len(states)
    spk, *rest = _Recurrent.apply(plan, n, x, layer.weight, layer.bias, *states, *params)
    return spk, rest[:n], rest[n:]


class _Recurrent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: Plan, count: int, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        states, params = rest[:count], rest[count:]
        spk, finals, traces, current = _forward(plan, x, weight, bias, states, params)
        ctx.plan, ctx.layer, ctx.count = plan, plan.layer, count
        ctx.save_for_backward(weight, spk if plan.weight_learns else None, current, *states, *traces, *params)
        ctx.set_materialize_grads(False)
        return spk, *finals, *traces

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, n = ctx.plan, ctx.count
        weight, spk, current, *saved = saved_by(ctx, *grads)
        states, left = saved[:n], iter(saved[n:])
        traces = placed(plan, left)
        g = _backward(plan, weight, current, states, traces, list(left), grads)
        dx = {"each": g.currents, "sum": g.summed.unsqueeze(0), "none": None}[plan.x_grad]
        dweight = _weight_gradient(g, spk, states[0]) if plan.weight_learns else None
        dbias = sum_to(g.summed, weight[0]) if ctx.needs_input_grad[4] else None
        return (None, None, dx, dweight, dbias, *g.states, *g.params)


def placed(plan: Plan, kept: Iterator[Any]) -> list[Any]:
    """What there is for some states of the program, as a list over all of them."""
    return [next(kept) if digit == "1" else None for digit in plan.variant.traced[:-1]]


def _weights(matrix: Tensor, like: Tensor) -> tuple[list[int], list[Tensor]]:
    """The words of `emit_recurrent.WEIGHTS` for a layer of that state, and what must outlive the kernel."""
    width = matrix.shape[0]
    count, wide, packed = like.numel() // width, csr.whole_panels(width, like), csr.packed(matrix)
    room = csr.list_scratch(count, width)
    words = [count, width, wide, len(packed.panels), packed.finite, packed.panels.data_ptr(), room.data_ptr()]
    return words, [packed.panels, room]


def _widened(values: Tensor, width: int) -> Tensor:
    """[*S] as rows [R, whole panels of width], filled up with zeros."""
    flat = values.reshape(-1, width)
    out = flat.new_zeros((len(flat), csr.whole_panels(width, flat)))
    out[:, :width] = flat
    return out


def _forward(
    plan: Plan, x: Tensor, weight: Tensor, bias: Tensor | None, states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor | None]:
    """The results of the scan, and the current at every step, [T, *S], if it is kept."""
    shape, variant = x.shape[1:], plan.variant
    x, stride = rows(x)
    spk = buffer_pool.empty((plan.steps, *shape), x)
    first, *finals = [s.clone(memory_format=torch.contiguous_format) for s in states]
    *traces, current = [buffer_pool.empty(spk.shape, spk) if digit == "1" else None for digit in variant.traced]
    inputs = [spread(p, kind, shape) for p, kind in zip(params, variant.params, strict=True)]
    weights, held = _weights(weight.t(), first)
    biases = _widened(torch.zeros_like(weight[0]) if bias is None else bias, len(weight))
    fed = biases.new_empty((first.numel() // len(weight), biases.shape[1]))
    words = [plan.steps, first.numel(), 0, x.data_ptr(), stride, spk.data_ptr()]
    for final, trace in zip(finals, traces, strict=True):
        words += (final.data_ptr(), address(trace))
    words += [p.data_ptr() for p in inputs]
    words += (*weights, biases.data_ptr(), fed.data_ptr(), first.data_ptr(), address(current))
    kernel(plan.key, variant.forward, emit_recurrent).run(words)
    del held
    last = spk[-1].clone() if plan.steps else first
    return spk, [last, *finals], [trace for trace in traces if trace is not None], current


@dataclass(frozen=True)
class _Gradients:
    """Of the currents, [T, *S], or [1, *S] with what was left of the last where no sequence is wanted; their sum over
    time; of the initial states; of the parameters, None where not wanted."""

    currents: Tensor
    summed: Tensor
    states: list[Tensor]
    params: list[Tensor | None]


def _backward(
    plan: Plan,
    weight: Tensor,
    current: Tensor | None,
    states: Sequence[Tensor],
    traces: Sequence[Tensor | None],
    params: Sequence[Tensor],
    grads: Sequence[Tensor | None],
) -> _Gradients:
    """The adjoint scan; `grads` are of the outputs of `_Recurrent`, None where zero."""
    variant, like, width, n = plan.variant, states[0], len(weight), len(states)
    zero = torch.zeros_like(like, memory_format=torch.contiguous_format)
    weights, held = _weights(weight, like)

    def read(sequence: Tensor | None) -> list[int]:
        row, stride = rows(sequence) if sequence is not None else (zero, 0)
        held.append(row)
        return [row.data_ptr(), stride]

    grad_spk, grad_last, *grad_finals = grads[: 1 + n]
    grad_traces = placed(plan, iter(grads[1 + n :]))
    every = plan.weight_learns or plan.x_grad == "each"
    currents = buffer_pool.empty((plan.steps if every else 1, *like.shape), like)
    summed, back = zero.clone(), _widened(zero if grad_last is None else grad_last, width)
    carries = [zero.clone() if g is None else g.clone(memory_format=torch.contiguous_format) for g in grad_finals]
    totals = [zero.clone() if kind.isupper() else None for kind in variant.params]
    words = [plan.steps, like.numel(), 0, *read(current), currents.data_ptr(), *read(grad_spk)]
    for initial, trace, carry in zip(states[1:], traces, carries, strict=True):
        held.append(initial.contiguous())
        words += (held[-1].data_ptr(), address(trace), carry.data_ptr())
    for g in grad_traces:
        words += read(g)
    for p, kind, total in zip(params, variant.params, totals, strict=True):
        held.append(spread(p, kind, like.shape))
        words += (held[-1].data_ptr(), address(total))
    words += (*weights, like.numel() if every else 0, summed.data_ptr(), back.data_ptr())
    kernel(plan.key, variant, emit_recurrent).run(words)
    to_spk = back[:, :width].reshape(like.shape)
    sums = [None if t is None else sum_to(t, p) for t, p in zip(totals, params, strict=True)]
    return _Gradients(currents, summed, [to_spk, *carries], sums)


def _weight_gradient(g: _Gradients, spk: Tensor, first: Tensor) -> Tensor:
    """The sum over time of the outer products of the gradient of a current and the spikes that made it."""
    width = spk.shape[-1]
    parts = [(first.unsqueeze(0), g.currents[:1]), (spk[:-1], g.currents[1:])]
    pairs = [(before.reshape(-1, width).contiguous(), after.reshape(-1, width)) for before, after in parts]
    if not csr.finite(g.summed):
        return torch.stack([after.t() @ before for before, after in pairs]).sum(0)
    return csr.outer(*((csr.listed(before), after) for before, after in pairs))[0]
