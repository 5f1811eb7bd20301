"""CUDA graphs: steps on a GPU are captured once and then replayed with little launch overhead.

A step of a recurrent layer is one product by torch and one kernel, both launched from Python. A long scan is cut into
runs of `graph_steps` steps, the last ones shorter, and each run is captured as a separate scan. Its inputs are copied
to the captured buffers, and its results out of them. The backward pass is captured, too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from ..._torch import TreeSpec, tree_flatten, tree_unflatten
from ...caller import warn_caller
from ...forks import in_child
from .. import tuning
from ..feedback import Recurrence, Runner
from ..graph import Cotangents, Gradients, InputGrad, Saved, add

_failed: list[tuple[tuple[Any, ...], str]] = []
"""Captures that failed: the `_kind` of the tensors, and the reason as a sentence. `release` clears the list."""

_lock = Lock()
"""Held while a graph is captured or replayed, because all graphs share memory (see `_place`)."""


@in_child
def _renew_lock() -> None:
    global _lock
    _lock = Lock()


def _kind(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.dtype, x.device


def refusals(x: Tensor) -> Iterator[str]:
    """The reasons why CUDA graphs are not used for tensors like this one."""
    if why := dict(_failed).get(_kind(x)):
        retry = f"it is tried again for {list(x.shape)} after spikeloom.utils.free_memory()"
        yield f"torch could not record steps as a CUDA graph: {why}; {retry}"
    elif captured(x):
        yield "a CUDA graph is being captured around it and records its steps one by one"


def captured(x: Tensor) -> bool:
    """Whether work on the device of x is being captured."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def capturable(x: Tensor) -> bool:
    """Whether work on the device of x can be captured as a CUDA graph."""
    return x.is_cuda and x.numel() > 0 and next(refusals(x), None) is None


class CapturedScan:
    """A `Runner` that captures and replays the steps of another, which must not synchronize with the CPU."""

    def __init__(self, runner: Runner):
        self.runner = runner

    @torch.no_grad()
    def forward(
        self,
        plan: Recurrence,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        states: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[list[Tensor], Tensor | None]:
        """Run the scan; see `Runner`."""
        plan, T = replace(plan, variant=plan.variant.forward), plan.steps
        if not T or captured(states[0]):
            return self.runner.forward(plan, x, weight, bias, states, params)
        outs: list[Tensor | None] = []
        with _lock:
            for run in _runs(T):
                x_run = x if len(x) == 1 else x[run]
                call = (_part(plan, run), x_run, weight, bias, [*states], [*params])
                (spk, *rest), full = _replayed(self.runner.forward, states[0], call)
                final_states, sequences = rest[: len(states) - 1], [spk, *rest[len(states) - 1 :], full]
                states = [spk[-1] if plan.map is None else final_states[-1], *final_states]
                outs = outs or [None if s is None else s.new_empty((T, *s.shape[1:])) for s in sequences]
                for out, sequence in zip(outs, sequences, strict=True):
                    if out is not None:
                        out[run] = sequence
            lasts = [state.clone() for state in states[1:]]
        *results, full = outs
        spk, *traces = [out for out in results if out is not None]
        return [spk, *lasts, *traces], full

    def backward(self, plan: Recurrence, weight: Tensor, saved: Saved, grads: Cotangents) -> Gradients:
        """Run the adjoint scan; see `Runner`."""
        like, T = saved.states[0], plan.steps
        if not T or captured(like):
            return self.runner.backward(plan, weight, saved, grads)
        dx = like.new_empty((T, *like.shape) if saved.x is None else saved.x.shape)
        carries = [like.new_zeros(like.shape) if g is None else g for g in grads.final_states]
        totals: list[Tensor | None] = [None for _ in saved.params]
        with _lock:
            for run in reversed(_runs(T)):
                full, spk, *sequences = [None if s is None else s[run] for s in (saved.x, grads.spk, *grads.traces)]
                traces, (back, *states) = [None if s is None else s[run] for s in saved.traces], saved.states
                if run.start:
                    pairs = zip(states, saved.traces, strict=True)
                    states = [state if trace is None else trace[run.start - 1] for state, trace in pairs]
                part = _part(plan, run)
                read = Saved(plan.key, plan.variant, part.steps, full, [back, *states], traces, [*saved.params])
                g = _replayed(self.runner.backward, like, (part, weight, read, Cotangents(spk, carries, sequences)))
                dx[run], carries = g.x, g.states
                totals = [*map(add, totals, [None if new is None else new.clone() for new in g.params])]
            carries = [carry.clone() for carry in carries]
        sums = [None if total is None else total.to(p.device) for total, p in zip(totals, saved.params, strict=True)]
        return Gradients(dx, carries, sums)


def _runs(steps: int) -> list[slice]:
    """Split a sequence into runs of `graph_steps` steps, then of half as many, and so on."""
    at, length, runs = 0, tuning.limits.graph_steps, list[slice]()
    while at < steps:
        while length > steps - at:
            length //= 2
        runs.append(slice(at, at + length))
        at += length
    return runs


def _part(plan: Recurrence, run: slice) -> Recurrence:
    """The plan of one run, without what differs between equal layers, so that these share its graph."""
    return replace(plan, steps=run.stop - run.start, layer="", x_grad=InputGrad.EACH, weight_learns=True)


# -- graphs -----------------------------------------------------------------------------------------------------------


def _replayed(function: Callable[..., Any], like: Tensor, call: tuple[Any, ...]) -> Any:
    """Return function(*call), captured at the first call of its kind. The next replay overwrites the results."""
    leaves, form = tree_flatten(call)
    kind = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else 0
    memories, replay = _graph(function, kind, form, _kind(like), stream, _precision("cuda" if like.is_cuda else "cpu"))
    for memory, leaf in zip(memories, leaves, strict=True):
        if isinstance(leaf, Tensor):
            memory.copy_(leaf)
    return replay()


def _precision(device: str) -> tuple[Any, ...]:
    """The precision settings of products on a type of device."""
    lowered = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return torch.backends.cuda.matmul.fp32_precision, convolutions.fp32_precision, lowered


@lru_cache(maxsize=tuning.triton_shapes.graphs)
def _graph(
    function: Callable[..., Any],
    kind: tuple[Any, ...],
    form: TreeSpec,
    state: tuple[torch.Size, torch.dtype, torch.device],
    stream: int,
    precision: tuple[Any, ...],
) -> tuple[list[Any], Callable[[], Any]]:
    """Capture a call; return its input memory, and a function that replays it and returns its results.

    Args:
        function: the function to capture.
        kind: for each leaf of the arguments its shape and dtype, or the leaf itself if it is not a tensor.
        form: the structure of the arguments.
        state: the kind of a state.
        stream: the stream on which the graph is replayed.
        precision: the precision of its products.
    """
    shape, dtype, device = state
    with torch.inference_mode(False), torch.no_grad():
        memory = [torch.zeros(k[0], dtype=k[1], device=device) if isinstance(k, tuple) else k for k in kind]
        like = torch.empty(shape, dtype=dtype, device=device)
        return memory, replayable(partial(function, *tree_unflatten(memory, form)), like)


def replayable(work: Callable[[], Any], like: Tensor) -> Callable[[], Any]:
    """Capture work that is repeated on the same memory. If it cannot be captured, return it as it is.

    Args:
        work: reads tensors whose memory stays allocated. It may be called here once.
        like: a tensor on its device.
    """
    if not capturable(like):
        return work
    work()  # compiles kernels, which cannot be done while they are captured
    try:
        return capture(work, like.device)
    except RuntimeError as error:
        why = str(error).partition("\n")[0]
        _failed.append((_kind(like), why))
    warn_caller(
        f"torch could not record the steps of a recurrent layer of shape {list(like.shape)} as a CUDA graph ({why}): "
        "they are started one by one, which gives the same results and takes longer"
    )
    return work


def capture(work: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """Capture work; the returned function replays it on the current stream of a device and returns its results."""
    current, graph = torch.cuda.current_stream(device), torch.cuda.CUDAGraph()
    pool, side = _place(device, current.cuda_stream)
    # the outer context restores the current stream if the capture fails; the inner one does not
    with torch.cuda.stream(current), torch.cuda.graph(graph, pool, side, capture_error_mode="thread_local"):
        results = work()

    def replay() -> Any:
        graph.replay()
        return results

    return replay


@cache
def _place(device: torch.device, stream: int) -> tuple[Any, torch.cuda.Stream]:
    """The memory for the results of graphs that are replayed on a stream, and the stream on which they are captured.

    All graphs share this memory, since results are copied before the next graph is replayed. They also share the
    workspace that torch gives to cuBLAS for each stream: graphs capture its address, so it must outlive them.
    """
    return torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)


def release() -> None:
    """Release all graphs and their memory. Later captures allocate new memory, and failed captures are tried again."""
    _graph.cache_clear()
    _place.cache_clear()
    _failed.clear()
