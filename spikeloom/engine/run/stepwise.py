"""A scan with a product between two steps, as a loop over time: the product by torch, and one kernel for the rest.

Here the membrane comes back through a linear map. `run/recurrent.py` makes the scan differentiable.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..cpu import launch
from ..feedback import Recurrence
from ..gpu import launch as gpu_launch
from ..graph import Gradients, InputGrad, State, Target, Variant
from ..jit import buffer_pool, rows, sum_to


def forward(
    plan: Recurrence,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
) -> tuple[list[Tensor], Tensor | None]:
    """Run the scan; see `recurrent.Runner`."""
    assert plan.map is not None
    olds = tuple(state.contiguous() for state in states[1:])
    mem, T, saved = olds[-1], plan.steps, plan.variant.states[0] == State.SAVED
    length = T if saved else min(T, 2)  # of two rows the states go from the one to the other
    spk, full = buffer_pool.empty((T, *mem.shape), mem), buffer_pool.empty((length, *x.shape[1:]), x)
    traces = [buffer_pool.empty((length, *mem.shape), mem) for _ in olds]
    inputs, every = full.unbind(), [*zip(*(trace.unbind() for trace in traces), strict=True)]
    step = _one_step(plan, InputGrad.FORWARD, mem, params)
    for t, (x_t, spk_t) in enumerate(zip(x.expand(T, *x.shape[1:]).unbind(), spk.unbind(), strict=True)):
        at, news = inputs[t % length], every[t % length]
        torch.add(x_t, plan.map.of(weight, olds[-1]), out=at)
        step.forward(at, spk_t, olds, news)
        olds = news
    finals = [state.clone() for state in olds]
    return [spk, *finals, *(traces if saved else ())], full


def backward(
    plan: Recurrence,
    weight: Tensor,
    full: Tensor,
    states: Sequence[Tensor],
    traces: Sequence[Tensor],
    params: Sequence[Tensor],
    pulls: Sequence[Tensor | None],
    finals: Sequence[Tensor | None],
) -> Gradients:
    """Run the adjoint scan; see `recurrent.Runner`."""
    assert plan.map is not None
    like, T = states[0], plan.steps
    zero = like.new_zeros(like.shape)
    pulled = [(zero if g is None else rows(g)[0]).expand(T, *like.shape).unbind() for g in pulls]
    carries = [zero.clone() if g is None else g.clone(memory_format=torch.contiguous_format) for g in finals]
    totals = [zero.clone() if kind.learned else None for kind in plan.variant.params]
    every = [tuple(s.contiguous() for s in states[1:]), *zip(*(trace.unbind() for trace in traces), strict=True)]
    dx = buffer_pool.empty(full.shape, full)
    step = _one_step(plan, InputGrad.EACH, like, params)
    inputs, results = full.unbind(), dx.unbind()
    for t in reversed(range(T)):
        step.backward(inputs[t], results[t], every[t], every[t + 1], carries, [g[t] for g in pulled], totals)
        plan.map.add_mem_gradient(weight, results[t], carries[-1])
    sums = [None if total is None else sum_to(total, p) for total, p in zip(totals, params, strict=True)]
    return Gradients(dx, [carries[-1], *carries], sums)


def _one_step(plan: Recurrence, grad: InputGrad, mem: Tensor, params: Sequence[Tensor]) -> Any:
    """The kernel of a step, forward or backward."""
    assert plan.map is not None
    states, scan = (State.DROPPED,) * (len(plan.variant.states) - 1), plan.variant
    params_of = scan.params if grad else scan.forward.params
    variant = Variant.of(scan.dtype, params_of, states, grad, scan.target, single=not grad)
    backend: ModuleType = launch if variant.target == Target.NUMBA else gpu_launch
    return backend.OneStep(plan.key, variant, mem, params, mem.shape[plan.map.axis :].numel())
