"""The differentiable scan of a neuron whose spikes or membrane are fed back into its input through weights.

A `Runner` runs one: a kernel for all steps (`cpu/recurrent.py`, `gpu/recurrent.py`), a loop over time (`stepwise.py`),
or the steps of that loop as CUDA graphs (`gpu/cuda_graphs.py`). The gradient of the weight is
one product over all time.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..cpu import recurrent as cpu_recurrent
from ..feedback import Recurrence, Runner, weight_gradient
from ..gpu import CapturedScan
from ..gpu import recurrent as gpu_recurrent
from ..graph import Cotangents, InputGrad, Saved, Target
from ..jit import sum_to
from ..saved_tensors import saved_by
from . import stepwise
from .reference import Trajectory

CAPTURED = CapturedScan(stepwise)


def _runner(plan: Recurrence, recorded: bool) -> Runner:
    if recorded:
        return CAPTURED
    if plan.map is not None:
        return stepwise
    return cpu_recurrent if plan.variant.target == Target.NUMBA else gpu_recurrent


def scan(
    plan: Recurrence,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    recorded: bool = False,
) -> Trajectory:
    """Run a program over time.

    Args:
        plan: the feedback and the kernels.
        x: the inputs, [T, ...], or [1, ...] if they are the same at every step, without the feedback.
        weight, bias: of the layer or the map.
        states: before the first step, [*S]; with feedback of spikes, the first is the previous spikes.
        params: the program's hoisted values.
        recorded: whether steps run as CUDA graphs.
    """
    runner, count = _runner(plan, recorded), len(plan.variant.states) - 1
    if plan.variant.grad:
        spk, *rest = _Scan.apply(plan, runner, x, weight, bias, *states, *params)
    else:
        spk, *rest = runner.forward(plan, x, weight, bias, _with_what_comes_back(plan, states), params)[0]
    final_states, traces = rest[:count], rest[count:]
    if plan.map is None:  # the spikes are a state
        final_states, traces = [(spk[-1] if plan.steps else states[0]).clone(), *final_states], [spk, *traces]
    return Trajectory(spk, tuple(traces), tuple(final_states))


def _with_what_comes_back(plan: Recurrence, states: Sequence[Tensor]) -> Sequence[Tensor]:
    """The states in the form that a `Runner` accepts."""
    return states if plan.map is None else (states[-1], *states)


class _Scan(torch.autograd.Function):
    """The spikes, the last states of the program, and the saved states after every step."""

    @staticmethod
    def forward(
        ctx: Any, plan: Recurrence, runner: Runner, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(plan.variant.states) - 1
        given = count + (plan.map is None)
        states, params = _with_what_comes_back(plan, rest[:given]), rest[given:]
        outs, full = runner.forward(plan, x, weight, bias, states, params)
        spikes = outs[0] if plan.map is None and plan.weight_learns else None
        ctx.plan, ctx.runner, ctx.layer, ctx.dtype = plan, runner, plan.layer, x.dtype
        ctx.save_for_backward(weight, spikes, full, *states, *outs[1 + count :], *params)
        ctx.set_materialize_grads(False)
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, n = ctx.plan, len(ctx.plan.variant.states) - 1
        weight, spikes, full, *saved = saved_by(ctx, *grads)
        states, left = saved[: 1 + n], iter(saved[1 + n :])
        traces = plan.placed(left)
        read = Saved(plan.key, plan.variant, plan.steps, full, states, traces, [*left])
        incoming = Cotangents(grads[0], [None, *grads[1 : 1 + n]], plan.placed(iter(grads[1 + n :])))
        g = ctx.runner.backward(plan, weight, read, incoming)
        dx, dweight, dbias, wants_bias = None, None, None, ctx.needs_input_grad[4]
        if plan.weight_learns:
            series = traces[-1] if spikes is None else spikes
            take = cpu_recurrent.weight_gradient if ctx.runner is cpu_recurrent else weight_gradient
            dweight = take(plan.through, weight, states[0], series, g)
        if plan.x_grad == InputGrad.EACH:
            dx = g.x.to(ctx.dtype)
        if plan.x_grad == InputGrad.SUM or wants_bias:
            summed = g.x.sum(0) if g.summed is None else g.summed
            dx = summed.unsqueeze(0).to(ctx.dtype) if plan.x_grad == InputGrad.SUM else dx
            dbias = sum_to(summed, weight[0]) if wants_bias else None
        return (None, None, dx, dweight, dbias, *(g.states if plan.map is None else g.states[1:]), *g.params)
