"""What a layer checks before it runs: its input, and whether the states that it has are those of the present run.

- `torch.utils.checkpoint` runs a forward once more within the backward. It would start from where the first run ended.
- A replica of nn.DataParallel lives for one call. Its states are lost, and the next call starts afresh.
- A state from within `torch.func.vmap` is a wrapper, of no use once that is over.
- A state of an earlier batch leads into a graph that backward() has freed: a second one would fail inside torch. So a
  `Passage` hangs on what the layer returned first since its state last had no graph, and notes every later backward.
  `carried` wraps a state that starts a call after such a backward: its own backward looks whether the graph behind it
  is still there (``retain_graph=True``).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .._torch import IS_REPLICA, graph_task, is_batched, is_wrapped, of_running_vmap, unwrapped_if_dead
from ..engine.graph import HALVES

Layer = Any
"""A layer that has states: a `SpikingNeuron` or an `OverTime`, which are built upon this file."""

LOOKED_AT = 100
"""How many nodes behind a state are asked whether they are freed; those of one step are about ten."""


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


# -- states with a freed graph ----------------------------------------------------------------------------------------


class Passage:
    """Knows whether a backward has gone through the outputs it watches. It holds neither the layer nor the tensors."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, grads: Any) -> None:
        self.done = True


def watched(passage: Passage | None, olds: Iterable[Tensor], outs: Iterable[Tensor]) -> Passage | None:
    """The passage after a call: the same where the graph goes on, else a new one if the outputs have a graph."""
    if passage is not None and not passage.done and any(old.requires_grad for old in olds):
        return passage
    if torch.compiler.is_compiling():  # which cannot trace the question for a grad_fn
        return None
    nodes = [out.grad_fn for out in outs if out.grad_fn is not None]
    if not nodes:
        return None
    passage = Passage()
    for node in nodes:
        node.register_prehook(passage)
    return passage


class _Carried(torch.autograd.Function):
    """Identity; its backward refuses to enter a graph that is freed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(state: Tensor, label: str, name: str) -> Tensor:
        return state.view_as(state)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str, str], output: Tensor) -> None:
        state, ctx.label, ctx.name = inputs
        ctx.behind = state.grad_fn

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        if _is_freed(ctx.behind):
            raise RuntimeError(
                f"{ctx.label} goes on from {ctx.name} of an earlier batch, and backward() has already freed the graph "
                "that made it. Before each batch call spikeloom.utils.reset(net) to start from zeros, or "
                "spikeloom.utils.detach(net) to keep the values without their graph."
            )
        return grads[0], None, None


def carried(state: Tensor, layer: Layer, name: str) -> Tensor:
    """The same state; after a passage guarded: a backward that meets a freed graph behind it raises a sentence."""
    if layer._passage is None or not layer._passage.done or not state.requires_grad:
        return state
    guarded: Tensor = _Carried.apply(state, layer._label(), name)
    return guarded


def _is_freed(node: Any) -> bool:
    """Whether one of the nearest nodes of the graph that ends in `node` has lost the tensors it saved."""
    seen: set[Any] = {node}
    queue = [node]
    while queue and len(seen) < LOOKED_AT:
        node = queue.pop(0)
        if node is None:
            continue
        try:
            for name in _saved_names(type(node).__mro__):
                getattr(node, name)
        except RuntimeError as error:
            if "second time" in str(error):
                return True
        new = [behind for behind, _ in node.next_functions if behind not in seen]
        seen.update(new)
        queue += new
    return False


@cache
def _saved_names(kinds: tuple[type, ...]) -> tuple[str, ...]:
    return tuple(name for name in dir(kinds[0]) if name == "saved_tensors" or name.startswith("_saved_"))
