"""A network unrolled in chunks of steps: what stands between two is kept, and the backward runs each chunk again.

What is kept is the states at the border (as arguments of the chunk, so that their gradients flow), whatever else the
layers count there, the buffers that have changed, and where the random generators stood.
"""

from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import replace
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils.checkpoint import checkpoint

from .._torch import tree_flatten, tree_map_only, tree_unflatten
from ..engine.jit import buffer_pool
from ..layers import SEES_TIME
from ..neurons._checks import restarted
from ._interrupts import undone
from ._join import Joined
from ._request import Request, runs_straight
from ._run import Run, run
from ._snapshot import RandomState, Snapshot


def checked_length(length: Any) -> None:
    """Check how many steps a chunk has.

    Raises:
        TypeError, ValueError: in a sentence.
        RuntimeError: under torch.compile.
    """
    if isinstance(length, bool) or not hasattr(length, "__index__"):
        raise TypeError(f"checkpoint is {length!r}; pass a whole number of time steps, or nothing")
    if length < 1:
        raise ValueError(f"checkpoint is {length}; pass one step or more")
    if torch.compiler.is_dynamo_compiling():
        raise RuntimeError("unroll with checkpoint runs chunk by chunk in eager mode; call it outside of torch.compile")


def run_in_chunks(request: Request, before: Snapshot, length: int) -> Run:
    """Run it in chunks of so many steps; `before` is how the network is now."""
    if not request.steps:
        return run(request, before)
    _find_way(request)
    start, joined = _Start(request, before), Joined(request.steps)
    done, counted = None, []
    try:
        for part in _parts(request, length):
            done = None  # what the neurons did in the chunk before is no longer needed
            done = _Chunk(start, part).run()
            joined.add(done.outputs, part.steps)
            done.count(part.steps)
            counted.append(done.time.counted)
            buffer_pool.trim_now_and_then()
    except BaseException:
        for one in counted:
            one.clear()
        raise
    start.seal()
    assert done is not None
    return replace(done, outputs=joined.outputs(request.net))


def _find_way(request: Request) -> None:
    """Find out beforehand whether a static input is to be repeated: every run of a chunk must go the same way."""
    if request.static and request.steps > 1 and not runs_straight(request.net):
        before = Snapshot(request.names)

        def work() -> None:
            before.lend_buffers()
            before.mute()
            with torch.no_grad():
                run(replace(request, steps=2), Snapshot(request.names))

        undone(work, before, RandomState())


def _parts(request: Request, length: int) -> Iterator[Request]:
    """The request in chunks; the gradients of their inputs are one tensor again after one operation."""
    leaves, form = tree_flatten((request.args, dict(request.kwargs)))
    sizes = [min(length, request.steps - begin) for begin in range(0, request.steps, length)]
    timed = [isinstance(leaf, Tensor) and leaf.dim() and not request.static for leaf in leaves]
    split = [leaf.split(length) if whole else leaf for leaf, whole in zip(leaves, timed, strict=True)]
    for i, steps in enumerate(sizes):
        args, kwargs = tree_unflatten([s[i] if whole else s for s, whole in zip(split, timed, strict=True)], form)
        yield replace(request, args=args, kwargs=kwargs, steps=steps)


CHANGED = (
    "{what} since the network was unrolled with checkpoint, whose backward runs it again; call backward() before that, "
    "as before the step of the optimizer"
)

_PLACE = object()
"""Stands where a tensor stood, which only the graph is to hold."""


class _Start:
    """The network at the start of all chunks.

    The graph of a chunk holds this, and the network holds the graph by the states of its neurons. So this does not
    hold the network; the graph of the outputs does.

    Args:
        request: what is run.
        before: how the network is.
    """

    def __init__(self, request: Request, before: Snapshot):
        self.net, self.before, self.drawn = ref(request.net), before, RandomState()
        self._layers: list[Any] | None = None
        self._versions: list[tuple[Tensor, int]] = []

    def now_drawn(self) -> RandomState:
        """Where the random generators stand; the same object as before if nothing was drawn."""
        self.drawn = self.drawn if self.drawn.same() else RandomState()
        return self.drawn

    def seal(self) -> None:
        """From now on no parameter or buffer may be written to, and no layer replaced, until the last backward."""
        self._layers, self._versions = _layers(self._alive()), self.before.versions()

    def unchanged(self) -> nn.Module:
        """The network.

        Raises:
            RuntimeError: in a sentence, if it is not what was unrolled.
        """
        net = self._alive()
        if self._layers is not None and _layers(net) != self._layers:
            raise RuntimeError(CHANGED.format(what="a layer was replaced"))
        if any(t._version != version for t, version in self._versions):
            raise RuntimeError(CHANGED.format(what="a parameter or buffer was modified in place"))
        return net

    def _alive(self) -> nn.Module:
        net = self.net()
        if net is None:
            raise RuntimeError(
                "the network that was unrolled with checkpoint is gone, and the backward runs it again; keep it until "
                "after backward()"
            )
        return net


def _layers(net: nn.Module) -> list[tuple["ref[nn.Module]", type]]:
    # a lazy layer turns into another class in its first call
    return [(ref(m), nn.Module if isinstance(m, LazyModuleMixin) else type(m)) for m in net.modules()]


class _Chunk:
    """Some steps of a run, which can be run again.

    Args:
        start: the network before all chunks; it stands right before this one now.
        part: what is run.
    """

    def __init__(self, start: _Start, part: Request):
        self._start, self._buffers, self._drawn = start, start.before.changed_buffers(), start.now_drawn()
        # copies: the states themselves lie between large tensors of the layers, and would keep the C library from
        # joining these when they are free; three layers of 1024 peaked at 213 MB without, at 168 to 184 MB with copies
        states = [(m, name, tree_map_only(Tensor, torch.clone, value)) for m, name, value in start.before.states()]
        self._names = [(module, name) for module, name, _ in states]
        leaves, self._form = tree_flatten((part.args, dict(part.kwargs), [value for *_, value in states]))
        self._tensors: list[Tensor] | None = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self._leaves = [_PLACE if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._sizes: dict[str, Any] = {"steps": part.steps, "batch": part.batch, "static": part.static}
        self._context = copy_context()
        self._done: Run | None = None
        self._ran = False

    def run(self) -> Run:
        """Run it, for the first time."""
        tensors, self._tensors = self._tensors, None
        assert tensors is not None
        if torch.is_grad_enabled():
            # stopped early, the second run would end by an error that goes through the forward
            options: Any = {"use_reentrant": False, "preserve_rng_state": False, "early_stop": False}
            outputs = checkpoint(self._call, *tensors, **options)
        else:
            outputs = self._call(*tensors)
        done, self._done = self._done, None
        assert done is not None
        self._ran = True
        return replace(done, outputs=outputs)

    def _call(self, *tensors: Tensor) -> Any:
        """Its outputs; run for the first time, or again."""
        given = iter(tensors)
        args, kwargs, values = tree_unflatten([next(given) if x is _PLACE else x for x in self._leaves], self._form)
        net = self._start.unchanged()
        part = Request(net, args, kwargs, names={m: name for name, m in net.named_modules()}, **self._sizes)
        if self._ran:
            return self._context.copy().run(self._again, part, values)
        self._begin(values)
        self._done = run(part, Snapshot(part.names))
        return self._done.outputs

    def _begin(self, values: list[Any]) -> None:
        for (module, name), value in zip(self._names, values, strict=True):
            vars(module())[name] = value

    def _again(self, part: Request, values: list[Any]) -> Any:
        """Run it as the network was, which stays as it is now."""

        def work() -> Any:
            self._start.before.stand_in()
            self._start.before.mute()
            self._begin(values)
            for module, name, value in self._buffers:
                vars(module())["_buffers"][name] = value.clone()
            for layer in part.names:
                if isinstance(layer, SEES_TIME):
                    restarted(layer)
            self._drawn.restore()
            return run(part, Snapshot(part.names)).outputs

        outputs = undone(work, Snapshot(part.names), RandomState())
        self._start.seal()  # what the forward itself has written is none of the user's
        return outputs
