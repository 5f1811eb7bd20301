"""One step in eager mode: the kernels of a scan over T = 1, with minimal overhead.

A step of a small layer takes a few microseconds, and the Python code around it several times that. So tensors here have
no time dimension, and values that are the same at every step are computed once (`Plan`, `Constants`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import repeat
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from ...forks import cached_property
from ...ops import Surrogate
from .. import tuning
from ..graph import (
    Constants,
    Derivation,
    InputGrad,
    Param,
    PullBack,
    State,
    Variant,
    add,
    dtype_name,
    structure_of,
    summed,
)
from ..jit import buffer_pool, plain, spread, sum_to
from ..saved_tensors import batched, saved_tensors_of
from .launch import kernel
from .source import copies


class Plan:
    """Values that all steps of a program in one variant share.

    A plan depends on the key and the kinds alone, not on a layer, so nothing must be invalidated when a layer changes.

    Args:
        key: of the program.
        dtype: of all tensors.
        kinds, grad: of the variant, see `Variant`.

    Attributes:
        inputs: number of inputs in x, and whether there are several, see `cpu.source`.
        learnable: how many of the parameters may be learned; the numbers of the program follow.
        results: from the outputs of a step to its results: a state that is the spikes is the same tensor.
        copies: the states that the backward reads, see `source.copies`; the last new state always, for its shape.
        saves_input: whether it also reads the input; where that holds several, always, for its shape.
        olds, news: for each state, the index of its copies among the saved tensors; -1, the last, if it has none.
        strides: of the gradients of the outputs, over the one step.
        learns, no_totals: whether any parameter is learned; in the place of their gradients, if none is.
    """

    def __init__(self, key: str, dtype: torch.dtype, kinds: tuple[Param, ...], grad: InputGrad):
        structure = structure_of(key)
        derivation = structure.derivation
        step, self.learnable = derivation.step, len(kinds) - len(structure.places)
        states = (State.DROPPED,) * len(step.states)
        self.key, self.variant = key, Variant.of(dtype_name(dtype), kinds, states, grad, single=True)
        self.count, self.kinds, self.grad = len(step.states), kinds, grad
        self.alike = all(kind.fixed == Param.NUMBER for kind in kinds)
        self.inputs = len(step.inputs)
        self.several = self.inputs > 1
        places = [0 if new is step.spk else k + 1 for k, new in enumerate(step.new_states)]
        self.results: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] = itemgetter(0, *places)
        forward = self.variant.forward
        if grad:
            forward = replace(forward, states=self._saved(derivation))
        self.copies = copies(forward)
        self.saves_input = self.several or not set(step.inputs).isdisjoint(derivation.backward_nodes(kinds, grad))
        self.forward = kernel(key, forward).run
        saved = {copy: at + self.saves_input for at, copy in enumerate(self.copies)}
        self.olds, self.news = ([saved.get(f"{which}{k}", -1) for k in range(self.count)] for which in ("old", "new"))
        self.strides, self.no_totals = [0] * (self.count + 1), [None] * len(kinds)
        self.learns = any(kind.learned for kind in kinds)

    def _saved(self, derivation: Derivation) -> tuple[State, ...]:
        """The copies of states that a backward reads."""
        step, read = derivation.step, set(derivation.backward_nodes(self.kinds, self.grad))
        needed = {step.new_states[-1], *(read & set(step.new_states)) - set(step.states)}
        pairs = zip(step.states, step.new_states, strict=True)
        kinds = (State.DROPPED, State.OLD, State.NEW, State.BOTH)
        return tuple(kinds[(old in read) + 2 * (new in needed)] for old, new in pairs)

    @cached_property
    def backward(self) -> Callable[..., None]:
        """The kernel of the gradients, compiled at the first backward."""
        run: Callable[..., None] = kernel(self.key, self.variant).run
        return run

    def spread(self, params: Sequence[Tensor], shape: torch.Size) -> Sequence[Tensor]:
        """The parameters as the kernel reads them, if one of them is not a single number."""
        return [spread(p, kind, shape) for p, kind in zip(params, self.kinds, strict=True)]


plan_of = cache(Plan)


def step(
    plan: Plan, layer: str, x: Tensor, states: Sequence[Tensor], params: tuple[Tensor, ...], surrogate: Surrogate
) -> tuple[Tensor, ...]:
    """Run one step of a program; returns spikes and new states, [*S]. For the arguments see `run.autograd.scan`."""
    if not plan.grad:
        return plan.results(_forward(plan, x, states, params))
    # constants do not pass through autograd, nor are they saved
    if type(params) is Constants:
        return plan.results(_Step.apply((plan, layer, surrogate, params), x, *states))
    constants = params[plan.learnable :]
    return plan.results(_Step.apply((plan, layer, surrogate, constants), x, *states, *params[: plan.learnable]))


StepCall = tuple[Plan, str, Surrogate, tuple[Tensor, ...]]
"""The plan, the name of the neuron in messages, the spike function, and the hoisted values that are not learned. They
are one argument, since `Function.apply` inspects each."""


class _Step(torch.autograd.Function):
    """One differentiable step.

    The outputs are the spikes, the states and the saved copies of states. As outputs, copies have gradients, which
    second derivatives require.
    """

    @staticmethod
    def forward(ctx: Any, call: StepCall, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        plan, ctx.layer, _, constants = ctx.call = call
        states, params = rest[: plan.count], rest[plan.count :]
        outs = _forward(plan, x, states, (*params, *constants) if params else constants)
        copied = outs[plan.count + 1 :]
        ctx.save_for_backward(*((x, *copied) if plan.saves_input else copied), *params)
        ctx.set_materialize_grads(False)
        return outs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (plan, _, surrogate, params), saved = ctx.call, saved_tensors_of(ctx)
        end, extra = plan.saves_input + len(plan.copies), 0
        if len(saved) > end:
            saved, params, extra = saved[:end], (*saved[end:], *params), len(params)
        grads, to_copies = grads[: plan.count + 1], grads[plan.count + 1 :]
        found: tuple[Tensor | None, ...] = ()
        if not torch.is_grad_enabled() and not [g for g in to_copies if g is not None]:
            try:
                found = _backward(plan, saved, params, grads)
            except RuntimeError:  # batched gradients have no address
                if not batched(grads):
                    raise
        found = found or _backward_by_torch(plan, surrogate, saved, params, grads, to_copies)
        return (None, *found[: len(found) - extra])


def _forward(plan: Plan, x: Tensor, states: Sequence[Tensor], params: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The spikes, the new states, and the copies of states."""
    x, olds = _dense(x), [*map(Tensor.contiguous, states)]
    like = olds[-1]
    empty = _maker(like)
    spk, news, copied = empty(like), [*map(empty, olds)], [*map(empty, repeat(like, len(plan.copies)))]
    plan.forward(
        steps=1,
        size=like.numel(),
        x=x,
        x_stride=0,
        spk=spk,
        state=olds,
        trace=news,
        param=params if plan.alike else plan.spread(params, like.shape),
        width=_width(x, like) if plan.several else 0,
        copy=copied,
    )
    return (spk, *news, *copied)


def _backward(
    plan: Plan, saved: Sequence[Tensor], params: tuple[Tensor, ...], grads: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The gradients of the input, the states and the parameters; None is zero.

    Args:
        saved: the input, if it is saved, and the copies.
    """
    like, x, each = saved[-1], _dense(saved[0]) if plan.saves_input else None, (*saved, None)
    empty = _maker(like)
    carries = [*map(empty, repeat(like, plan.count))]
    totals = [empty(like) if kind.learned else None for kind in plan.kinds] if plan.learns else plan.no_totals
    dx = empty(x if plan.several and x is not None else like) if plan.grad == InputGrad.EACH else None
    plan.backward(
        steps=1,
        size=like.numel(),
        x=x,
        x_stride=0,
        dx=dx,
        grad=[torch.zeros_like(like) if g is None else _dense(g) for g in grads],
        grad_stride=plan.strides,
        initial=[*map(each.__getitem__, plan.olds)],
        trace=[*map(each.__getitem__, plan.news)],
        carry=carries,
        param=params if plan.alike else plan.spread(params, like.shape),
        total=totals,
        width=0 if x is None or not plan.several else _width(x, like),
    )
    if type(params) is Constants:
        return (dx, *carries)
    return (dx, *carries, *[None if t is None else sum_to(t, p) for t, p in zip(totals, params, strict=True)])


def _backward_by_torch(
    plan: Plan,
    surrogate: Surrogate,
    saved: Sequence[Tensor],
    params: tuple[Tensor, ...],
    grads: Sequence[Tensor | None],
    to_copies: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Run the backward with torch's operations, including the gradients of the copies."""
    like, x = saved[-1], saved[0] if plan.saves_input else None
    copied, more = (dict(zip(plan.copies, t, strict=True)) for t in (saved[plan.saves_input :], to_copies))
    olds, news = ([copied.get(f"{which}{k}") for k in range(plan.count)] for which in ("old", "new"))
    axis = _axis(x, like) if plan.several and x is not None else 0
    inputs = [None] if x is None else x.chunk(plan.inputs, axis)
    cotangents = [grads[0], *(add(g, more.get(f"new{k}")) for k, g in enumerate(grads[1:]))]
    if all(g is None for g in cotangents):  # the gradients are those of old states alone
        cotangents[0] = torch.zeros_like(like)
    dxs, carries, totals = PullBack(plan.key, plan.variant, surrogate)(inputs, olds, news, params, cotangents)
    dx = None if plan.grad == InputGrad.UNWANTED else torch.cat(dxs, axis) if plan.several else dxs[0]
    carried = [add(carry, more.get(f"old{k}")) for k, carry in enumerate(carries)]
    return (dx, *carried, *(() if type(params) is Constants else summed(totals, params, plan.kinds)))


def _dense(x: Tensor) -> Tensor:
    return x if x.is_contiguous() and not x.is_neg() else plain(x).contiguous()


def _axis(x: Tensor, mem: Tensor) -> int:
    """The dimension in which x holds several inputs."""
    return next((i for i, size in enumerate(mem.shape) if x.shape[i] != size), 0)


def _width(x: Tensor, mem: Tensor) -> int:
    """The offset between two inputs of one element, in elements."""
    return mem.shape[_axis(x, mem) :].numel()


def _maker(like: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that allocates memory in the shape of a contiguous tensor of this size."""
    return torch.empty_like if like.nbytes < tuning.limits.pool_from else buffer_pool.empty_like
