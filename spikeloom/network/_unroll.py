"""A network over all time at once: its forward is called a single time, with time folded into dimension 0.

`unroll` runs a whole sequence; `stream` one that comes in chunks, of which nothing else is kept.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import SEES_TIME
from ._check import run_checked
from ._checkpoint import checked_length, run_in_chunks
from ._run import run, run_traced
from ._time_folding import Request, read


def unroll(
    net: nn.Module,
    x: Any,
    *inputs: Any,
    steps: int | None = None,
    check: bool | None = None,
    checkpoint: int | None = None,
    **kwargs: Any,
) -> Any:
    """Run a network over all time at once, layer by layer instead of step by step.

    What a loop ``for t in range(T): out = net(x[t])`` gives, stacked over time. The forward of `net` is called a single
    time. Layers without state see time folded into dimension 0, [T*B, ...]; each spiking neuron runs over its whole
    sequence, and goes on from the state that it keeps. A neuron by itself runs over time also, also without
    init_hidden.

    Args:
        net: the network. Its neurons keep their states (init_hidden=True).
        x: input, [T, B, ...]; or [B, ...] with `steps`.
        inputs: further inputs of its forward. Every tensor in them, and in `kwargs`, is led by the same [T, B], or [B]
            with `steps`; numbers and tensors of no dimension are the same at every step.
        steps: T, if the input is the same at every step. Such an input is not repeated in memory: what stands before
            the first neuron sees it once.
        check: whether the network is also run step by step, and an error raised where the two differ. It finds what
            nothing else can: values that a forward keeps from step to step, and operations that mix the rows of a
            batch. None: at the first call for a network, its mode and the kind of its inputs, over three steps; a
            `Sequential` of known layers needs none. True: at this call, over all steps. False: never.
        checkpoint: K, to run in chunks of K steps through all layers and keep for the backward only what stands between
            two chunks; the backward runs each chunk again. Memory is that of K steps, the states of T / K, inputs and
            outputs; a training step takes 1.5 to 1.7 times as long. K near the square root of T is a good start.
        kwargs: keyword inputs of its forward.

    Returns:
        what the forward returns, every tensor [T, B, ...], without copies, and no view: `detach_()` works on it.

    Raises:
        TypeError: for a neuron that is given its states by hand, or what is no network, input or number of steps;
            for check=True with a neuron that takes whole sequences alone.
        ValueError: for tensors that do not fit: a sequence without [T, B], an input of a neuron or an output of the
            network whose dimension 0 is not T*B.
        RuntimeError: for a neuron that is called twice in one forward, that is no module of the network, or whose state
            is read or written while it is unrolled; if the check finds a difference.
        After an error the network has the states and statistics that it had before.

    BatchNorm in training sees T*B samples and updates its statistics once; Dropout draws for all steps at once. With
    checkpoint, that is so chunk by chunk.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True, output=True))
        >>> spk, mem = snn.unroll(net, torch.rand(25, 2, 3))
        >>> spk.shape, mem.shape
        (torch.Size([25, 2, 4]), torch.Size([25, 2, 4]))
        >>> snn.utils.reset(net)
        >>> spk, mem = snn.unroll(net, torch.rand(2, 3), steps=25)
    """
    return _perform(read(net, (x, *inputs), kwargs, steps), check, checkpoint)


def _perform(request: Request, check: bool | None, checkpoint: int | None, detach: bool = False) -> Any:
    """Run what was asked, and return its outputs; `detach` cuts the states from their graph afterwards."""
    if checkpoint is not None:
        checked_length(checkpoint)
    if torch.compiler.is_dynamo_compiling():
        return run_traced(request)
    done = run_checked(request, check, run if checkpoint is None else partial(run_in_chunks, length=checkpoint))
    for layer in request.names if detach else ():
        if isinstance(layer, SEES_TIME):
            layer.detach_mem()
    done.count(request.steps)
    return done.outputs


def stream(
    net: nn.Module,
    chunks: Iterable[Any],
    *,
    steps: int | None = None,
    check: bool | None = None,
    checkpoint: int | None = None,
    detach: bool = True,
    **kwargs: Any,
) -> Iterator[Any]:
    """Run a network over a sequence that comes in chunks of steps: `unroll` chunk after chunk, as they are asked for.

    The states go on from chunk to chunk, so spikes and states are those of one `unroll` over the joined sequence,
    however it is cut. Memory is that of one chunk. With a backward and a step of the optimizer after each chunk, this
    is truncated backpropagation through time.

    Args:
        net: the network, as for `unroll`. It goes on from the states that it has; `spikeloom.utils.reset` it before.
        chunks: any iterable: a list, a generator, a DataLoader. Each chunk is the input of its steps, [t, B, ...], of
            any t above zero; a tuple holds the inputs of the forward in order. Where B changes, the states that do
            not broadcast to it start afresh, with a warning.
        steps: as for `unroll`: each chunk is [B, ...] and stays the same for so many steps.
        check: as for `unroll`; True compares all steps of the first chunk.
        checkpoint: as for `unroll`, within each chunk.
        detach: whether the states are cut from their graph after each chunk, so that gradients reach back to its
            beginning and no further. Without it the graphs of all chunks are one, and their memory adds up.
        kwargs: keyword inputs of the forward, the same for every chunk.

    Returns:
        an iterator: for each chunk what `unroll` returns, every tensor [t, B, ...]. It holds no chunks and no outputs.
        The network always stands at the end of the chunk last returned, also if you leave the loop there, and also if
        the next one raises an error; go on by a new `stream` over what is left.

    Raises:
        TypeError, ValueError: for what is no network or no chunks, at once; for a chunk without steps,
            and whatever `unroll` raises, when it is its turn.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True, output=True))
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> for spk, mem in snn.stream(net, torch.rand(1000, 2, 3).split(100)):
        ...     optimizer.zero_grad()
        ...     mem.square().mean().backward()
        ...     optimizer.step()
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"stream takes a network, an nn.Module; got {type(net).__name__}")
    if isinstance(chunks, Tensor):
        raise TypeError(
            "stream takes chunks of a sequence, and got a tensor; pass x.split(100) for chunks of 100 steps"
        )
    if not isinstance(chunks, Iterable):
        raise TypeError(f"stream takes an iterable of chunks; got {type(chunks).__name__}")
    done = 0

    def run(chunk: Any) -> Any:
        nonlocal done
        try:
            request = read(net, chunk if isinstance(chunk, tuple) else (chunk,), kwargs, steps)
            if not request.steps:
                raise ValueError("the chunk has no steps; pass chunks of one step or more")
            outputs = _perform(request, None if check and done else check, checkpoint, detach)
        except Exception as error:
            error.add_note(f"(in chunk {done + 1} of the stream)")
            raise
        done += 1
        return outputs

    # a map, unlike a generator's loop, keeps hold of neither a chunk nor its outputs while the next are made
    return map(run, chunks)
