"""One step in eager mode: the kernels of a scan over T = 1, called with as little around them as can be.

A step of a small layer takes a few microseconds, and everything in Python around it several times that. So nothing here
has a time dimension, and what is the same at every step is worked out once (`Plan`, `Constants`).
"""

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from . import arena
from .emit_numba import Variant, backward_words, word_of
from .kernels import address, kernel, plain, spread, sum_to
from .program import Constants, program_of
from .saved import saved_by
from .threads import Entry


class Plan:
    """What every step of a program in one variant has in common.

    A plan follows from words alone, never from a layer, so that there is nothing to forget when a layer changes.

    Args:
        key: of the program.
        dtype: of all tensors.
        kinds, grad: of the variant, see `Variant`.

    Attributes:
        several: whether x holds several inputs, see `emit_numba`.
        kept: which tensors the backward reads, of the input, the old states and the new ones, counted in this order;
            the last new state always, for its shape, and so the input where it holds several.
        words: of a backward, without any address; T is 1.
        read_at, carries_at: where the addresses of these tensors and of the gradients of the outputs stand among them,
            and those of the gradients of the states.
        params_at, totals_at: where those of the parameters stand, and of their gradients.
    """

    def __init__(self, key: str, dtype: torch.dtype, kinds: str, grad: str):
        derivation = program_of(key).derivation
        step = derivation.trace
        self.key, self.variant = key, Variant(word_of(dtype), kinds, "n" * len(step.states), grad)
        self.count, self.kinds, self.grad = len(step.states), kinds, grad
        self.alike = not kinds.strip("uU")  # each parameter is one number
        self.several = len(step.inputs) > 1
        read = set(derivation.pulled(kinds, grad)) if grad else set()
        tensors = (step.inputs, *((state,) for state in (*step.states, *step.new_states)))
        told = {len(tensors) - 1, *([0] if self.several else [])}
        self.kept = [i for i, nodes in enumerate(tensors) if i in told or not read.isdisjoint(nodes)]
        self.forward = kernel(key, self.variant.forward)
        self._lay_out(len(step.states), len(step.inputs))

    def _lay_out(self, states: int, inputs: int) -> None:
        """Where the arguments of the backward stand among its words."""
        names, each = backward_words(states, len(self.kinds), inputs), range(states)
        words = ["x", *(f"initial{k}" for k in each), *(f"trace{k}" for k in each)]
        read = [*(words[i] for i in self.kept), "grad0", *(f"grad{k + 1}" for k in each)]
        self.words = [int(name == "steps") for name in names]
        self.read_at, self.carries_at = [names.index(n) for n in read], [names.index(f"carry{k}") for k in each]
        end = len(names) - self.several
        first = end - 2 * len(self.kinds)
        self.params_at, self.totals_at = slice(first, end, 2), slice(first + 1, end, 2)

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
DX = backward_words(1, 0).index("dx")


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
        plan, params, saved = ctx.plan, ctx.constants, saved_by(ctx)
        if params is None:
            saved, params = saved[: len(plan.kept)], saved[len(plan.kept) :]
        return (None, None, None, *_backward(plan, saved, params, grads))


_apply = super(torch.autograd.Function, _Step).apply
"""Past `Function.apply`, which would look at every argument in Python for what is left of a torch.func transform."""


def _forward(plan: Plan, x: Tensor, states: Sequence[Tensor], params: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    x, olds = plain(x).contiguous(), [state.contiguous() for state in states]
    like = olds[-1]
    empty = _maker(like)
    spk = empty(like)
    words, outs = [1, like.numel(), 0, x.data_ptr(), 0, spk.data_ptr()], [spk]
    for old in olds:
        new = empty(like)
        words += (old.data_ptr(), new.data_ptr())
        outs.append(new)
    if type(params) is Constants:
        words += params.addresses
    else:
        inputs = plan.spread(params, like.shape)
        words += [p.data_ptr() for p in inputs]
    if plan.several:
        words.append(_width(x, like))
    plan.forward.run(words)
    return tuple(outs)


def _backward(
    plan: Plan, kept: Sequence[Tensor], params: tuple[Tensor, ...], grads: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The gradients of the input, the states and the parameters; one that comes as None is zero.

    Args:
        kept: the tensors that `Plan.kept` names.
    """
    like, words = kept[-1], plan.words.copy()
    empty = _maker(like)
    words[1] = like.numel()
    # what the kernel reads must outlive the call
    held = [torch.zeros_like(like) if tensor is None else plain(tensor).contiguous() for tensor in (*kept, *grads)]
    for at, tensor in zip(plan.read_at, held, strict=True):
        words[at] = tensor.data_ptr()
    dx = None
    if plan.grad == "each":
        dx = empty(held[0] if plan.several else like)
        words[DX] = dx.data_ptr()
    if plan.several:
        words[-1] = _width(held[0], like)
    carries = []
    for at in plan.carries_at:
        carry = empty(like)
        words[at] = carry.data_ptr()
        carries.append(carry)
    if type(params) is Constants:
        words[plan.params_at] = params.addresses
        plan.backward.run(words)
        return (dx, *carries)
    inputs = plan.spread(params, like.shape)
    words[plan.params_at] = [p.data_ptr() for p in inputs]
    totals = [empty(like) if kind.isupper() else None for kind in plan.kinds]
    words[plan.totals_at] = [address(total) for total in totals]
    plan.backward.run(words)
    return (dx, *carries, *[None if t is None else sum_to(t, p) for t, p in zip(totals, params, strict=True)])


def _width(x: Tensor, mem: Tensor) -> int:
    """How many elements lie between two inputs of one: those from the dimension on in which x holds several."""
    at = next((i for i, size in enumerate(mem.shape) if x.shape[i] != size), 0)
    return mem.shape[at:].numel()


def _maker(like: Tensor) -> Callable[[Tensor], Tensor]:
    """What makes uninitialised memory in the shape of a contiguous tensor, for tensors as large as this one."""
    return torch.empty_like if like.nbytes < arena.SMALLEST else arena.empty_like
