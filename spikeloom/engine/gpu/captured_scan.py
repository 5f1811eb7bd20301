"""Scans on a GPU with a product between two steps, which are captured as CUDA graphs, and replayed.

What comes back through the product are the spikes, in layers too wide for the kernel of `recurrent`, or the membrane,
the last state, as in `run/stepwise.py`. A step is a product by torch and a kernel for the rest, forward and backward,
which Python starts one by one. Here up to `graph_steps` steps are recorded once, as a CUDA graph, and a sequence is
taken apart into such runs, the last ones shorter.

What is recorded works on the same memory at each replay: what a run needs is copied there, what it gives is copied
away, and what it leaves to the next run stays. Autograd sees none of it: the backward is a recording of its own, which
reads the states that the forward has kept.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from threading import Lock
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.nn import functional

from ...forks import in_child
from .. import tuning
from ..feedback import Map, Recurrence, as_rows
from ..graph import Gradients, InputGrad, Param, State, Variant
from ..jit import sum_to
from .cuda_graphs import captured, forget, replayable
from .launch import OneStep

KEPT = 8
"""Recordings, forward or backward, whose memory is kept; of more, the one that was not used for the longest goes."""


@dataclass(frozen=True)
class Kind:
    """What a recording is made for.

    Args:
        key, variant: of the scan.
        map: by which the membrane comes back; None where the spikes do, by an nn.Linear.
        shape, dtype, device: of a state, [*S].
        row, weight: the shapes of what a step gets, and of the weight.
        stream: on which it is replayed.
        precision: of products, as torch is set.
        params: shape and dtype of each of the program's hoisted values.
        given: forward, whether there is a bias; backward, which sequences have a gradient: the spikes, each state.
    """

    key: str
    variant: Variant
    map: Map | None
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    row: torch.Size
    weight: torch.Size
    stream: int
    precision: tuple[Any, ...]
    params: tuple[tuple[torch.Size, torch.dtype], ...]
    given: tuple[bool, ...]

    @staticmethod
    def of(
        key: str,
        variant: Variant,
        map: Map | None,
        like: Tensor,
        row: torch.Size,
        weight: Tensor,
        params: Sequence[Tensor],
        given: Iterable[Tensor | None],
    ) -> "Kind":
        """That of a scan whose states are like that one."""
        stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else 0
        told, there = tuple((p.shape, p.dtype) for p in params), tuple(tensor is not None for tensor in given)
        state, precision = (like.shape, like.dtype, like.device), _precision("cuda" if like.is_cuda else "cpu")
        return Kind(key, variant, map, *state, row, weight.shape, stream, precision, told, there)


def _precision(device: str) -> tuple[Any, ...]:
    """Of products on a kind of device."""
    lowered = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return torch.backends.cuda.matmul.fp32_precision, convolutions.fp32_precision, lowered


_alive: "WeakSet[_Recording]" = WeakSet()


@in_child
def _renew_locks() -> None:
    for recording in list(_alive):
        recording.lock = Lock()


class _Recording:
    """Steps over memory of their own, in runs that are recorded as they are needed; for one thread at a time.

    Attributes:
        states: what comes back, the spikes or the last state, and the states, [*S]; in the backward their gradients.
            What a run starts from and leaves.
        kept: the sequences of each state, and of what a step gets in full; None where it is not kept.
    """

    def __init__(self, kind: Kind, extra: int = 0):
        variant, count, map = kind.variant, len(kind.variant.states) - 1, kind.map
        self.lock, self.replays, self.map = Lock(), dict[int, Callable[[], None]](), map
        _alive.add(self)
        self.zeros = partial(torch.zeros, dtype=kind.dtype, device=kind.device)
        self.sequence = lambda extra=0: self.zeros((tuning.limits.graph_steps + extra, *kind.shape))
        states = [self.zeros(kind.shape) for _ in range(count)]
        self.states = [states[-1] if map else self.zeros(kind.shape), *states]
        *kept, full = (state == State.SAVED for state in variant.states)
        self.kept = [self.sequence(extra) if there else None for there in kept]
        self.kept.append(self.zeros((tuning.limits.graph_steps, *kind.row)) if full else None)
        self.weight = self.zeros(kind.weight)
        # one per element is spread here, and not again at every step
        self.params = [
            self.zeros(shape if param.fixed == Param.NUMBER else kind.shape, dtype=dtype)
            for (shape, dtype), param in zip(kind.params, variant.params, strict=True)
        ]
        grad = InputGrad.EACH if variant.grad else InputGrad.FORWARD
        step = Variant.of(variant.dtype, variant.params, (State.DROPPED,) * count, grad, variant.target)
        width = kind.shape[map.axis :].numel() if map else 0
        self.step = OneStep(kind.key, step, self.states[-1], self.params, width)

    def steps(self, count: int) -> None:
        """What is recorded."""
        raise NotImplementedError

    def runs(self, steps: int) -> list[slice]:
        """A sequence as runs that can be replayed: of `graph_steps` steps, then of half as many, and so on."""
        at, length, found = 0, tuning.limits.graph_steps, list[slice]()
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
        self.x, self.spk = self.zeros((tuning.limits.graph_steps, *kind.row)), self.sequence()
        self.bias = self.zeros(kind.weight[:1]) if kind.given[0] else None
        # of what is not kept a row for the step before, and one for this one
        shapes = [kind.shape] * (len(self.kept) - 1) + [kind.row]
        self.rows = [
            self.zeros((2, *shape)) if rows is None else rows for rows, shape in zip(self.kept, shapes, strict=True)
        ]

    def steps(self, count: int) -> None:
        back, *states = self.states
        for t in range(count):
            *news, full = (rows[t % len(rows)] for rows in self.rows)
            fed = (
                functional.linear(back, self.weight, self.bias) if self.map is None else self.map.of(self.weight, back)
            )
            torch.add(self.x[t], fed, out=full)
            self.step.forward(full, self.spk[t], states, news)
            back, states = self.spk[t] if self.map is None else news[-1], news
        _copy(self.states, [back, *states])


@torch.no_grad()
def forward(
    plan: Recurrence,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
) -> tuple[list[Tensor], Tensor | None]:
    """Run the scan; see `run.recurrent.Runner`."""
    steps, like, row = plan.steps, states[0], x.shape[1:]
    ours = _recording(
        _Forward, Kind.of(plan.key, plan.variant.forward, plan.map, like, row, weight, params, [bias]), like
    )
    xs = x.expand(steps, *row)
    with ours.lock:
        runs = ours.runs(steps)
        _copy([ours.weight, ours.bias, *ours.states, *ours.params], [weight, bias, *states, *params])
        kept = [ours.spk, *ours.kept]
        outs = [None if rows is None else rows.new_empty((steps, *rows.shape[1:])) for rows in kept]
        for at in runs:
            count = at.stop - at.start
            ours.x[:count].copy_(xs[at])
            ours.replays[count]()
            _copy(_part(outs, at), _part(kept, slice(count)))
        finals = [state.clone() for state in ours.states[1:]]
    spk, *traces, full = outs
    return [spk, *finals, *(trace for trace in traces if trace is not None)], full


class _Backward(_Recording):
    def __init__(self, kind: Kind):
        super().__init__(kind, extra=1)  # the state before the first step of a run, too
        self.pulls = [self.sequence() if there else None for there in kind.given]
        self.dx, self.zero = self.zeros((tuning.limits.graph_steps, *kind.row)), self.zeros(kind.shape)
        self.totals = [self.zeros(kind.shape) if param.learned else None for param in kind.variant.params]

    def _rows(self, sequences: Sequence[Tensor | None], t: int) -> list[Tensor]:
        """One of each; where there is none, zero, or what nobody reads."""
        return [self.zero if sequence is None else sequence[t] for sequence in sequences]

    def steps(self, count: int) -> None:
        (back, *carries), (*traces, full) = self.states, self.kept
        for t in reversed(range(count)):
            (x,), dx = self._rows([full], t), self.dx[t]
            pulls, states = self._rows(self.pulls, t), (self._rows(traces, t), self._rows(traces, t + 1))
            if self.map is None:
                pulls[0] = back.add_(pulls[0])
            self.step.backward(x, dx, *states, carries, pulls, self.totals)
            if self.map is None:
                torch.mm(as_rows(dx), self.weight, out=as_rows(back))
            else:
                self.map.add_mem_gradient(self.weight, dx, back)


def backward(
    plan: Recurrence,
    weight: Tensor,
    full: Tensor | None,
    states: Sequence[Tensor],
    traces: Sequence[Tensor | None],
    params: Sequence[Tensor],
    pulls: Sequence[Tensor | None],
    finals: Sequence[Tensor | None],
) -> Gradients:
    """Run the adjoint scan; see `run.recurrent.Runner`."""
    like, row = states[0], states[0].shape if full is None else full.shape[1:]
    ours = _recording(_Backward, Kind.of(plan.key, plan.variant, plan.map, like, row, weight, params, pulls), like)
    dx = like.new_empty((plan.steps, *row))
    with ours.lock:
        runs = ours.runs(plan.steps)
        _copy([ours.weight, *ours.params], [weight, *params])
        _fill([*ours.states, *ours.totals], [None, *finals, *[None] * len(params)])
        *kept, fulls = ours.kept
        for at in reversed(runs):
            count = at.stop - at.start
            _copy(_part([fulls, *ours.pulls], slice(count)), _part([full, *pulls], at))
            before = states[1:] if not at.start else [t if t is None else t[at.start - 1] for t in traces]
            _copy([rows if rows is None else rows[0] for rows in kept], before)
            _copy(_part(kept, slice(1, count + 1)), _part(traces, at))
            ours.replays[count]()
            dx[at].copy_(ours.dx[:count])
        carries = [state.clone() for state in ours.states]
        pairs = zip(ours.totals, params, strict=True)
        sums = [None if total is None else sum_to(total.clone(), p) for total, p in pairs]
    return Gradients(dx, carries, sums)
