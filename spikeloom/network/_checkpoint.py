"""Unroll a network in chunks of steps: save the states at chunk borders, and recompute each chunk in the backward.

Saved at each border: the states (as arguments of the chunk, so that their gradients flow), other step-dependent
attributes of the layers, changed buffers, and the states of the random generators. `recomputing` saves the states for
parts of a network that the user runs under `torch.utils.checkpoint`.
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

from .._torch import TreeSpec, graph_task, tangents_pass, tree_flatten, tree_map_only, tree_unflatten
from ..engine.jit import buffer_pool
from ..layers import SEES_TIME
from ..neurons._state import restarted
from ..neurons._unrolled_run import current_run, running
from ._known_layers import runs_straight
from ._run import Run, run
from ._snapshot import RandomState, Snapshot, undone
from ._time_folding import Request


def checked_length(length: Any) -> None:
    """Raise an error if `length` is not a valid number of steps, or under torch.compile."""
    if isinstance(length, bool) or not hasattr(length, "__index__"):
        raise TypeError(f"checkpoint is {length!r}; pass a whole number of steps, or None")
    if length < 1:
        raise ValueError(f"checkpoint is {length}; pass a number >= 1")
    if torch.compiler.is_dynamo_compiling():
        raise RuntimeError("unroll with checkpoint runs chunk by chunk in eager mode; call it outside of torch.compile")


def run_in_chunks(request: Request, before: Snapshot, length: int) -> Run:
    """Run a request in chunks of `length` steps; `before` is a snapshot of the network's current state."""
    if tangents_pass():
        raise RuntimeError(
            "unroll with checkpoint got a tangent of forward-mode differentiation (torch.func.jvp, jacfwd); unroll "
            "without checkpoint"
        )
    if not request.steps:
        return run(request, before)
    _find_way(request)
    start, joined = _Start(request, before), _Joined(request.steps)
    done, counted = None, []
    try:
        for part in _parts(request, length):
            done = None  # release the record of the previous chunk
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
    """Find out in advance whether a static input must be repeated: all runs of a chunk must do the same."""
    if request.static and request.steps > 1 and not runs_straight(request.net):
        before = Snapshot(request.names)

        def work() -> None:
            before.stand_in()
            before.mute()
            with torch.no_grad():
                run(replace(request, steps=2), Snapshot(request.names))

        undone(work, before, RandomState())


def _parts(request: Request, length: int) -> Iterator[Request]:
    """The request in chunks; one `split` per input, so that one operation joins the gradients of its chunks."""
    leaves, form = tree_flatten((request.args, dict(request.kwargs)))
    sizes = [min(length, request.steps - begin) for begin in range(0, request.steps, length)]
    timed = [isinstance(leaf, Tensor) and leaf.dim() and not request.static for leaf in leaves]
    split = [leaf.split(length) if whole else leaf for leaf, whole in zip(leaves, timed, strict=True)]
    for i, steps in enumerate(sizes):
        args, kwargs = tree_unflatten([s[i] if whole else s for s, whole in zip(split, timed, strict=True)], form)
        yield replace(request, args=args, kwargs=kwargs, steps=steps)


CHANGED = (
    "{what} since the network was unrolled with checkpoint, whose backward recomputes the forward; call backward() "
    "before such a change, as before optimizer.step()"
)

_PLACE = object()
"""A placeholder for a tensor that only the graph must hold."""


class _Start:
    """The network at the start of all chunks.

    Holds only a weak reference to the network: the graph of a chunk refers to this object, and the network refers to
    the graph through the states of its neurons. The graph of the outputs keeps the network alive.
    """

    def __init__(self, request: Request, before: Snapshot):
        self.net, self.before, self.drawn = ref(request.net), before, RandomState()
        self._layers: list[Any] | None = None
        self._versions: list[tuple[Tensor, int]] = []

    def now_drawn(self) -> RandomState:
        """The states of the random generators; the same object as before if nothing was drawn."""
        self.drawn = self.drawn if self.drawn.same() else RandomState()
        return self.drawn

    def seal(self) -> None:
        """Record the current layers and versions: nothing may be modified until the last backward."""
        self._layers, self._versions = _layers(self._alive()), self.before.versions()

    def unchanged(self) -> nn.Module:
        """The network; raises an error if it was modified since it was unrolled."""
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
                "the network that was unrolled with checkpoint was deleted, and the backward needs it to recompute the "
                "forward; keep a reference to it until after backward()"
            )
        return net


def _layers(net: nn.Module) -> list[tuple["ref[nn.Module]", type]]:
    # a lazy layer changes its class in its first call
    return [(ref(m), nn.Module if isinstance(m, LazyModuleMixin) else type(m)) for m in net.modules()]


def _run_chunk(start: _Start, part: Request) -> Run:
    """Run a chunk, which the backward recomputes, from the network's current state."""
    buffers, drawn, context = start.before.changed_buffers(), start.now_drawn(), copy_context()
    # copies: the states themselves lie between large tensors of the layers, and would prevent the C library from
    # merging their freed blocks; three layers of 1024 peaked at 213 MB without, at 168 to 184 MB with copies
    states = [(m, name, tree_map_only(Tensor, torch.clone, value)) for m, name, value in start.before.states()]
    names = [(module, name) for module, name, _ in states]
    leaves, form = tree_flatten((part.args, dict(part.kwargs), [value for *_, value in states]))
    places = [_PLACE if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    sizes: dict[str, Any] = {"steps": part.steps, "batch": part.batch, "static": part.static}
    first: list[Run] = []
    ran = False

    def call(*tensors: Tensor) -> Any:  # holds none of the tensors above: only the graph must
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
        """Recompute the chunk from the network's earlier state, then restore its current state."""

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
        start.seal()  # the forward's own writes are not the user's
        return outputs

    inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if torch.is_grad_enabled():
        # stopped early, the second run would end with an exception raised through the forward
        options: Any = {"use_reentrant": False, "preserve_rng_state": False, "early_stop": False}
        outputs = checkpoint(call, *inputs, **options)
    else:
        outputs = call(*inputs)
    done, ran = first.pop(), True
    return replace(done, outputs=outputs)


# -- the outputs of all chunks -----------------------------------------------------------------------------------------


class _Joined:
    """Outputs over `steps` steps, to which chunks are added in order; there is never a second copy of them."""

    def __init__(self, steps: int) -> None:
        self._steps, self._filled = steps, 0
        self._form: TreeSpec | None = None
        self._kinds: list[Any] = []
        self._wholes: list[Any] = []
        self._chunks: list[list[Tensor]] = []

    def add(self, outputs: Any, steps: int) -> None:
        """Add the outputs of the next `steps` steps, whose structure must equal that of the previous ones."""
        leaves, form = tree_flatten(outputs)
        kinds = [("T", *x.shape[1:], x.dtype) if isinstance(x, Tensor) else type(x).__name__ for x in leaves]
        if self._form is None:
            self._form, self._kinds, self._chunks = form, kinds, [[] for _ in leaves]
            self._wholes = tree_map_only(Tensor, lambda x: x.detach().new_empty((self._steps, *x.shape[1:])), leaves)
        if form != self._form or kinds != self._kinds:
            raise ValueError(
                f"the forward returned {kinds} for steps {self._filled} to {self._filled + steps - 1}, and "
                f"{self._kinds} for those before; return the same structure for every chunk"
            )
        for leaf, whole, chunks in zip(leaves, self._wholes, self._chunks, strict=True):
            if isinstance(leaf, Tensor):
                whole[self._filled : self._filled + steps].copy_(leaf.detach())
                chunks.append(_Released.apply(leaf) if leaf.requires_grad else leaf.new_zeros(()).expand(leaf.shape))
        self._filled += steps

    def outputs(self, net: Any) -> Any:
        """The outputs over all steps; their graph holds the network, which the backward runs."""
        assert self._form is not None
        leaves = [
            _Whole.apply([whole], net, *chunks) if any(chunk.requires_grad for chunk in chunks) else whole
            for whole, chunks in zip(self._wholes, self._chunks, strict=True)
        ]
        return tree_unflatten(leaves, self._form)


class _Released(torch.autograd.Function):
    """A chunk of the outputs in the graph without its memory: zeros of its shape, all in one place."""

    @staticmethod
    def forward(ctx: Any, chunk: Tensor) -> Tensor:
        return chunk.new_zeros(()).expand(chunk.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class _Whole(torch.autograd.Function):
    """The chunks as one tensor, already filled; the backward splits its gradient over the chunks."""

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
    """The `context_fn` with which `torch.utils.checkpoint.checkpoint` can recompute stateful neurons.

    The second run, in the backward, starts from the same states as the first, and the network's current states are
    restored afterwards. It works for chunks of a sequence, for single steps, and inside an unrolled network.

    Args:
        net: the network, or the part of it, that is checkpointed.

    Returns:
        a function without arguments, for ``context_fn=``. The states before each run are stored until its backward.

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
        raise TypeError(f"recomputing requires a network, an nn.Module; got {type(net).__name__}")

    def contexts() -> Contexts:
        run = _Recomputed(net)
        return run.first(), run.again()

    return contexts


class _Recomputed:
    """One checkpointed run: the states it started from, and the unrolled run it was part of."""

    def __init__(self, net: nn.Module):
        self.layers = [module for module in net.modules() if isinstance(module, SEES_TIME)]

    @contextmanager
    def first(self) -> Iterator[None]:
        """Around the run within the forward."""
        unrolled = current_run()
        if unrolled is not None and unrolled.origins is not None:
            raise RuntimeError("static tensors cannot be tracked through a checkpointed part")
        self.before = Snapshot(self.layers)
        self.unrolled = None if unrolled is None else replace(unrolled, visits=dict(unrolled.visits))
        yield
        self.versions = self.before.versions()

    @contextmanager
    def again(self) -> Iterator[None]:
        """Around the run within the backward."""
        if any(t._version != version for t, version in self.versions):
            raise RuntimeError(
                "a parameter or buffer of a neuron was modified in place since the checkpointed run, which the "
                "backward recomputes; call backward() before such a change, as before optimizer.step()"
            )
        now, backward = Snapshot(self.layers), graph_task()

        def restore() -> None:
            if graph_task() == backward:  # not if Ctrl-C left this context open and Python closes it later
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
