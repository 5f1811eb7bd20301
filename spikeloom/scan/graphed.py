"""The recurrent scan on a GPU of layers too wide for `triton_recurrent`'s kernel: steps are recorded, and replayed.

A step is a product by torch and a kernel for the rest, forward and backward, which Python starts one by one. Here up to
`LONGEST` steps are recorded once, as a CUDA graph, and a sequence is taken apart into such runs, the last ones shorter.
What is recorded works on the same memory at each replay: what a run needs is copied there, what it gives is copied
away, and what it leaves to the next run stays. Autograd sees none of it: the backward is a recording of its own, which
reads the states that the forward has kept.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from . import triton_kernels
from .emit_numba import Variant
from .kernels import Gradients, sum_to
from .recurrent import Plan, placed
from .replay import captured, forget, replayable

LONGEST = 32
"""Steps of a graph, a power of two. A plain choice: what it takes to start one is then shared by a hundred kernels."""

KEPT = 8
"""Recordings, forward or backward, whose memory is kept; of more, the one that was not used for the longest goes."""


@dataclass(frozen=True)
class Kind:
    """What a recording is made for.

    Args:
        key, variant: of the scan.
        shape, dtype, device: of a state, [*S].
        stream: on which it is replayed.
        precision: of products in float32, as torch is set.
        params: shape and dtype of each of the program's hoisted values.
        given: forward, whether there is a bias; backward, which sequences have a gradient: the spikes, each state.
    """

    key: str
    variant: Variant
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    stream: int
    precision: str
    params: tuple[tuple[torch.Size, torch.dtype], ...]
    given: tuple[bool, ...]

    @staticmethod
    def of(
        key: str, variant: Variant, like: Tensor, params: Sequence[Tensor], given: Iterable[Tensor | None]
    ) -> "Kind":
        """That of a scan whose states are like that one."""
        stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else 0
        precision = torch.backends.cuda.matmul.fp32_precision
        told, there = tuple((p.shape, p.dtype) for p in params), tuple(tensor is not None for tensor in given)
        return Kind(key, variant, like.shape, like.dtype, like.device, stream, precision, told, there)


class _Recording:
    """Steps over memory of their own, in runs that are recorded as they are needed; for one thread at a time.

    Attributes:
        states: the spikes and the states, [*S]; in the backward their gradients. What a run starts from and leaves.
        kept: the sequences of each state, and of the current; None where it is not kept.
    """

    def __init__(self, kind: Kind, extra: int = 0):
        variant, count = kind.variant, len(kind.variant.traced) - 1
        self.lock, self.replays = Lock(), dict[int, Callable[[], None]]()
        self.key = kind.key
        self.code = Variant(variant.dtype, variant.params, "0" * count, variant.grad and "each", variant.machine).code
        zeros = partial(torch.zeros, dtype=kind.dtype, device=kind.device)
        self.sequence = lambda extra=0: zeros((LONGEST + extra, *kind.shape))
        self.states = [zeros(kind.shape) for _ in range(count + 1)]
        *kept, current = (digit == "1" for digit in variant.traced)
        self.kept = [*(self.sequence(extra) if there else None for there in kept), self.sequence() if current else None]
        self.weight = zeros(kind.shape[-1:] * 2)
        # one per element is spread here, and not again at every step
        self.params = [
            zeros(shape if letter in "uU" else kind.shape, dtype=dtype)
            for (shape, dtype), letter in zip(kind.params, variant.params, strict=True)
        ]

    def steps(self, count: int) -> None:
        """What is recorded."""
        raise NotImplementedError

    def runs(self, steps: int) -> list[slice]:
        """A sequence as runs that can be replayed: of LONGEST steps, then of half as many, and so on."""
        at, length, found = 0, LONGEST, list[slice]()
        while at < steps:
            while length > steps - at:
                length //= 2
            if length not in self.replays:
                self.replays[length] = replayable(partial(self.steps, length), self.states[0])
            found.append(slice(at, at + length))
            at += length
        return found


@lru_cache(maxsize=KEPT)
def _kept(make: Callable[[Kind], Any], kind: Kind) -> Any:
    with torch.inference_mode(False):
        return make(kind)


def _recording(make: Callable[[Kind], Any], kind: Kind, like: Tensor) -> Any:
    """One that is kept, unless a graph that is recorded now by others would go on using its memory."""
    return _kept.__wrapped__(make, kind) if captured(like) else _kept(make, kind)


def release() -> None:
    """Let go of all that is kept."""
    _kept.cache_clear()
    forget()


def _fill(ours: Sequence[Tensor | None], given: Sequence[Tensor | None]) -> None:
    """Copy into memory that is used again; a gradient that is not given is zero."""
    for memory, tensor in zip(ours, given, strict=True):
        if memory is not None:
            memory.zero_() if tensor is None else memory.copy_(tensor)


def _copy(ours: Sequence[Tensor | None], given: Sequence[Tensor | None]) -> None:
    """Copy what there is."""
    for memory, tensor in zip(ours, given, strict=True):
        if memory is not None and tensor is not None:
            memory.copy_(tensor)


def _part(sequences: Sequence[Tensor | None], steps: slice) -> list[Tensor | None]:
    return [None if sequence is None else sequence[steps] for sequence in sequences]


class _Forward(_Recording):
    def __init__(self, kind: Kind):
        super().__init__(kind)
        self.x, self.spk = self.sequence(), self.sequence()
        self.bias = self.weight[0].clone() if kind.given[0] else None

    def steps(self, count: int) -> None:
        (spk, *states), rows = self.states, []
        for x in self.x[:count]:
            current = x + functional.linear(spk, self.weight, self.bias)
            call = self.key, self.code, 1, current.unsqueeze(0), states, self.params
            (spk,), states, _ = triton_kernels.forward(*call)
            rows.append((spk, *states, current))
        for sequence, values in zip(_part([self.spk, *self.kept], slice(count)), zip(*rows, strict=True), strict=True):
            if sequence is not None:
                torch.stack(values, out=sequence)
        _copy(self.states, [spk, *states])


@torch.no_grad()
def forward(
    plan: Plan, x: Tensor, weight: Tensor, bias: Tensor | None, states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor | None]:
    """Run the scan; see `triton_recurrent.forward`."""
    like, xs = states[0], x.expand(plan.steps, *x.shape[1:])
    ours = _recording(_Forward, Kind.of(plan.key, plan.variant.forward, like, params, [bias]), like)
    with ours.lock:
        runs = ours.runs(plan.steps)
        _copy([ours.weight, ours.bias, *ours.states, *ours.params], [weight, bias, *states, *params])
        kept = [ours.spk, *ours.kept]
        outs = [None if rows is None else like.new_empty((plan.steps, *like.shape)) for rows in kept]
        for at in runs:
            count = at.stop - at.start
            ours.x[:count].copy_(xs[at])
            ours.replays[count]()
            _copy(_part(outs, at), _part(kept, slice(count)))
        finals = [state.clone() for state in ours.states[1:]]
    spk, *traces, current = outs
    return [spk, *finals, *(trace for trace in traces if trace is not None)], current


class _Backward(_Recording):
    def __init__(self, kind: Kind):
        super().__init__(kind, extra=1)  # the state before the first step of a run, too
        self.dx, self.pulls = self.sequence(), [self.sequence() if there else None for there in kind.given]
        pairs = zip(self.params, kind.variant.params, strict=True)
        self.totals = [torch.zeros_like(p, dtype=kind.dtype) if letter.isupper() else None for p, letter in pairs]

    def steps(self, count: int) -> None:
        (back, *carries), (*traces, current), rows = self.states, self.kept, []
        for t in reversed(range(count)):
            at = slice(t, t + 1)
            olds = [back if trace is None else trace[t] for trace in traces]  # of the one nothing is read
            spk, *pulls = _part(self.pulls, at)
            spk = back.unsqueeze(0) if spk is None else spk + back
            x, news = None if current is None else current[at], _part(traces, slice(t + 1, t + 2))
            g = triton_kernels.backward(self.key, self.code, 1, x, olds, news, self.params, spk, carries, pulls)
            assert g.x is not None
            back, carries = g.x[0] @ self.weight, g.states
            rows.append(g.x)
            for total, more in zip(self.totals, g.params, strict=True):
                if total is not None and more is not None:
                    total += more
        torch.cat(rows[::-1], out=self.dx[:count])
        _copy(self.states, [back, *carries])


def backward(
    plan: Plan,
    weight: Tensor,
    current: Tensor | None,
    states: Sequence[Tensor],
    traces: Sequence[Tensor | None],
    params: Sequence[Tensor],
    grads: Sequence[Tensor | None],
) -> Gradients:
    """Run the adjoint scan; see `triton_recurrent.backward`."""
    like, n = states[0], len(states)
    pulls = [grads[0], *placed(plan, iter(grads[1 + n :]))]
    ours = _recording(_Backward, Kind.of(plan.key, plan.variant, like, params, pulls), like)
    dx = like.new_empty((plan.steps, *like.shape))
    with ours.lock:
        runs = ours.runs(plan.steps)
        _copy([ours.weight, *ours.params], [weight, *params])
        _fill([*ours.states, *ours.totals], [None, *grads[1 : 1 + n], *[None] * len(params)])
        *kept, currents = ours.kept
        for at in reversed(runs):
            count = at.stop - at.start
            _copy(_part([currents, *ours.pulls], slice(count)), _part([current, *pulls], at))
            before = states if not at.start else [t if t is None else t[at.start - 1] for t in traces]
            _copy([rows if rows is None else rows[0] for rows in kept], before)
            _copy(_part(kept, slice(1, count + 1)), _part(traces, at))
            ours.replays[count]()
            dx[at].copy_(ours.dx[:count])
        carries = [state.clone() for state in ours.states]
        pairs = zip(ours.totals, params, strict=True)
        sums = [None if total is None else sum_to(total.clone(), p) for total, p in pairs]
    return Gradients(dx, carries, sums)
