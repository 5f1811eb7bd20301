"""The scan of a cell whose membrane comes back into its inputs through a product, on the fused kernels.

The product stands in the loop over time, which is Python's here: at each step the product, by torch, and one kernel for
all that is elementwise. The backward goes the same way back. What can wait till the end is done there at once over all
time: the gradient of the weight is one product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import arena
from .emit_numba import Variant
from .kernels import address, kernel, rows, spread, sum_to
from .linear_maps import Map, MemFeedback, weight_gradient
from .loop import Trajectory
from .saved import saved_by


def scan(
    key: str,
    variant: Variant,
    layer: str,
    steps: int | None,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    feedback: MemFeedback,
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
    """
    count = len(states)
    traced = "1" * count if variant.grad or "1" in variant.traced else "0" * count
    variant = Variant(variant.dtype, variant.params, traced, "each" if variant.grad else "")
    plan = _Plan(key, variant, layer, steps or (1 if steps is None else 0), count, feedback.map)
    x_seq = x.unsqueeze(0) if steps is None else x
    arguments = (x_seq, feedback.weight, *states, *params)
    spk, *rest = _Scan.apply(plan, *arguments) if variant.grad else plan.forward(*arguments)[0]
    if steps is None:
        return Trajectory(spk.squeeze(0), (), tuple(rest[:count]))
    return Trajectory(spk, tuple(rest[count:]), tuple(rest[:count]))


class _Plan:
    """What forward and backward have in common.

    Args:
        key: of the program.
        variant: with the states of every step kept, or none.
        layer: how messages name the neuron.
        steps: T.
        count: of the states.
        map: from the membrane to what it adds to the inputs.
    """

    def __init__(self, key: str, variant: Variant, layer: str, steps: int, count: int, map: Map):
        self.key, self.variant, self.layer, self.steps, self.count, self.map = key, variant, layer, steps, count, map

    def _parts(self, mem: Tensor, params: Sequence[Tensor]) -> tuple[int, list[Tensor]]:
        """How many elements lie between two inputs of one, and the parameters as the kernel reads them."""
        width = mem.shape[self.map.axis :].numel()
        return width, [spread(p, kind, mem.shape) for p, kind in zip(params, self.variant.params, strict=True)]

    def forward(self, x: Tensor, weight: Tensor, *rest: Tensor) -> tuple[list[Tensor], Tensor]:
        """The spikes, the last states and, where they are kept, the states of every step; and the inputs in full."""
        states, params = rest[: self.count], rest[self.count :]
        kept = "1" in self.variant.traced
        mem = states[-1]
        finals = [s.clone(memory_format=torch.contiguous_format) for s in states]
        full = arena.empty((self.steps if kept else 1, *x.shape[1:]), x)
        spk, *traces = (arena.empty((self.steps, *mem.shape), mem) for _ in range(1 + self.count * kept))
        width, inputs = self._parts(mem, params)
        entry = kernel(self.key, self.variant.forward)
        for t in range(self.steps):
            at = full[t if kept else 0]
            self.map.add(x[t if len(x) > 1 else 0], weight, finals[-1], at)
            words = [1, mem.numel(), 0, at.data_ptr(), 0, spk[t].data_ptr()]
            for k, final in enumerate(finals):
                words += (final.data_ptr(), traces[k][t].data_ptr() if kept else 0)
            entry.run([*words, *(p.data_ptr() for p in inputs), width])
        return [spk, *finals, *traces], full

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
        like = states[0]
        zero = like.new_zeros((1, *like.shape))
        upstream = [rows(zero if g is None else g) for g in (grads[0], *grads[1 + self.count :])]
        carries = [
            zero[0].clone() if g is None else g.clone(memory_format=torch.contiguous_format)
            for g in grads[1 : 1 + self.count]
        ]
        totals = [torch.zeros_like(zero[0]) if kind.isupper() else None for kind in self.variant.params]
        initials = [state.contiguous() for state in states]
        dx = arena.empty(full.shape, full)
        width, inputs = self._parts(like, params)
        entry = kernel(self.key, self.variant)
        for t in reversed(range(self.steps)):
            g_spk, *g_traces = (g.data_ptr() + t * stride * g.element_size() for g, stride in upstream)
            words = [1, like.numel(), 0, full[t].data_ptr(), 0, dx[t].data_ptr(), g_spk, 0]
            for initial, trace, carry in zip(initials, traces, carries, strict=True):
                before = trace[t - 1] if t else initial
                words += (before.data_ptr(), trace[t].data_ptr(), carry.data_ptr())
            for g in g_traces:
                words += (g, 0)
            for p, total in zip(inputs, totals, strict=True):
                words += (p.data_ptr(), address(total))
            entry.run([*words, width])
            self.map.add_mem_gradient(weight, dx[t], carries[-1])
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
        weight, full, *rest = saved_by(ctx)
        states, params, traces = rest[: plan.count], rest[plan.count : -plan.count], rest[-plan.count :]
        dx, carries, sums = plan.backward(weight, full, states, traces, params, grads)
        wanted_x, wanted_weight = ctx.needs_input_grad[1:3]
        dw = weight_gradient(plan.map, weight, states[-1], traces[-1], dx) if wanted_weight else None
        if not wanted_x:
            return (None, None, dw, *carries, *sums)
        return (None, dx.sum(0, keepdim=True) if ctx.static else dx, dw, *carries, *sums)
