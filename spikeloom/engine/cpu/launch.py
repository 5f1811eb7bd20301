"""Running a program's kernels on the CPU: tensors in, tensors out; `run/autograd.py` makes them differentiable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .. import tuning
from ..graph import Constants, Derivation, Gradients, Variant, program_of
from ..jit import BLOCK, STRIP, address, block_for, buffer_pool, compiled, openmp, room_for, rows, spread, sum_to
from .source import emit, own_words, streamed

Emitter = Callable[[Derivation, Variant, str, bool, bool], str]

_kernels: dict[tuple[str, str, Emitter], openmp.Entry] = {}


def kernel(key: str, variant: Variant, emitter: Emitter = emit) -> openmp.Entry:
    """A kernel of a program, compiled at first use and kept for the life of the process."""
    entry = _kernels.get((key, variant.code, emitter))
    if entry is None:
        source = partial(emitter, program_of(key).derivation, variant, f"A scan, {variant.code}.")
        entry = _kernels[key, variant.code, emitter] = compiled(source)
    return entry


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
        return self._permuted(t, self.dims)

    def back(self, t: Tensor) -> Tensor:
        """The same the other way."""
        return self._permuted(t, [self.dims.index(dim) for dim in range(len(self.dims))])

    def _permuted(self, t: Tensor, dims: Sequence[int]) -> Tensor:
        lead = t.dim() - len(dims)
        return t.permute(*range(lead), *(lead + dim for dim in dims)) if dims else t

    def spread(self, param: Tensor, shape: torch.Size) -> Tensor:
        """A hoisted value, one number or broadcast over rows [B, *N], likewise."""
        return self.turned(param.expand(shape)) if self.dims and param.numel() > 1 else param


Outputs = tuple[Tensor, list[Tensor], list[Tensor | None]]
"""Spikes [T, *S]; the last states [*S]; the states after every step [T, *S], None where the variant does not keep one.

A state that is the spikes themselves is the same tensor.
"""


def forward(
    key: str,
    code: str,
    steps: int,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
) -> Outputs:
    """Run the scan. Sequences lie in memory as the input does."""
    order, shape = Order.of(x), x.shape[1:]
    if not order.dims:
        return _forward(key, code, steps, x, states, params)
    turned = [order.spread(p, shape) for p in params]
    spk, finals, traces = _forward(key, code, steps, order.turned(x), [order.turned(s) for s in states], turned)
    back = order.back(spk).detach()  # detached: no view, but an output, and so are the others
    told = [None if trace is None else back if trace is spk else order.back(trace).detach() for trace in traces]
    return back, [order.back(final).detach() for final in finals], told


def _forward(
    key: str,
    code: str,
    steps: int,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
) -> Outputs:
    variant, shape = Variant.parse(code), x.shape[1:]
    x, stride = rows(x)
    spk = buffer_pool.empty((steps, *shape), x)
    finals = [s.clone(memory_format=torch.contiguous_format) for s in states]
    stored = [buffer_pool.empty((steps, *shape), spk) for _ in range(variant.traced.count("1"))]
    traces = all_traces(variant.traced, spk, stored)
    words = [steps, shape.numel(), 0, x.data_ptr(), stride, spk.data_ptr()]
    for k, final in enumerate(finals):
        words += [final.data_ptr(), address(traces[k])]
    if type(params) is Constants:
        words += params.addresses
    else:
        params = [spread(p, kind, shape) for p, kind in zip(params, variant.params, strict=True)]
        words += [p.data_ptr() for p in params]
    block, strips, team = block_for(spk.nbytes), None, None
    if stride == 0 and spk.nbytes >= tuning.limits.stream_stores_from:
        block = BLOCK
        team = openmp.team_size(spk.numel())
        strips = spk.new_empty(team * len(streamed(variant)) * STRIP)
    kernel(key, variant.forward).run([*words, block, address(strips)], team)
    return spk, finals, traces


def all_traces(traced: str, spk: Tensor, stored: Sequence[Tensor]) -> list[Tensor | None]:
    """A sequence for each state (see `Variant.traced`): one of those stored, the spikes, or None."""
    left = list(stored)
    return [None if letter in "0r" else spk if letter == "s" else left.pop(0) for letter in traced]


def by_themselves(outs: Outputs) -> list[Tensor]:
    """The sequences of states that are none of the other results."""
    return [trace for trace in outs[2] if trace is not None and trace is not outs[0]]


def backward(
    key: str,
    code: str,
    steps: int,
    x: Tensor | None,
    states: Sequence[Tensor],
    traces: Sequence[Tensor | None],
    params: Sequence[Tensor],
    grad_spk: Tensor | None,
    grad_finals: Sequence[Tensor | None],
    grad_traces: Sequence[Tensor | None],
) -> Gradients:
    """Run the adjoint scan; a gradient that is None is zero.

    Args:
        x: the input, if the adjoint reads it.
        states: before the first step, [*S].
        traces: after every step, [T, *S]; None where the adjoint does not read one.
    """
    variant = Variant.parse(code)
    order = next((Order.of(t) for t in (*traces, x if variant.again else None) if t is not None), Order())
    given, states = states[0].shape, [order.turned(state) for state in states]
    like = states[0]
    shape = like.shape
    zero = like.new_zeros(shape)
    held: list[Tensor] = [zero]  # what the kernel reads must outlive the call

    def read(sequence: Tensor | None) -> list[int]:
        row, stride = rows(order.turned(sequence)) if sequence is not None else (zero, 0)
        held.append(row)
        return [row.data_ptr(), stride]

    dx = None
    if variant.grad == "each":
        dx = buffer_pool.empty((steps, *shape), like)
    elif variant.grad == "sum":
        dx = like.new_zeros((1, *shape))
    carries = [
        zero.clone() if g is None else order.turned(g).clone(memory_format=torch.contiguous_format) for g in grad_finals
    ]
    totals = [like.new_zeros(shape) if kind.isupper() else None for kind in variant.params]
    words = [steps, shape.numel(), 0, *read(x), address(dx), *read(grad_spk)]
    room = room_for(steps, len(states), like.element_size()) if variant.again else 0
    team = openmp.team_size(steps * shape.numel()) if room else None
    if team:
        traces = [buffer_pool.empty((team, steps, room), like) for _ in states]
    for initial, trace, carry in zip(states, traces, carries, strict=True):
        trace = zero if trace is None else trace if room else order.turned(trace).contiguous()
        olds = [initial.contiguous(), trace]
        held += olds
        words += [*map(address, olds), carry.data_ptr()]
    for g in grad_traces:
        words += read(g)
    for p, kind, total in zip(params, variant.params, totals, strict=True):
        held.append(spread(order.spread(p, given), kind, shape))
        words += [held[-1].data_ptr(), address(total)]
    kernel(key, variant).run([*words, room or block_for(steps * like.nbytes)], team)
    sums = [
        None if total is None else sum_to(order.back(total).contiguous(), p)
        for total, p in zip(totals, params, strict=True)
    ]
    return Gradients(None if dx is None else order.back(dx), [order.back(carry) for carry in carries], sums)


class OneStep:
    """A kernel of one step, which reads and writes rows that are there.

    Args:
        key, variant: of the kernel: forward, whose states have the letter n, or backward, whose states have another.
        like: a state, [*S], contiguous as all rows.
        params: the program's hoisted values.
        width: how many elements lie between two inputs of one, if there are several.
    """

    def __init__(self, key: str, variant: Variant, like: Tensor, params: Sequence[Tensor], width: int):
        derivation = program_of(key).derivation
        self.entry, self.size = kernel(key, variant), like.numel()
        self.held = [spread(p, kind, like.shape) for p, kind in zip(params, variant.params, strict=True)]
        self.params = [p.data_ptr() for p in self.held]
        self.last = [width] if len(derivation.trace.inputs) > 1 else [BLOCK] * len(own_words(variant))

    def forward(self, x: Tensor, spk: Tensor, olds: Sequence[Tensor], news: Sequence[Tensor]) -> None:
        """Write the spikes and the new states."""
        words = [1, self.size, 0, x.data_ptr(), 0, spk.data_ptr()]
        for old, new in zip(olds, news, strict=True):
            words += (old.data_ptr(), new.data_ptr())
        self.entry.run([*words, *self.params, *self.last])

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
        grad_spk, *more = (pull.data_ptr() for pull in pulls)
        words = [1, self.size, 0, x.data_ptr(), 0, dx.data_ptr(), grad_spk, 0]
        for old, new, carry in zip(olds, news, carries, strict=True):
            words += (old.data_ptr(), new.data_ptr(), carry.data_ptr())
        for grad in more:
            words += (grad, 0)
        for param, total in zip(self.params, totals, strict=True):
            words += (param, address(total))
        self.entry.run([*words, *self.last])
