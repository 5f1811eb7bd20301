"""A network unrolled in chunks of steps: what stands between two is saved, and the backward runs each chunk again.

What is saved is the states at the border (as arguments of the chunk, so that their gradients flow), whatever else the
layers count there, the buffers that have changed, and where the random generators stood. `recomputing` saves the states
for parts of a network that the user runs under `torch.utils.checkpoint`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from dataclasses import replace
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils.checkpoint import checkpoint

from .._torch import TreeSpec, graph_task, tree_flatten, tree_map_only, tree_unflatten
from ..engine.jit import buffer_pool
from ..layers import SEES_TIME
from ..neurons._state import restarted
from ..neurons._unrolled_run import current_run, running
from ._known_layers import runs_straight
from ._run import Run, run
from ._snapshot import RandomState, Snapshot, undone
from ._time_folding import Request


def checked_length(length: Any) -> None:
    """Raise a sentence if a chunk cannot have so many steps, or under torch.compile."""
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
    start, joined = _Start(request, before), _Joined(request.steps)
    done, counted = None, []
    try:
        for part in _parts(request, length):
            done = None  # what the neurons did in the chunk before is no longer needed
            done = _run_chunk(start, part)
            joined.add(done.outputs, part.steps)
            done.count(part.steps)
            counted.append(done.unrolled.counted)
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
            before.stand_in()
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
        """The network; raises a sentence if it is not what was unrolled."""
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


def _run_chunk(start: _Start, part: Request) -> Run:
    """Run some steps, which the backward runs again; the network stands right before them now."""
    buffers, drawn, context = start.before.changed_buffers(), start.now_drawn(), copy_context()
    # copies: the states themselves lie between large tensors of the layers, and would keep the C library from
    # joining these when they are free; three layers of 1024 peaked at 213 MB without, at 168 to 184 MB with copies
    states = [(m, name, tree_map_only(Tensor, torch.clone, value)) for m, name, value in start.before.states()]
    names = [(module, name) for module, name, _ in states]
    leaves, form = tree_flatten((part.args, dict(part.kwargs), [value for *_, value in states]))
    places = [_PLACE if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    sizes: dict[str, Any] = {"steps": part.steps, "batch": part.batch, "static": part.static}
    first: list[Run] = []
    ran = False

    def call(*tensors: Tensor) -> Any:  # holds no tensor of those above, which the graph is to hold alone
        given = iter(tensors)
        args, kwargs, values = tree_unflatten([next(given) if x is _PLACE else x for x in places], form)
        net = start.unchanged()
        request = Request(net, args, kwargs, names={m: name for name, m in net.named_modules()}, **sizes)
        if ran:
            return context.copy().run(again, request, values)
        begin(values)
        first.append(run(request, Snapshot(request.names)))
        return first[0].outputs

    def begin(values: list[Any]) -> None:
        for (module, name), value in zip(names, values, strict=True):
            vars(module())[name] = value

    def again(request: Request, values: list[Any]) -> Any:
        """Run it as the network was, which stays as it is now."""

        def work() -> Any:
            start.before.stand_in()
            start.before.mute()
            begin(values)
            for module, name, value in buffers:
                vars(module())["_buffers"][name] = value.clone()
            for layer in request.names:
                if isinstance(layer, SEES_TIME):
                    restarted(layer)
            drawn.restore()
            return run(request, Snapshot(request.names)).outputs

        outputs = undone(work, Snapshot(request.names), RandomState())
        start.seal()  # what the forward itself has written is none of the user's
        return outputs

    inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if torch.is_grad_enabled():
        # stopped early, the second run would end by an error that goes through the forward
        options: Any = {"use_reentrant": False, "preserve_rng_state": False, "early_stop": False}
        outputs = checkpoint(call, *inputs, **options)
    else:
        outputs = call(*inputs)
    done, ran = first.pop(), True
    return replace(done, outputs=outputs)


# -- the outputs of all chunks -----------------------------------------------------------------------------------------


class _Joined:
    """Outputs over so many steps, to which chunks are added in order; a chunk becomes a view of the whole."""

    def __init__(self, steps: int) -> None:
        self._steps, self._filled = steps, 0
        self._form: TreeSpec | None = None
        self._kinds: list[Any] = []
        self._wholes: list[Any] = []
        self._chunks: list[list[Any]] = []

    def add(self, outputs: Any, steps: int) -> None:
        """Take over what the network returned for the next so many steps, which must fit what it returned before."""
        leaves, form = tree_flatten(outputs)
        kinds = [("T", *x.shape[1:], x.dtype) if isinstance(x, Tensor) else type(x).__name__ for x in leaves]
        if self._form is None:
            self._form, self._kinds = form, kinds
            self._wholes = tree_map_only(Tensor, lambda x: x.detach().new_empty((self._steps, *x.shape[1:])), leaves)
        if form != self._form or kinds != self._kinds:
            raise ValueError(
                f"the forward returned {kinds} for steps {self._filled} to {self._filled + steps - 1}, and "
                f"{self._kinds} for those before; return the same for every chunk"
            )
        for leaf, whole in zip(leaves, self._wholes, strict=True):
            if isinstance(leaf, Tensor):
                part = whole[self._filled : self._filled + steps].copy_(leaf.detach())
                leaf.data = part  # there is never a second copy
        self._chunks.append(leaves)
        self._filled += steps

    def outputs(self, net: Any) -> Any:
        """What one run over all steps would have returned; its graph holds the network, which its backward runs."""
        assert self._form is not None
        leaves = [
            _Whole.apply([whole], net, *chunks) if isinstance(whole, Tensor) else whole
            for whole, *chunks in zip(self._wholes, *self._chunks, strict=True)
        ]
        return tree_unflatten(leaves, self._form)


class _Whole(torch.autograd.Function):
    """The chunks as one tensor, which is already filled; each chunk gets its part of the gradient."""

    @staticmethod
    def forward(ctx: Any, whole: list[Tensor], net: Any, *chunks: Tensor) -> Tensor:
        ctx.net, ctx.sizes = net, [len(chunk) for chunk in chunks]
        return whole[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *grad.split(ctx.sizes)


# -- under torch.utils.checkpoint --------------------------------------------------------------------------------------

Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


def recomputing(net: nn.Module) -> Callable[[], Contexts]:
    """What `torch.utils.checkpoint.checkpoint` has to know of the neurons that it runs twice: its `context_fn`.

    The second run, within the backward, starts from the states of the first, and leaves the network as the backward
    found it. It may stand around chunks of a sequence, around single steps, and within a network that is unrolled.

    Args:
        net: the network, or the part of it, that is checkpointed.

    Returns:
        a function of no arguments, for ``context_fn=``. The states before each run are kept until its backward.

        >>> import torch, spikeloom as snn
        >>> from torch.utils.checkpoint import checkpoint
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
        >>> loss = torch.zeros(())
        >>> for chunk in torch.rand(100, 2, 3).split(10):
        ...     spk = checkpoint(snn.unroll, net, chunk, use_reentrant=False, context_fn=snn.utils.recomputing(net))
        ...     loss = loss + spk.mean()
        >>> loss.backward()
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"recomputing takes a network, an nn.Module; got {type(net).__name__}")

    def contexts() -> Contexts:
        run = _Recomputed(net)
        return run.first(), run.again()

    return contexts


class _Recomputed:
    """One run of what is checkpointed: from which states it started, and in which unrolled run it took part."""

    def __init__(self, net: nn.Module):
        self.layers = [module for module in net.modules() if isinstance(module, SEES_TIME)]

    @contextmanager
    def first(self) -> Iterator[None]:
        """Around the run within the forward."""
        unrolled = current_run()
        if unrolled is not None and unrolled.origins is not None:
            raise RuntimeError("what is checkpointed cannot be followed to see which of its tensors are static")
        self.before = Snapshot(self.layers)
        self.unrolled = None if unrolled is None else replace(unrolled, visits=dict(unrolled.visits))
        yield
        self.versions = self.before.versions()

    @contextmanager
    def again(self) -> Iterator[None]:
        """Around the run within the backward."""
        if any(t._version != version for t, version in self.versions):
            raise RuntimeError(
                "a parameter or buffer of a neuron was modified in place since the run that is checkpointed, which the "
                "backward runs again; call backward() before that, as before the step of the optimizer"
            )
        now, backward = Snapshot(self.layers), graph_task()

        def restore() -> None:
            if graph_task() == backward:  # not where Ctrl-C left this context, which Python closes some time later
                now.restore()

        try:
            try:
                self.before.stand_in()
                for layer in self.layers:
                    restarted(layer)
                unrolled = self.unrolled
                with running(None if unrolled is None else replace(unrolled, visits=dict(unrolled.visits))):
                    yield
            finally:
                restore()
        finally:
            restore()  # again, for Ctrl-C may have come within the first
