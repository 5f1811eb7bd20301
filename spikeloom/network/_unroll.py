"""A network over all time at once: its forward is called a single time, with time folded into dimension 0."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ._check import checked
from ._checkpoint import checked_length, run_in_chunks
from ._request import Request, read
from ._run import run, run_traced, unharmed
from ._snapshot import Snapshot


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
    sequence, and goes on from the state that it keeps. A neuron by itself runs over time likewise, also without
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
            outputs, for a third more time. K near the square root of T is a good start.
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
    return perform(read(net, (x, *inputs), kwargs, steps), check, checkpoint)


def perform(
    request: Request, check: bool | None, checkpoint: int | None, after: Callable[[], None] | None = None
) -> Any:
    """Run what was asked, as `unroll` describes, and what comes `after` as a part of it."""
    if checkpoint is not None:
        checked_length(checkpoint)
    if torch.compiler.is_dynamo_compiling():
        return run_traced(request)

    def work(before: Snapshot) -> Any:
        with checked(request, check):
            done = run(request, before) if checkpoint is None else run_in_chunks(request, before, checkpoint)
        if after is not None:
            after()
        done.count(request.steps)
        return done.outputs

    return unharmed(request, work)
