"""One step in eager mode: the kernels of a scan over T = 1, called with as little around them as can be.

A step of a small layer takes a few microseconds, and everything in Python around it ten times that. So nothing here has
a time dimension, and what is the same at every step is worked out once (`Plan`).
"""

from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from . import arena
from .emit_numba import Variant
from .kernels import kernel, spread, sum_to
from .program import program_of
from .saved import saved_by
from .threads import Entry


class Plan:
    """What every step of a program in one variant has in common.

    A plan follows from words alone, never from a layer, so that there is nothing to forget when a layer changes.

    Args:
        key: of the program.
        dtype, kinds, grad: of the variant, see `Variant`.
    """

    def __init__(self, key: str, dtype: str, kinds: str, grad: str):
        derivation = program_of(key).derivation
        assert derivation is not None
        step = derivation.trace
        self.key, self.variant = key, Variant(dtype, kinds, "n" * len(step.states), grad)
        self.count, self.kinds = len(step.states), kinds
        self.alike = not kinds.strip("uU")  # each parameter is one number
        read = set(derivation.pulled(kinds, grad)) if grad else set()
        self.reads_input = not read.isdisjoint(step.inputs)
        self.reads_states = [old in read for old in step.states]
        self.forward = kernel(key, self.variant.forward)

    @cached_property
    def backward(self) -> Entry:
        """The kernel of the gradients, compiled when one is first asked for."""
        return kernel(self.key, self.variant)

    def spread(self, params: Sequence[Tensor], shape: torch.Size) -> Sequence[Tensor]:
        """The parameters as the kernel reads them."""
        if self.alike:
            return params
        return [spread(p, kind, shape) for p, kind in zip(params, self.kinds, strict=True)]


plan_of = cache(Plan)


def step(plan: Plan, layer: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """One step of a program: spikes and new states, [*S]. The arguments are those of `op.scan`."""
    states = [_unwrapped(state) for state in states]
    if not plan.variant.grad:
        return _forward(plan, x, states, params)
    outs: tuple[Tensor, ...] = _apply(plan, layer, x, *states, *params)
    return outs


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, layer: str, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        states, params = rest[: plan.count], rest[plan.count :]
        outs = _forward(plan, x, states, params)
        ctx.plan, ctx.layer = plan, layer
        read = [state if read else None for state, read in zip(states, plan.reads_states, strict=True)]
        ctx.save_for_backward(x if plan.reads_input else None, *read, *outs[1:], *params)
        ctx.set_materialize_grads(False)
        return outs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, None, *_backward(ctx.plan, saved_by(ctx), grads))


# Past `Function.apply`, which would look at every argument in Python for what `_unwrapped` sees to.
_apply = super(torch.autograd.Function, _Step).apply
_unwrapped = torch._C._functorch.unwrap_if_dead  # of a state that a layer has kept from within a torch.func transform


def _forward(plan: Plan, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
    x = x.contiguous()
    olds = [state.contiguous() for state in states]
    outs = [_empty(x) for _ in range(1 + plan.count)]
    spk, *news = [out.data_ptr() for out in outs]
    words = [1, x.numel(), 0, x.data_ptr(), 0, spk]
    for old, new in zip(olds, news, strict=True):
        words += (old.data_ptr(), new)
    inputs = plan.spread(params, x.shape)
    words += [p.data_ptr() for p in inputs]
    plan.forward.run(words)
    return tuple(outs)


def _backward(plan: Plan, saved: Sequence[Any], grads: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """The gradients of the input, the states and the parameters; a gradient that is None is zero."""
    n = plan.count
    finals, params = saved[1 + n : 1 + 2 * n], saved[1 + 2 * n :]
    like = finals[0]
    zero = torch.zeros_like(like) if True in [g is None for g in grads] else like
    upstream = [zero if g is None else g.contiguous() for g in grads]
    read = [None if t is None else t.contiguous() for t in saved[: 1 + n]]
    x, *olds = [0 if t is None else t.data_ptr() for t in read]
    dx = _empty(like) if plan.variant.grad == "each" else None
    carries = [_empty(like) for _ in finals]
    totals = [torch.zeros_like(like) if kind.isupper() else None for kind in plan.kinds]
    words = [1, like.numel(), 0, x, 0, 0 if dx is None else dx.data_ptr(), upstream[0].data_ptr(), 0]
    for old, new, carry in zip(olds, finals, carries, strict=True):
        words += (old, new.data_ptr(), carry.data_ptr())
    for g in upstream[1:]:
        words += (g.data_ptr(), 0)
    inputs = plan.spread(params, like.shape)
    for p, total in zip(inputs, totals, strict=True):
        words += (p.data_ptr(), 0 if total is None else total.data_ptr())
    plan.backward.run(words)
    sums = [None if total is None else sum_to(total, p) for total, p in zip(totals, params, strict=True)]
    return (dx, *carries, *sums)


def _empty(like: Tensor) -> Tensor:
    """Uninitialised memory of the shape of a contiguous tensor."""
    return torch.empty_like(like) if like.nbytes < arena.SMALLEST else arena.empty(like.shape, like)
