"""The recurrent scan on a GPU: one kernel forward and one backward, the twin of `recurrent`."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..cpu.recurrent import Outs, Plan, placed
from ..graph.program import program_of
from ..graph.variant import Gradients, Variant
from ..jit.layout import rows, sum_to
from ..jit.triton_jit import Launch
from ..saved_tensors import saved_by
from . import cuda_graphs
from .launch import named, params_by_name, run
from .recurrent_source import emit_triton_recurrent

ROWS = 16
"""Of the batch, for each program of the grid: the fewest that a product of tiles takes."""

WIDEST = 1024
"""So many neurons at most: a program reads all of the matrix at every step, 4 MB then. Where the limit should be has
not been measured."""


def refusals(spk: Tensor) -> list[str]:
    """Why the kernel does not take a layer of such spikes, [*S]."""
    if (width := spk.shape[-1]) <= WIDEST:
        return []
    return [f"the recurrent kernel takes up to {WIDEST} neurons, whose weights stay in the cache, got {width}"]


@cache
def _kernel(key: str, code: str) -> Launch:
    title = f"A scan of a recurrent neuron, {code}."
    return Launch(emit_triton_recurrent(program_of(key).derivation, Variant.parse(code), title), ROWS)


def scan(
    plan: Plan, x: Tensor, layer: nn.Linear, states: Sequence[Tensor], params: Sequence[Tensor], recorded: bool = False
) -> Outs:
    """Run the program over time, fed back through the layer; see `recurrent.scan`.

    Args:
        recorded: whether by steps that are recorded and replayed, instead of by one kernel.
    """
    count, forward = len(states) - 1, cuda_graphs.forward if recorded else _forward
    if plan.variant.grad:
        spk, *rest = _Recurrent.apply(plan, count, recorded, x, layer.weight, layer.bias, *states, *params)
    else:
        spk, *rest = forward(plan, x, layer.weight, layer.bias, states, params)[0]
    return spk, [spk[-1].clone() if plan.steps else states[0], *rest[:count]], rest[count:]


class _Recurrent(torch.autograd.Function):
    """Spikes, then the last states of the program, then those of every step that are kept."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        count: int,
        recorded: bool,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        states, params = rest[: count + 1], rest[count + 1 :]
        outs, current = (cuda_graphs.forward if recorded else _forward)(plan, x, weight, bias, states, params)
        ctx.plan, ctx.layer, ctx.count, ctx.dtype, ctx.recorded = plan, plan.layer, count, x.dtype, recorded
        spk, traces = outs[0], outs[1 + count :]
        ctx.save_for_backward(weight, spk if plan.weight_learns else None, current, *states, *traces, *params)
        ctx.set_materialize_grads(False)
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, n = ctx.plan, ctx.count
        weight, spk, current, first, *saved = saved_by(ctx, *grads)
        states, left = saved[:n], iter(saved[n:])
        traces = placed(plan, left)
        pulls, finals = [grads[0], *placed(plan, iter(grads[1 + n :]))], grads[1 : 1 + n]
        run = cuda_graphs.backward if ctx.recorded else _backward
        g = run(plan, weight, current, states, traces, list(left), pulls, finals)
        assert g.x is not None
        dx = {"each": g.x, "sum": g.x.sum(0, keepdim=True), "none": None}[plan.x_grad]
        dx = None if dx is None else dx.to(ctx.dtype)
        flat, dweight = g.x.reshape(-1, len(weight)), None
        if plan.weight_learns:
            before = torch.cat((first.unsqueeze(0), spk))[: plan.steps].reshape(-1, len(weight))
            dweight = flat.t() @ before
        dbias = flat.sum(0) if ctx.needs_input_grad[5] else None
        return (None, None, None, dx, dweight, dbias, *g.states, *g.params)


def _forward(
    plan: Plan, x: Tensor, weight: Tensor, bias: Tensor | None, states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor | None]:
    """The results, as `_Recurrent` has them, and the current at every step, [T, *S], if it is kept."""
    first, variant, shape = states[0].contiguous(), plan.variant, states[0].shape
    x, stride = rows(x)
    spk = first.new_empty((plan.steps, *shape))
    finals = [s.clone(memory_format=torch.contiguous_format) for s in states[1:]]
    *traces, current = [torch.empty_like(spk) if digit == "1" else None for digit in variant.traced]
    given = _sizes(plan, weight.t().contiguous(), first) | {"x": x, "x_stride": stride, "spk": spk, "current": current}
    given |= {"last": first, "bias": torch.zeros_like(weight[0]) if bias is None else bias.contiguous()}
    given |= named("final", finals) | named("trace", traces) | params_by_name(params, variant, first, shape)
    run(_kernel(plan.key, variant.forward.code), given, first, given["rows"])
    return [spk, *finals, *(trace for trace in traces if trace is not None)], current


def _backward(
    plan: Plan,
    weight: Tensor,
    current: Tensor | None,
    states: Sequence[Tensor],
    traces: Sequence[Tensor | None],
    params: Sequence[Tensor],
    pulls: Sequence[Tensor | None],
    finals: Sequence[Tensor | None],
) -> Gradients:
    """The adjoint scan, from the gradients of the spikes and of the states of every step, and of the last states.

    It returns the gradients of the currents as that of the input, and that of the first spikes before those of the
    states."""
    variant, like = plan.variant, states[0]
    zero = torch.zeros_like(like, memory_format=torch.contiguous_format)
    carries = [zero.clone() if g is None else g.clone(memory_format=torch.contiguous_format) for g in finals]
    totals = [zero.clone() if kind.isupper() else None for kind in variant.params]
    dx = like.new_empty((plan.steps, *like.shape))
    given = _sizes(plan, weight.contiguous(), like) | {"dx": dx, "current": current, "last": zero}
    given |= named("initial", [s.contiguous() for s in states]) | named("trace", traces) | named("carry", carries)
    given |= named("total", totals) | params_by_name(params, variant, like, like.shape)
    for name, sequence in named("grad", pulls).items():
        given[name], given[f"{name}_stride"] = (zero, 0) if sequence is None else rows(sequence)
    run(_kernel(plan.key, variant.code), given, like, given["rows"])
    sums = [None if total is None else sum_to(total, p) for total, p in zip(totals, params, strict=True)]
    back = dx[0] @ weight if plan.steps else zero
    return Gradients(dx, [back, *carries], sums)


def _sizes(plan: Plan, matrix: Tensor, like: Tensor) -> dict[str, Any]:
    """The arguments that both kernels begin with, but for what the first step takes from the one before."""
    size, width = like.numel(), len(matrix)
    return {"steps": plan.steps, "size": size, "rows": size // width, "width": width, "matrix": matrix}
