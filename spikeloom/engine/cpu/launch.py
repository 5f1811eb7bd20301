"""Running a program's kernels on the CPU: tensors in, tensors out; `run/autograd.py` makes them differentiable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from .. import tuning
from ..graph import Constants, Cotangents, Derivation, Gradients, InputGrad, Param, Saved, State, Variant, structure_of
from ..jit import buffer_pool, compiled, openmp, rows, spread, sum_to
from .source import emit, own_arguments, streamed

Emitter = Callable[[Derivation, Variant, str, bool, bool], str]


@cache
def kernel(key: str, variant: Variant, emitter: Emitter = emit) -> openmp.Kernel:
    """A kernel of a program, compiled at first use and kept for the life of the process."""
    return compiled(partial(emitter, structure_of(key).derivation, variant, f"A scan: {variant}."))


@dataclass(frozen=True)
class Order:
    """In which order the dimensions of a row [B, *N] lie in memory, as after a convolution with its channels last.

    The elements of a scan know nothing of each other, so a kernel takes them in any order that all its tensors share.

    Args:
        dims: of a row, the outermost first; empty if they lie in their own order, or not without gaps.
    """

    dims: tuple[int, ...] = ()

    @staticmethod
    def of(x: Tensor) -> "Order":
        """That of a sequence [T, B, *N]. B stays in front, so that T and B can be folded without a copy."""
        if x.dim() < 4 or x.is_contiguous() or x[0].is_contiguous():
            return Order()
        dims = (0, *sorted(range(1, x.dim() - 1), key=lambda dim: -x.stride(dim + 1)))
        return Order(dims) if x[0].permute(dims).is_contiguous() else Order()

    def turned(self, t: Tensor) -> Tensor:
        """A row or sequence with its dimensions in that order."""
        return self._permuted(t, self.dims) if self.dims else t

    def back(self, t: Tensor) -> Tensor:
        """The same the other way, for a result: detached, since it is an output and no view."""
        return self._permuted(t, [self.dims.index(dim) for dim in range(len(self.dims))]).detach() if self.dims else t

    def _permuted(self, t: Tensor, dims: Sequence[int]) -> Tensor:
        lead = t.dim() - len(dims)
        return t.permute(*range(lead), *(lead + dim for dim in dims))

    def spread(self, params: Sequence[Tensor], kinds: Sequence[Param], shape: torch.Size) -> Sequence[Tensor]:
        """The hoisted values, each one number or broadcast over rows [B, *N] of that shape, as a kernel reads them."""
        if type(params) is Constants:
            return params
        in_order = [self.turned(p.expand(shape)) if self.dims and p.numel() > 1 else p for p in params]
        row = self.turned(torch.empty(shape, device="meta")).shape if self.dims else shape
        return [spread(p, kind, row) for p, kind in zip(in_order, kinds, strict=True)]


Outputs = tuple[Tensor, list[Tensor], list[Tensor | None]]
"""Spikes [T, *S]; the last states [*S]; the states after every step [T, *S], None where the variant does not keep one.

A state that is the spikes themselves is the same tensor.
"""


def forward(
    key: str, variant: Variant, steps: int, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
) -> Outputs:
    """Run the scan. Sequences lie in memory as the input does."""
    order = Order.of(x)
    inputs, turned = order.spread(params, variant.params, x.shape[1:]), order.turned(x)
    shape, (x, stride) = turned.shape[1:], rows(turned)
    threads, block, strips = None, 0, None
    spk = buffer_pool.empty((steps, *shape), x)
    finals = [_copied(order.turned(s)) for s in states]
    stored = [buffer_pool.empty((steps, *shape), spk) for _ in range(variant.states.count(State.SAVED))]
    traces = all_traces(variant.states, spk, stored)
    if stride == 0 and spk.nbytes >= tuning.limits.stream_stores_from:
        block, threads = tuning.shapes.block, openmp.team_size(spk.numel())
        strips = spk.new_empty(threads * len(streamed(variant)) * tuning.shapes.strip)
    kernel(key, variant.forward).run(
        steps=steps,
        size=shape.numel(),
        x=x,
        x_stride=stride,
        spk=spk,
        state=finals,
        trace=traces,
        param=inputs,
        block=block or block_for(spk.nbytes),
        strips=strips,
        threads=threads,
    )
    back = order.back(spk)
    traces = [None if trace is None else back if trace is spk else order.back(trace) for trace in traces]
    return back, [order.back(final) for final in finals], traces


def _copied(t: Tensor) -> Tensor:
    return t.clone(memory_format=torch.contiguous_format)


def block_for(sequence: int) -> int:
    """How many elements a block has, where a sequence takes so many bytes."""
    long = sequence >= tuning.limits.long_blocks_from
    return tuning.shapes.long_block if long else tuning.shapes.block


def elements_recomputed(steps: int, states: int, size: int) -> int:
    """How many elements of so many bytes a block has that recomputes their states of all steps: a multiple of 64, and
    none where the states of 64 are too many."""
    shapes = tuning.shapes
    return min(2 * shapes.block, shapes.recomputed_bytes // (steps * states * size) // 64 * 64)


def all_traces(states: Sequence[State], spk: Tensor, stored: Sequence[Tensor]) -> list[Tensor | None]:
    """A sequence for each state (see `Variant.states`): one of those stored, the spikes, or None."""
    left = list(stored)
    return [
        left.pop(0) if state in (State.SAVED, State.SPANS) else spk if state == State.SPIKES else None
        for state in states
    ]


def by_themselves(outs: Outputs) -> list[Tensor]:
    """The sequences of states that are none of the other results."""
    return [trace for trace in outs[2] if trace is not None and trace is not outs[0]]


def backward(saved: Saved, grads: Cotangents) -> Gradients:
    """Run the adjoint scan."""
    key, variant, steps, x, states, traces, params = saved
    order = next((Order.of(t) for t in (*traces, x if variant.recomputes else None) if t is not None), Order())
    inputs, states = order.spread(params, variant.params, states[0].shape), [order.turned(s) for s in states]
    like, shape = states[0], states[0].shape
    zero = like.new_zeros(shape)

    def read(sequence: Tensor | None) -> tuple[Tensor, int]:
        return (zero, 0) if sequence is None else rows(order.turned(sequence))

    dx = None
    if variant.grad == InputGrad.EACH:
        dx = buffer_pool.empty((steps, *shape), like)
    elif variant.grad == InputGrad.SUM:
        dx = like.new_zeros((1, *shape))
    carries = [
        zero.clone() if g is None else order.turned(g).clone(memory_format=torch.contiguous_format)
        for g in grads.finals
    ]
    totals = [like.new_zeros(shape) if kind.learned else None for kind in variant.params]
    (given, stride), pulls = read(x), [read(g) for g in (grads.spk, *grads.traces)]
    elements = elements_recomputed(steps, len(states), like.element_size()) if variant.recomputes else 0
    threads = openmp.team_size(steps * shape.numel()) if elements else None
    if threads:
        kept = [buffer_pool.empty((threads, steps, elements), like) for _ in states]
    else:
        kept = [zero if trace is None else order.turned(trace).contiguous() for trace in traces]
    kernel(key, variant).run(
        steps=steps,
        size=shape.numel(),
        x=given,
        x_stride=stride,
        dx=dx,
        grad=[row for row, _ in pulls],
        grad_stride=[stride for _, stride in pulls],
        initial=[state.contiguous() for state in states],
        trace=kept,
        carry=carries,
        param=inputs,
        total=totals,
        block=elements or block_for(steps * like.nbytes),
        threads=threads,
    )
    sums = [
        None if total is None else sum_to(order.back(total).contiguous(), p)
        for total, p in zip(totals, params, strict=True)
    ]
    return Gradients(None if dx is None else order.back(dx), [order.back(carry) for carry in carries], sums)


class OneStep:
    """A kernel of one step, which reads and writes rows that are there.

    Args:
        key, variant: of the kernel: a forward is `single`, a backward is not.
        like: a state, [*S], contiguous as all rows.
        params: the program's hoisted values.
        width: how many elements lie between two inputs of one, if there are several.
    """

    def __init__(self, key: str, variant: Variant, like: Tensor, params: Sequence[Tensor], width: int):
        inputs = len(structure_of(key).derivation.trace.inputs)
        own = {"block": tuning.shapes.block} if "block" in own_arguments(variant, inputs) else {"width": width}
        params = [spread(p, kind, like.shape) for p, kind in zip(params, variant.params, strict=True)]
        self.run = partial(kernel(key, variant).run, steps=1, size=like.numel(), x_stride=0, param=params, **own)

    def forward(self, x: Tensor, spk: Tensor, olds: Sequence[Tensor], news: Sequence[Tensor]) -> None:
        """Write the spikes and the new states."""
        self.run(x=x, spk=spk, state=olds, trace=news)

    def backward(
        self,
        x: Tensor,
        dx: Tensor,
        olds: Sequence[Tensor],
        news: Sequence[Tensor],
        carries: Sequence[Tensor],
        pulls: Sequence[Tensor],
        totals: Sequence[Tensor | None],
    ) -> None:
        """Write the gradient of the input, put those of the old states in the place of those of the new ones, and add
        to those of the parameters.

        Args:
            carries: of the states.
            pulls: the gradients that come to the spikes, and to the new states besides.
            totals: of the parameters, None where none is wanted.
        """
        strides = [0] * len(pulls)
        self.run(x=x, dx=dx, grad=pulls, grad_stride=strides, initial=olds, trace=news, carry=carries, total=totals)
