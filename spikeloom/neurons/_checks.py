"""What a layer checks before it runs: its input, and whether the states that it has are those of the present run.

- `torch.utils.checkpoint` runs a forward once more within the backward. It would start from where the first run ended.
- A replica of nn.DataParallel lives for one call. Its states are lost, and the next call starts afresh.
- A state from within `torch.func.vmap` is a wrapper, of no use once that is over.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._torch import IS_REPLICA, graph_task, is_batched, is_wrapped, of_running_vmap, unwrapped_if_dead
from ..engine.graph import HALVES

Layer = Any
"""A layer that has states: a `SpikingNeuron` or an `OverTime`, which are built upon this file."""


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of states: that of the input, but float32 for half precision, whose steps are too coarse to add up."""
    return torch.float32 if x.dtype in HALVES else x.dtype


def checked_input(x: Tensor, label: Callable[[], str]) -> Tensor:
    """The input as a floating tensor; integers and booleans become the default dtype, as in torch's own promotion."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{label()} got an input of type {type(x).__name__}; pass a torch.Tensor")
    if x.is_complex():
        raise TypeError(f"{label()} got an input of dtype {x.dtype}; pass real numbers")
    if x.layout is not torch.strided:
        raise TypeError(f"{label()} got an input of layout {x.layout}; pass a dense tensor, x.to_dense()")
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


# -- states of another run --------------------------------------------------------------------------------------------


def refuse_misplaced(layer: Layer, states: Sequence[Tensor] | None = None, begun: bool = False) -> None:
    """Raise if the states are of another run, or of a transform that is over.

    They are the layer's own: those that it starts from and was not given, None if it has none. `begun` is whether
    something else shows that it has run before.
    """
    if torch.compiler.is_compiling():
        return
    task = graph_task()  # -1 outside of a backward
    own = layer.__dict__
    if task != -1 and own.get("_restarted") != task:
        if begun or any(state.numel() for state in states or ()):
            raise RuntimeError(
                f"{layer._label()} is run again within a backward, as torch.utils.checkpoint does, and would start "
                "from where the first run ended. Give checkpoint context_fn=spikeloom.utils.recomputing(net), or reset "
                "the neurons within what is checkpointed"
            )
        if states is None or states:  # states that are passed say nothing about the next call, which may be given none
            own["_restarted"] = task
    if any(map(escaped, states or ())):
        raise RuntimeError(
            f"{layer._label()} keeps a state from within torch.func.vmap, which is over; "
            "call spikeloom.utils.reset(net) before the next run"
        )
    if IS_REPLICA in own:
        own.setdefault("_replicated", []).append("step")


def restarted(layer: Layer) -> None:
    """Note that the layer has its states from the present run: it was reset, or given them."""
    if torch.compiler.is_compiling():
        return
    layer.__dict__["_restarted"] = graph_task()
    if IS_REPLICA in layer.__dict__:
        layer.__dict__.setdefault("_replicated", []).append("reset")
    else:
        layer.__dict__["_replicated"] = []


def replicated(layer: Layer, replica: Layer) -> None:
    """Watch what becomes of a replica; raise if the last one took a single step from a state that has gone with it."""
    if set(layer.__dict__.get("_replicated", ())) == {"step"}:
        raise RuntimeError(
            f"{layer._label()} is called once per step by an nn.DataParallel, whose replicas, and their states, are "
            "gone after each call. Put the loop over time, or spikeloom.unroll, into the forward of the module that is "
            "wrapped, or use nn.parallel.DistributedDataParallel"
        )
    layer.__dict__["_replicated"] = replica.__dict__["_replicated"] = []


def usable(state: Tensor) -> Tensor:
    """The state, or an empty one for that of a torch.func.vmap that is over."""
    return torch.zeros(0, dtype=state.dtype, device=state.device) if escaped(state) else state


def escaped(state: Tensor) -> bool:
    """Whether a state is a wrapper that is left of a torch.func.vmap that is over."""
    if torch.compiler.is_compiling() or not is_wrapped(state):
        return False
    inner = unwrapped_if_dead(state)  # what torch.func.grad leaves is used as what it wraps
    return is_batched(inner) and not of_running_vmap(inner)
