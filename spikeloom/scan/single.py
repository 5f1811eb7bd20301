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
from .emit_numba import Variant, backward_words
from .kernels import address, kernel, spread, sum_to
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
        words: of a backward, without any address; T is 1.
        read_at, written_at: where the addresses of these tensors and the gradients of the outputs stand among them, and
            those of the gradients of the input, if it is wanted, and of the states.
        params_at: where those of the parameters begin, each followed by that of its gradient.
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
        self._lay_out(len(step.states))

    def _lay_out(self, states: int) -> None:
        """Where the arguments of the backward stand among its words."""
        names, each = backward_words(states, len(self.kinds)), range(states)
        words = ["x", *(f"initial{k}" for k in each), *(f"trace{k}" for k in each)]
        read = [*(words[i] for i in self.kept), "grad0", *(f"grad{k + 1}" for k in each)]
        written = [*(["dx"] if self.grad == "each" else []), *(f"carry{k}" for k in each)]
        self.words = [int(name == "steps") for name in names]
        self.read_at, self.written_at = [names.index(n) for n in read], [names.index(n) for n in written]
        self.params_at = len(names) - 2 * len(self.kinds)

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
    like, words, held = kept[-1], plan.words.copy(), []
    words[1] = like.numel()
    for at, tensor in zip(plan.read_at, (*kept, *grads), strict=True):
        tensor = torch.zeros_like(like) if tensor is None else tensor.contiguous()
        words[at] = tensor.data_ptr()
        held.append(tensor)  # what the kernel reads must outlive the call
    results: list[Tensor | None] = [] if plan.grad == "each" else [None]
    for at in plan.written_at:
        result = _empty(like)
        words[at] = result.data_ptr()
        results.append(result)
    if type(params) is Constants:
        words[plan.params_at :: 2] = params.addresses
        plan.backward.run(words)
        return tuple(results)
    inputs = plan.spread(params, like.shape)
    words[plan.params_at :: 2] = [p.data_ptr() for p in inputs]
    totals = [torch.zeros_like(like) if kind.isupper() else None for kind in plan.kinds]
    words[plan.params_at + 1 :: 2] = [address(total) for total in totals]
    plan.backward.run(words)
    return (*results, *[None if t is None else sum_to(t, p) for t, p in zip(totals, params, strict=True)])


def _empty(like: Tensor) -> Tensor:
    """Uninitialised memory of the shape of a contiguous tensor."""
    return torch.empty_like(like) if like.nbytes < arena.SMALLEST else arena.empty(like.shape, like)
