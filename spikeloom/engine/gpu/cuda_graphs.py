"""CUDA graphs: work on a GPU that is captured once, and then replayed, which costs next to nothing to start."""

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from ...forks import in_child

_failed: list[tuple[tuple[Any, ...], str]] = []
"""What torch could not record, and why: the `_kind` of the tensors, and a sentence. Until `forget` is called."""

_recorder = Lock()
"""A process records one graph at a time."""


@in_child
def _renew_lock() -> None:
    global _recorder
    _recorder = Lock()


def _kind(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.dtype, x.device


def refusals(x: Tensor) -> Iterator[str]:
    """Why nothing is recorded for tensors like that one, in sentences."""
    if why := dict(_failed).get(_kind(x)):
        retry = f"it is tried again for {list(x.shape)} after spikeloom.utils.free_memory()"
        yield f"torch could not record steps as a CUDA graph: {why}; {retry}"
    elif captured(x):
        yield "a CUDA graph is being recorded around it, of which its steps become a part"


def captured(x: Tensor) -> bool:
    """Whether what runs now, on the device of x, is being recorded."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def recordable(x: Tensor) -> bool:
    """Whether there are CUDA graphs for work on the device of x."""
    return x.is_cuda and x.numel() > 0 and next(refusals(x), None) is None


def replayable(work: Callable[[], None], like: Tensor) -> Callable[[], None]:
    """The same work, to be done many times on the same memory: recorded, or, where that cannot be, as it is.

    Args:
        work: what reads and writes tensors that stay, and leaves no others. It may be done here once.
        like: a tensor on its device.
    """
    if not recordable(like):
        return work
    work()  # compiles kernels, which cannot be done while they are recorded
    with _recorder:
        try:
            return record(work, like.device)
        except RuntimeError as error:
            why = str(error).partition("\n")[0]
            _failed.append((_kind(like), why))
    warnings.warn(
        f"torch could not record the steps of a recurrent layer of shape {list(like.shape)} as a CUDA graph ({why}): "
        "they are started one by one, which gives the same results and takes longer",
        stacklevel=2,
    )
    return work


def record(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What replays the work, on the stream that is the current one of a device."""
    current, graph = torch.cuda.current_stream(device), torch.cuda.CUDAGraph()
    pool, side = _place(device, current.cuda_stream)
    # the outer context goes back to the current stream where recording fails; the inner one does not
    with torch.cuda.stream(current), torch.cuda.graph(graph, pool, side, capture_error_mode="thread_local"):
        work()
    replay: Callable[[], None] = graph.replay
    return replay


@cache
def _place(device: torch.device, stream: int) -> tuple[Any, torch.cuda.Stream]:
    """Where graphs that are replayed on a stream keep intermediate results, and the stream on which they are recorded.

    They share that memory, for each is done before the next begins and leaves nothing there. With it they share the
    workspace that torch gives to cuBLAS for each stream: its address is recorded, so it may not die with one of them.
    """
    return torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)


def forget() -> None:
    """Called when no graph is left: what is recorded from now on has memory of its own, and what failed is tried."""
    _place.cache_clear()
    _failed.clear()
