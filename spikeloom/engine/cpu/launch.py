"""Run a program's kernels on the CPU: tensors in, tensors out. `run/autograd.py` makes them differentiable."""

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from .. import tuning
from ..graph import Constants, Cotangents, Derivation, Gradients, InputGrad, Saved, State, Variant, structure_of
from ..jit import KernelSource, buffer_pool, compiled, openmp, rows, spread, sum_to
from .source import emit, own_arguments, streamed

Emitter = Callable[[Derivation, Variant, str], KernelSource]


@cache
def kernel(key: str, variant: Variant, emitter: Emitter = emit) -> openmp.Kernel:
    """A kernel of a program, compiled at first use and cached until the process ends."""
    return compiled(emitter(structure_of(key).derivation, variant, f"A scan: {variant}."))


Outputs = tuple[Tensor, list[Tensor], list[Tensor | None]]
"""Spikes [T, *S]; the last states [*S]; the states after every step [T, *S], None if the variant does not save one.

A state that is the spikes themselves is the same tensor.
"""


def forward(
    key: str, variant: Variant, steps: int, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
) -> Outputs:
    """Run the scan. Sequences have the memory layout of the input."""
    shape = x.shape[1:]
    if dims := _memory_order(x):
        params = [_turned(p.expand(shape), dims) if p.numel() > 1 else p for p in params]
        spk, final_states, traces = forward(
            key, variant, steps, _turned(x, dims), [_turned(state, dims) for state in states], params
        )
        back = _back(spk, dims)
        every = [None if trace is None else back if trace is spk else _back(trace, dims) for trace in traces]
        return back, [_back(final, dims) for final in final_states], every
    x, stride = rows(x)
    spk = buffer_pool.empty((steps, *shape), x)
    final_states = [s.clone(memory_format=torch.contiguous_format) for s in states]
    stored = [buffer_pool.empty(spk.shape, spk) for _ in range(variant.states.count(State.SAVED))]
    traces = all_traces(variant.states, spk, stored)
    block, threads, strips = block_for(spk.nbytes), None, None
    if stride == 0 and spk.nbytes >= tuning.limits.stream_stores_from:
        block, threads = tuning.shapes.block, openmp.team_size(spk.numel())
        strips = spk.new_empty(threads * len(streamed(variant)) * tuning.shapes.strip)
    kernel(key, variant.forward).run(
        steps=steps,
        size=shape.numel(),
        x=x,
        x_stride=stride,
        spk=spk,
        state=final_states,
        trace=traces,
        param=_spread(params, variant, shape),
        block=block,
        strips=strips,
        threads=threads,
    )
    return spk, final_states, traces


def _spread(params: Sequence[Tensor], variant: Variant, shape: torch.Size) -> Sequence[Tensor]:
    """The hoisted values for a kernel: each one number, or broadcast over rows of that shape."""
    if type(params) is Constants:
        return params
    return [spread(p, kind, shape) for p, kind in zip(params, variant.params, strict=True)]


def block_for(sequence: int) -> int:
    """The number of elements of a block, for a sequence of a size in bytes."""
    long = sequence >= tuning.limits.long_blocks_from
    return tuning.shapes.long_block if long else tuning.shapes.block


def elements_recomputed(steps: int, states: int, size: int) -> int:
    """The number of elements of a block whose states of all steps are recomputed: a multiple of 64.

    0 if the states of 64 elements, of `size` bytes each, exceed the limit.
    """
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
    """The sequences of states that are not already results."""
    return [trace for trace in outs[2] if trace is not None and trace is not outs[0]]


def backward(saved: Saved, grads: Cotangents) -> Gradients:
    """Run the adjoint scan."""
    key, variant, steps, x, states, traces, params = saved
    dims = next((_memory_order(t) for t in (*traces, x if variant.recomputes else None) if t is not None), ())
    given = params if not dims else [_turned(p.expand(states[0].shape), dims) if p.numel() > 1 else p for p in params]
    states = [_turned(state, dims) for state in states]
    like, shape = states[0], states[0].shape
    zero = like.new_zeros(shape)
    dx = None
    if variant.grad == InputGrad.EACH:
        dx = buffer_pool.empty((steps, *shape), like)
    elif variant.grad == InputGrad.SUM:
        dx = like.new_zeros((1, *shape))
    carries = [
        zero.clone() if g is None else _turned(g, dims).clone(memory_format=torch.contiguous_format)
        for g in grads.final_states
    ]
    totals = [like.new_zeros(shape) if kind.learned else None for kind in variant.params]
    (read, stride), *cotangents = [
        (zero, 0) if t is None else rows(_turned(t, dims)) for t in (x, grads.spk, *grads.traces)
    ]
    elements = elements_recomputed(steps, len(states), like.element_size()) if variant.recomputes else 0
    threads = openmp.team_size(steps * shape.numel()) if elements else None
    if threads:
        rows_of_states = [buffer_pool.empty((threads, steps, elements), like) for _ in states]
    else:
        rows_of_states = [zero if trace is None else _turned(trace, dims).contiguous() for trace in traces]
    kernel(key, variant).run(
        steps=steps,
        size=shape.numel(),
        x=read,
        x_stride=stride,
        dx=dx,
        grad=[row for row, _ in cotangents],
        grad_stride=[stride for _, stride in cotangents],
        initial=[state.contiguous() for state in states],
        trace=rows_of_states,
        carry=carries,
        param=_spread(given, variant, shape),
        total=totals,
        block=elements or block_for(steps * like.nbytes),
        threads=threads,
    )
    sums = [
        None if total is None else sum_to(_back(total, dims).contiguous(), p)
        for total, p in zip(totals, params, strict=True)
    ]
    return Gradients(None if dx is None else _back(dx, dims), [_back(carry, dims) for carry in carries], sums)


def _memory_order(x: Tensor) -> tuple[int, ...]:
    """The dimensions of a row of a sequence [T, B, *N] in memory order, the outermost first; empty if the row is
    contiguous, or has gaps. B stays in front, so that T and B can be folded without a copy.

    The elements of a scan are independent, so a kernel processes them in any order that all its tensors share,
    as after a convolution with its channels last.
    """
    if x.dim() < 4 or x.is_contiguous() or x[0].is_contiguous():
        return ()
    dims = (0, *sorted(range(1, x.dim() - 1), key=lambda dim: -x.stride(dim + 1)))
    return dims if x[0].permute(dims).is_contiguous() else ()


def _turned(t: Tensor, dims: Sequence[int]) -> Tensor:
    """A row or sequence with the dimensions of a row in that order, if there is one."""
    lead = t.dim() - len(dims)
    return t.permute(*range(lead), *(lead + dim for dim in dims)) if dims else t


def _back(t: Tensor, dims: Sequence[int]) -> Tensor:
    """The inverse, for a result; detached, since it is an output and not a view."""
    return _turned(t, [dims.index(dim) for dim in range(len(dims))]).detach() if dims else t


class OneStep:
    """A kernel of one step, which reads and writes existing rows.

    Args:
        key, variant: of the kernel: a forward is `single`, a backward is not.
        like: a state, [*S], contiguous like all rows.
        params: the program's hoisted values.
        width: the offset between two inputs of an element, if there are several.
    """

    def __init__(self, key: str, variant: Variant, like: Tensor, params: Sequence[Tensor], width: int):
        inputs = len(structure_of(key).derivation.step.inputs)
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
        cotangents: Sequence[Tensor],
        totals: Sequence[Tensor | None],
    ) -> None:
        """Write the gradient of the input, replace the gradients of the new states by those of the old ones, and add to
        those of the parameters.

        Args:
            carries: the gradients of the states.
            cotangents: the gradients of the spikes and of the new states, without `carries`.
            totals: of the parameters; None if not required.
        """
        strides = [0] * len(cotangents)
        self.run(
            x=x, dx=dx, grad=cotangents, grad_stride=strides, initial=olds, trace=news, carry=carries, total=totals
        )
