"""One step in eager mode: the kernels of a scan over T = 1, called with as little around them as can be.

A step of a small layer takes a few microseconds, and everything in Python around it several times that. So nothing here
has a time dimension, and what is the same at every step is worked out once (`Plan`, `Constants`).
"""

from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from . import arena
from .emit_numba import Variant
from .kernels import kernel, spread, sum_to
from .program import Constants, program_of
from .saved import saved_by
from .threads import Entry


class Plan:
    """What every step of a program in one variant has in common.

    A plan follows from words alone, never from a layer, so that there is nothing to forget when a layer changes.

    Args:
        key: of the program.
        dtype, kinds, grad: of the variant, see `Variant`.

    Attributes:
        kept: which tensors the backward reads, of the input, the old states and the new ones, counted in this order;
            the last new state always, for its shape.
    """

    def __init__(self, key: str, dtype: str, kinds: str, grad: str):
        derivation = program_of(key).derivation
        assert derivation is not None
        step = derivation.trace
        self.key, self.variant = key, Variant(dtype, kinds, "n" * len(step.states), grad)
        self.count, self.kinds, self.grad = len(step.states), kinds, grad
        self.alike = not kinds.strip("uU")  # each parameter is one number
        read = set(derivation.pulled(kinds, grad)) if grad else set()
        tensors = (*step.inputs, *step.states, *step.new_states)
        self.kept = [i for i, node in enumerate(tensors) if node in read or i == len(tensors) - 1]
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


def step(plan: Plan, layer: str, x: Tensor, states: Sequence[Tensor], params: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """One step of a program: spikes and new states, [*S]. The arguments are those of `op.scan`."""
    if not plan.grad:
        return _forward(plan, x, states, params)
    # constants do not pass through autograd, nor are they saved
    outs: tuple[Tensor, ...]
    if type(params) is Constants:
        outs = _apply(plan, layer, params, x, *states)
    else:
        outs = _apply(plan, layer, None, x, *states, *params)
    return outs


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: Plan, layer: str, constants: Constants | None, x: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        states, params = rest[: plan.count], rest[plan.count :]
        outs = _forward(plan, x, states, params if constants is None else constants)
        tensors = (x, *states, *outs[1:])
        ctx.save_for_backward(*[tensors[i] for i in plan.kept], *params)
        ctx.plan, ctx.layer, ctx.constants = plan, layer, constants
        ctx.set_materialize_grads(False)
        return outs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, saved = ctx.plan, saved_by(ctx)
        kept, params = saved[: len(plan.kept)], saved[len(plan.kept) :]
        return (None, None, None, *_backward(plan, kept, ctx.constants or params, grads))


_apply = super(torch.autograd.Function, _Step).apply
"""Past `Function.apply`, which would look at every argument in Python for what is left of a torch.func transform."""


def _forward(plan: Plan, x: Tensor, states: Sequence[Tensor], params: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    x = x.contiguous()
    spk, olds = _empty(x), [state.contiguous() for state in states]
    words, outs = [1, x.numel(), 0, x.data_ptr(), 0, spk.data_ptr()], [spk]
    for old in olds:
        new = _empty(x)
        words += (old.data_ptr(), new.data_ptr())
        outs.append(new)
    if type(params) is Constants:
        words += params.addresses
    else:
        inputs = plan.spread(params, x.shape)
        words += [p.data_ptr() for p in inputs]
    plan.forward.run(words)
    return tuple(outs)


def _backward(
    plan: Plan, kept: Sequence[Tensor], params: tuple[Tensor, ...], grads: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The gradients of the input, the states and the parameters; one that comes as None is zero.

    Args:
        kept: the tensors that `Plan.kept` names.
    """
    n, like = plan.count, kept[-1]
    read = [t.contiguous() for t in kept]
    at = [0] * (1 + 2 * n)
    for i, t in zip(plan.kept, read, strict=True):
        at[i] = t.data_ptr()
    upstream = [torch.zeros_like(like) if g is None else g.contiguous() for g in grads]
    dx = _empty(like) if plan.grad == "each" else None
    words = [1, like.numel(), 0, at[0], 0, 0 if dx is None else dx.data_ptr(), upstream[0].data_ptr(), 0]
    carries = []
    for k in range(1, n + 1):
        carry = _empty(like)
        words += (at[k], at[n + k], carry.data_ptr())
        carries.append(carry)
    for g in upstream[1:]:
        words += (g.data_ptr(), 0)
    if type(params) is Constants:
        for address in params.addresses:
            words += (address, 0)
        plan.backward.run(words)
        return (dx, *carries)
    totals = [torch.zeros_like(like) if kind.isupper() else None for kind in plan.kinds]
    inputs = plan.spread(params, like.shape)
    for p, total in zip(inputs, totals, strict=True):
        words += (p.data_ptr(), 0 if total is None else total.data_ptr())
    plan.backward.run(words)
    return (dx, *carries, *[None if t is None else sum_to(t, p) for t, p in zip(totals, params, strict=True)])


def _empty(like: Tensor) -> Tensor:
    """Uninitialised memory of the shape of a contiguous tensor."""
    return torch.empty_like(like) if like.nbytes < arena.SMALLEST else arena.empty(like.shape, like)
