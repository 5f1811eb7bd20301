"""The scan of a recurrent layer as a loop over time: each step is one product by torch and one kernel."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..cpu import launch
from ..feedback import Recurrence, as_rows
from ..gpu import launch as gpu_launch
from ..graph import Cotangents, Gradients, InputGrad, Saved, State, Target, Variant
from ..jit import buffer_pool, rows, sum_to


def forward(
    plan: Recurrence, x: Tensor, weight: Tensor, bias: Tensor | None, states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor | None]:
    """Run the scan; see `feedback.Runner`."""
    back, *olds = (state.contiguous() for state in states)
    like, T = olds[-1], plan.steps
    lengths = [T if state == State.SAVED else min(T, 2) for state in plan.variant.states]  # of two rows, one is read
    spk = buffer_pool.empty((T, *like.shape), like)
    *traces, full = [
        buffer_pool.empty((n, *shape), like)
        for n, shape in zip(lengths, [like.shape] * len(olds) + [x.shape[1:]], strict=True)
    ]
    inputs, every = full.unbind(), [trace.unbind() for trace in traces]
    step = _one_step(plan, InputGrad.FORWARD, like, params)
    for t, (x_t, spk_t) in enumerate(zip(x.expand(T, *x.shape[1:]).unbind(), spk.unbind(), strict=True)):
        at, news = inputs[t % len(inputs)], [row[t % len(row)] for row in every]
        fed = linear(back, weight, bias) if plan.map is None else plan.map.of(weight, back)
        torch.add(x_t, fed, out=at)
        step.forward(at, spk_t, olds, news)
        olds, back = news, spk_t if plan.map is None else news[-1]
    *saved, saves_full = (state == State.SAVED for state in plan.variant.states)
    requested = [trace for trace, wanted in zip(traces, saved, strict=True) if wanted]
    return [spk, *(state.clone() for state in olds), *requested], full if saves_full else None


def backward(plan: Recurrence, weight: Tensor, saved: Saved, grads: Cotangents) -> Gradients:
    """Run the adjoint scan; see `feedback.Runner`."""
    (like, *states), T = saved.states, plan.steps
    zero = like.new_zeros(like.shape)
    zeros = zero.expand(T, *like.shape)
    cotangents = [(zeros if g is None else rows(g)[0].expand(zeros.shape)).unbind() for g in (grads.spk, *grads.traces)]
    back, *carries = [
        zero.clone() if g is None else g.clone(memory_format=torch.contiguous_format) for g in grads.final_states
    ]
    totals = [zero.clone() if kind.learned else None for kind in plan.variant.params]
    sequences = [zeros if trace is None else trace for trace in saved.traces]  # states that are not saved are not read
    every = [[state.contiguous() for state in states], *zip(*(s.unbind() for s in sequences), strict=True)]
    full = zeros if saved.x is None else saved.x
    dx = buffer_pool.empty((T, *full.shape[1:]), like)
    step = _one_step(plan, InputGrad.EACH, like, saved.params)
    inputs, results = full.unbind(), dx.unbind()
    for t in reversed(range(T)):
        own = [g[t] for g in cotangents]
        if plan.map is None:
            own[0] = back.add_(own[0])
        step.backward(inputs[t], results[t], every[t], every[t + 1], carries, own, totals)
        if plan.map is None:
            torch.mm(as_rows(results[t]), weight, out=as_rows(back))
        else:
            plan.map.add_mem_gradient(weight, results[t], carries[-1])
    sums = [None if total is None else sum_to(total, p) for total, p in zip(totals, saved.params, strict=True)]
    return Gradients(dx, [back if plan.map is None else carries[-1], *carries], sums)


def _one_step(plan: Recurrence, grad: InputGrad, like: Tensor, params: Sequence[Tensor]) -> Any:
    """The kernel of one step, forward or backward."""
    states, scan = (State.DROPPED,) * (len(plan.variant.states) - 1), plan.variant
    kinds = scan.params if grad else scan.forward.params
    variant = Variant.of(scan.dtype, kinds, states, grad, scan.target, single=not grad)
    backend: ModuleType = launch if variant.target == Target.NUMBA else gpu_launch
    width = like.shape[plan.map.axis :].numel() if plan.map else 0
    return backend.OneStep(plan.key, variant, like, params, width)
