"""One step in eager mode: the kernels of a scan over T = 1, called with as little around them as can be.

A step of a small layer takes a few microseconds, and everything in Python around it ten times that. So nothing here has
a time dimension, and what is the same at every step is worked out once (`Plan`).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import arena
from .emit_numba import Variant
from .kernels import kernel, spread, sum_to
from .program import reads_input
from .saved import saved_by


class Plan:
    """What every step of a program in one variant has in common."""

    def __init__(self, key: str, code: str):
        self.key, self.variant = key, Variant.parse(code)
        self.kinds = self.variant.params
        self.learned = [kind.isupper() for kind in self.kinds]
        self.alike = not self.kinds.strip("uU")  # each parameter is one number
        self.reads_input = bool(self.variant.grad) and reads_input(key)
        self.forward = kernel(key, self.variant.forward)

    def spread(self, params: Sequence[Tensor], shape: torch.Size) -> Sequence[Tensor]:
        """The parameters as the kernel reads them."""
        if self.alike:
            return params
        return [spread(p, kind, shape) for p, kind in zip(params, self.kinds, strict=True)]


plan_of = cache(Plan)


def step(
    key: str, code: str, layer: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """One step of a program: spikes and new states, [*S]. The arguments are those of `op.scan`."""
    plan = plan_of(key, code)
    if not plan.variant.grad:
        return _forward(plan, x, states, params)
    spk, *finals = _Step.apply(plan, layer, len(states), x, *states, *params)
    return spk, finals


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, layer: str, count: int, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        states, params = rest[:count], rest[count:]
        spk, finals = _forward(plan, x, states, params)
        ctx.plan, ctx.layer, ctx.count = plan, layer, count
        ctx.save_for_backward(*states, *finals, *params, *((x,) if plan.reads_input else ()))
        ctx.set_materialize_grads(False)
        return (spk, *finals)

    @staticmethod
    def backward(ctx: Any, grad_spk: Tensor | None, *grad_finals: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, plan, n = saved_by(ctx), ctx.plan, ctx.count
        x = saved[-1].contiguous() if plan.reads_input else None
        params = saved[2 * n : -1] if plan.reads_input else saved[2 * n :]
        return (None, None, None, *_backward(plan, x, saved[:n], saved[n : 2 * n], params, grad_spk, grad_finals))


def _forward(plan: Plan, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    x = x.contiguous()
    spk = arena.empty(x.shape, x)
    finals = [state.clone(memory_format=torch.contiguous_format) for state in states]
    inputs = plan.spread(params, x.shape)
    words = [1, x.numel(), 0, x.data_ptr(), 0, spk.data_ptr()]
    for final in finals:
        words += (final.data_ptr(), 0)
    words += [p.data_ptr() for p in inputs]
    plan.forward.run(words)
    return spk, finals


def _backward(
    plan: Plan,
    x: Tensor | None,
    states: Sequence[Tensor],
    finals: Sequence[Tensor],
    params: Sequence[Tensor],
    grad_spk: Tensor | None,
    grad_finals: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """The gradients of the input, the states and the parameters. The new states are the trace of a single step, and
    their gradients are given as those of the trace: so what the kernel carries starts from zero."""
    like = finals[0]
    zero = torch.zeros_like(like) if grad_spk is None or any(g is None for g in grad_finals) else like
    upstream = [zero if g is None else g.contiguous() for g in (grad_spk, *grad_finals)]
    initials = [state.contiguous() for state in states]
    carries = [torch.zeros_like(like) for _ in states]
    dx = arena.empty(like.shape, like) if plan.variant.grad == "each" else None
    inputs = plan.spread(params, like.shape)
    totals = [torch.zeros_like(like) if learned else None for learned in plan.learned]
    words = [1, like.numel(), 0, 0 if x is None else x.data_ptr(), 0, 0 if dx is None else dx.data_ptr()]
    words += (upstream[0].data_ptr(), 0)
    for initial, final, carry in zip(initials, finals, carries, strict=True):
        words += (initial.data_ptr(), final.data_ptr(), carry.data_ptr())
    for g in upstream[1:]:
        words += (g.data_ptr(), 0)
    for p, total in zip(inputs, totals, strict=True):
        words += (p.data_ptr(), 0 if total is None else total.data_ptr())
    kernel(plan.key, plan.variant).run(words)
    sums = [None if total is None else sum_to(total, p) for total, p in zip(totals, params, strict=True)]
    return (dx, *carries, *sums)
