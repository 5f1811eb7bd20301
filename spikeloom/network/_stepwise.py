"""Whether a network must go step by step to give the numbers of a loop over time."""

from functools import partial

import torch
from torch import Tensor, nn

from ..neurons._state import on_trial
from ._check import run_checked
from ._differences import differs_by_design
from ._interrupts import undone
from ._request import read
from ._run import unharmed
from ._snapshot import RandomState, Snapshot


def why_by_steps(net: nn.Module, x: Tensor, steps: int | None) -> str:
    """Why `unroll` would not give what a loop over time gives; empty if it does. Changes nothing.

    Tried on this input, in the mode that the network is in, and compared as by ``unroll(..., check=True)``. Layers that
    write to a buffer (BatchNorm in training), or that draw random numbers (Dropout in training), do so once per step.

    Args:
        net: the network.
        x: input, [T, B, ...], or [B, ...] with `steps`.
        steps: T, if the input is the same at every step.
    """
    before, drawn = Snapshot(net.modules()), RandomState()

    def work() -> str:
        request = read(net, (x,), {}, steps)
        with torch.no_grad(), on_trial():
            unharmed(request, partial(run_checked, request, True))
        if before.written():
            return "a layer writes to a buffer in its forward"
        if any(map(differs_by_design, request.layers())):
            return "a BatchNorm over the statistics of a batch would mix the rows of all steps"
        return "" if drawn.same() else "a layer draws random numbers"

    try:
        return undone(work, before, drawn)
    except Exception as error:
        return str(error) or type(error).__name__
