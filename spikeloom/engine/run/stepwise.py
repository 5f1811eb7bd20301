"""The scan of a cell whose membrane comes back into its inputs through a product, on the kernels of either machine.

The product stands in the loop over time, which is Python's here: at each step the product, by torch, and one kernel for
all that is elementwise. The backward goes the same way back. What can wait till the end is done there at once over all
time: the gradient of the weight is one product. On a GPU the steps may be recorded (see `cuda_graphs`).
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..cpu import launch
from ..feedback import Map, MemFeedback, weight_gradient
from ..gpu import cuda_graphs
from ..gpu import launch as gpu_launch
from ..graph import Variant
from ..jit import buffer_pool, rows, sum_to
from ..saved_tensors import saved_by
from .reference import Trajectory


def scan(
    key: str,
    variant: Variant,
    layer: str,
    steps: int | None,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    feedback: MemFeedback,
    recorded: bool = False,
) -> Trajectory:
    """Run a program over time, or, if `steps` is None, for one step, whose tensors have no time dimension.

    Args:
        key: of the program.
        variant: how it is run.
        layer: how messages name the neuron.
        steps: T.
        x: the inputs, [T, ...], or [1, ...] if they are the same at every step, without what the membrane adds.
        states: before the first step, [*S].
        params: the program's hoisted values.
        feedback: what the membrane, the last state, adds to the inputs.
        recorded: whether by steps that are recorded and replayed, on Triton.
    """
    count, x_seq = len(states), x.unsqueeze(0) if steps is None else x
    plan = _Plan(key, variant, layer, 1 if steps is None else steps, count, feedback.map, recorded)
    arguments = (x_seq, feedback.weight, *states, *params)
    spk, *rest = _Scan.apply(plan, *arguments) if variant.grad else plan.forward(*arguments)[0]
    if steps is None:
        return Trajectory(spk.squeeze(0), (), tuple(rest[:count]))
    return Trajectory(spk, tuple(rest[count:]), tuple(rest[:count]))


class _Plan:
    """What forward and backward have in common.

    Args:
        key: of the program.
        variant: as the scan got it; here with the states of every step, and the inputs, kept or not.
        layer: how messages name the neuron.
        steps: T.
        count: of the states.
        map: from the membrane to what it adds to the inputs.
        recorded: whether the steps are recorded.
    """

    def __init__(self, key: str, variant: Variant, layer: str, steps: int, count: int, map: Map, recorded: bool):
        self.key, self.layer, self.steps, self.count, self.map = key, layer, steps, count, map
        self.recorded = recorded
        self.kept = bool(variant.grad) or "1" in variant.traced
        kept, grad = "01"[self.kept] * (count + 1), "each" if variant.grad else ""
        self.variant = Variant(variant.dtype, variant.params, kept, grad, variant.machine)

    def _one_step(self, letter: str, grad: str, mem: Tensor, params: Sequence[Tensor]) -> Any:
        """The kernel of a step, forward or backward, whose states have a letter (see `Variant.traced`)."""
        variant = Variant(self.variant.dtype, self.variant.params, letter * self.count, grad, self.variant.machine)
        machine: ModuleType = launch if variant.machine == "numba" else gpu_launch
        return machine.OneStep(self.key, variant, mem, params, mem.shape[self.map.axis :].numel())

    def forward(self, x: Tensor, weight: Tensor, *rest: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """The spikes, the last states and, where they are kept, the states of every step; and the inputs in full."""
        states, params = rest[: self.count], rest[self.count :]
        if self.recorded:
            return cuda_graphs.forward(self, x, weight, None, [states[-1], *states], params, self.map)
        olds = tuple(state.contiguous() for state in states)
        mem, T = olds[-1], self.steps
        length = T if self.kept else min(T, 2)  # of two rows the states go from the one to the other
        spk, full = buffer_pool.empty((T, *mem.shape), mem), buffer_pool.empty((length, *x.shape[1:]), x)
        traces = [buffer_pool.empty((length, *mem.shape), mem) for _ in olds]
        inputs, every = full.unbind(), [*zip(*(trace.unbind() for trace in traces), strict=True)]
        step = self._one_step("n", "", mem, params)
        for t, (x_t, spk_t) in enumerate(zip(x.expand(T, *x.shape[1:]).unbind(), spk.unbind(), strict=True)):
            at, news = inputs[t % length], every[t % length]
            torch.add(x_t, self.map.of(weight, olds[-1]), out=at)
            step.forward(at, spk_t, olds, news)
            olds = news
        finals = [state.clone() for state in olds]
        return [spk, *finals, *(traces if self.kept else ())], full

    def backward(
        self,
        weight: Tensor,
        full: Tensor,
        states: Sequence[Tensor],
        traces: Sequence[Tensor],
        params: Sequence[Tensor],
        grads: Sequence[Tensor | None],
    ) -> tuple[Tensor, list[Tensor], list[Tensor | None]]:
        """The gradients of the inputs at every step, of the states before the first, and of the parameters.

        Args:
            weight, states, params: as in the forward.
            full, traces: what that returned.
            grads: of the spikes, the last states and the states of every step; None is zero.
        """
        pulls, finals = [grads[0], *grads[1 + self.count :]], grads[1 : 1 + self.count]
        if self.recorded:
            g = cuda_graphs.backward(self, weight, full, states, traces, params, pulls, finals, self.map)
            assert g.x is not None
            return g.x, g.states[1:], g.params
        like, T = states[0], self.steps
        zero = like.new_zeros(like.shape)
        pulled = [(zero if g is None else rows(g)[0]).expand(T, *like.shape).unbind() for g in pulls]
        carries = [zero.clone() if g is None else g.clone(memory_format=torch.contiguous_format) for g in finals]
        totals = [zero.clone() if kind.isupper() else None for kind in self.variant.params]
        every = [tuple(s.contiguous() for s in states), *zip(*(trace.unbind() for trace in traces), strict=True)]
        dx = buffer_pool.empty(full.shape, full)
        step = self._one_step("0", "each", like, params)
        inputs, results = full.unbind(), dx.unbind()
        for t in reversed(range(T)):
            step.backward(inputs[t], results[t], every[t], every[t + 1], carries, [g[t] for g in pulled], totals)
            self.map.add_mem_gradient(weight, results[t], carries[-1])
        sums = [None if total is None else sum_to(total, p) for total, p in zip(totals, params, strict=True)]
        return dx, carries, sums


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, x: Tensor, weight: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        outs, full = plan.forward(x, weight, *rest)
        ctx.plan, ctx.layer, ctx.static = plan, plan.layer, len(x) != plan.steps
        ctx.save_for_backward(weight, full, *rest, *outs[1 + plan.count :])
        ctx.set_materialize_grads(False)
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        weight, full, *rest = saved_by(ctx, *grads)
        states, params, traces = rest[: plan.count], rest[plan.count : -plan.count], rest[-plan.count :]
        dx, carries, sums = plan.backward(weight, full, states, traces, params, grads)
        wanted_x, wanted_weight = ctx.needs_input_grad[1:3]
        dw = weight_gradient(plan.map, weight, states[-1], traces[-1], dx) if wanted_weight else None
        if not wanted_x:
            return (None, None, dw, *carries, *sums)
        return (None, dx.sum(0, keepdim=True) if ctx.static else dx, dw, *carries, *sums)
