"""States that are not what whoever runs the layer takes them for: told in a sentence, not used silently.

- `torch.utils.checkpoint` runs a forward once more within the backward. It would start from where the first run ended.
- A replica of nn.DataParallel lives for one call. What it keeps is lost, and the next call starts afresh.
- What a layer keeps within `torch.func.vmap` is a wrapper, of no use once that is over.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._torch import IS_REPLICA, graph_task, is_batched, is_wrapped, of_running_vmap, unwrapped_if_dead

Layer = Any
"""A layer that keeps states: a `SpikingNeuron` or an `OverTime`, which are built upon this file."""


def refuse_misplaced(layer: Layer, states: Sequence[Tensor] | None = None, begun: bool = False) -> None:
    """Raise if the layer must not start from these states, which it keeps.

    Args:
        layer: about to run.
        states: those that it starts from and was not given; empty if it was given all, None if it has none.
        begun: whether it keeps something else that says that it has run before.

    Raises:
        RuntimeError: in a sentence, if they are of another run, or of a transform that is over.
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


def may_be_misplaced(layer: Layer) -> bool:
    """Whether `refuse_misplaced` has to look at what the layer keeps, wrappers apart."""
    task, own = graph_task(), layer.__dict__
    return (task != -1 and own.get("_restarted") != task) or IS_REPLICA in own


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
    """Let the layer know what becomes of its replica.

    Raises:
        RuntimeError: in a sentence, if the last one took a single step from a state that has gone with it.
    """
    if layer.__dict__.get("_replicated") == ["step"]:
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
