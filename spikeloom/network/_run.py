"""Run a request, and decide whether its static input must be repeated over time."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils.weak import WeakTensorKeyDictionary

from .._torch import (
    FunctionMode,
    exporting,
    hooks_on_all_modules,
    is_compiled,
    is_traced,
    tree_map_only,
    without_torch_function,
)
from ..engine.feedback import HOOKS
from ..neurons._neuron import SpikingNeuron
from ..neurons._unrolled_run import UnrolledRun, running
from ._known_layers import runs_straight
from ._saved_bits import spikes_as_bits
from ._snapshot import RandomState, Snapshot, torch_random
from ._time_folding import Request, unfolded

REPEATED: WeakKeyDictionary[nn.Module, dict[bool, str]] = WeakKeyDictionary()
"""Why a network's static input had to be repeated, by network and training mode. Avoids a new trial at every call."""


@dataclass
class Run:
    """The result of a request.

    Args:
        outputs: the outputs of the forward, every tensor [T, B, ...].
        unrolled: the record of the neurons' scans.
        repeated: why a static input was repeated over time; empty if it was not.
    """

    outputs: Any
    unrolled: UnrolledRun
    repeated: str = ""

    def count(self, steps: int) -> None:
        """Notify the taps and monitors of the network that the run has ended, with its number of steps."""
        if not self.unrolled.counted:  # a run in chunks has notified them of each chunk
            self.unrolled.counted.append(steps)


def is_recorded() -> bool:
    """Whether torch compiles, exports or traces, and a run goes by `run_traced`."""
    return torch.compiler.is_dynamo_compiling() or exporting() or is_traced()


def run_traced(request: Request, follow: bool = False) -> Any:
    """Run while torch compiles, exports or traces, where no state can be restored and no run repeated.

    `follow` is whether a static input needs no repetition, as `run` has found.
    """
    straight = request.static and runs_straight(request.net)
    following = FollowingTraced(request.steps, request.batch) if follow and not straight else None
    if following is not None:
        args, kwargs = request.mapped(following.static)
    else:
        args, kwargs = request.mapped(lambda t: t) if straight else request.folded()
    unrolled = UnrolledRun(request.steps, request.batch, straight, following, request.names)
    with running(unrolled), following or nullcontext():
        outputs = request.net(*args, **kwargs)
    unrolled.counted.append(request.steps)
    return unfolded(outputs, unrolled)


def run(request: Request, before: Snapshot, origins: "Following | None" = None, repeated: str = "") -> Run:
    """Run a request.

    Args:
        request: the request.
        before: a snapshot of the network's current state.
        origins: tracks which tensors are static, if the static input is not repeated over time.
        repeated: why a static input is repeated. If neither is given, this is decided here.
    """
    if not request.steps:
        return _run_no_steps(request, before)
    straight = request.static and runs_straight(request.net)
    if request.static and not (straight or origins or repeated):
        repeated = REPEATED.get(request.net, {}).get(request.net.training, "") or _cannot_follow(request)
        if request.steps > 1 and not repeated:
            return _follow(request, before)
    bare = not request.static and is_bare(request.net)
    if bare:
        args, kwargs = request.args, request.kwargs
    elif origins is None and not straight:
        args, kwargs = request.folded()
    else:
        args, kwargs = request.mapped((lambda t: t) if origins is None else origins.static)
    unrolled = UnrolledRun(request.steps, request.batch, straight, origins, request.names, bare=bare)
    with running(unrolled), spikes_as_bits(unrolled, request), origins or nullcontext():
        outputs = request.net(*args, **kwargs)
    return Run(unfolded(outputs, unrolled), unrolled, repeated)


def is_bare(net: nn.Module) -> bool:
    """Whether the network is one neuron, and no hook sees its tensors: folding time would be undone at once."""
    own = vars(net)
    observed = "forward" in own or any(map(own.get, HOOKS)) or any(hooks_on_all_modules())
    return isinstance(net, SpikingNeuron) and net._stepwise and not observed


def _run_no_steps(request: Request, before: Snapshot) -> Run:
    """Run no steps: no state changes. Output shapes come from one step, since many forwards fail on empty inputs."""
    drawn = RandomState()
    args, kwargs = request.mapped(lambda t: t.unsqueeze(0) if request.static else t.new_zeros((1, *t.shape[1:])))
    one = run(replace(request, args=args, kwargs=kwargs, steps=1, static=False), before)
    before.restore()
    drawn.restore()
    return replace(one, outputs=tree_map_only(Tensor, lambda t: t.new_empty((0, *t.shape[1:])), one.outputs))


def _cannot_follow(request: Request) -> str:
    """Why tensors cannot be tracked: compiled code hides its operations, and an aborted lazy module stays invalid."""
    if any(isinstance(module, LazyModuleMixin) for module in request.names):
        return "a lazy module creates its parameters in this call"
    return "a part of the network is compiled separately" if any(map(is_compiled, request.names)) else ""


def _follow(request: Request, before: Snapshot) -> Run:
    """Run with the static input unrepeated; if that is not possible, run again with the input repeated over time."""
    drawn, following = RandomState(), Following(request.steps, request.batch)
    done: Run | None = None
    try:
        done = run(request, before, following)
    except NotStatic:
        pass
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        following.why_not = following.why_not or f"with a static input it raises {type(error).__name__}: {error}"
    if not drawn.same_outside_torch():
        following.why_not = "its forward draws random numbers, which must differ between steps"
    if why := following.why_not:
        done = None  # release the graph of the first run
        before.restore()
        drawn.restore()
        done = run(request, before, repeated=why)
        REPEATED.setdefault(request.net, {})[request.net.training] = why  # not if that, too, has raised
    assert done is not None
    return done


# -- which tensors of a run are static ---------------------------------------------------------------------------------


class NotStatic(BaseException):
    """The static input must be repeated. Not an Exception, so that a forward's `except Exception` cannot catch it."""


class Following(FunctionMode):
    """Tracks through the user's forward which tensors are static, [B, ...], and which carry time, [T*B, ...].

    Shapes are not sufficient: with one step or one row they are equal, and a reshape by a size read from a static
    tensor misinterprets the time dimension. So this mode intercepts every torch call. If an operation joins static and
    folded tensors, or draws random numbers, which must differ between steps, it aborts the run. `_follow` then runs
    again with the static input repeated over time, without tracking.
    """

    def __init__(self, steps: int, batch: int):
        super().__init__()
        self.why_not = ""
        self._rows, self._batch = steps * batch, batch
        self._static = WeakTensorKeyDictionary()
        self._random: list[Tensor] = []  # empty: to be read before the next call

    def is_static(self, x: Tensor) -> bool:
        """Whether x is the same at every step. For a tensor created by the forward, its number of rows decides."""
        known: bool | None = self._static.get(x)
        return (x.dim() > 0 and x.shape[0] == self._batch != self._rows) if known is None else known

    def static(self, x: Tensor) -> Tensor:
        """Mark x as static and return it; called for every input."""
        self._static[x] = True
        return x

    def mark(self, x: Tensor, static: bool) -> None:
        """Record whether x is static."""
        self._static[x] = static

    def aside(self) -> AbstractContextManager[Any]:
        """A context without tracking: a neuron handles time itself, and may draw random numbers."""
        self._random = []
        return without_torch_function()

    def give_up(self, why: str) -> None:
        """Abort the run."""
        self.why_not = self.why_not or why
        raise NotStatic(why)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        met = {known for t in _tensors((args, kwargs)) if (known := self._static.get(t)) is not None}
        name = getattr(func, "__name__", str(func))
        if len(met) == 2:
            self.give_up(f"{name} combines a tensor that is the same at every step and one that is not")
        if False in met:
            result = func(*args, **kwargs)
            self._random = []
        else:
            result = self._without_randomness(name, func, args, kwargs)
        for known in met:
            changed = args[:1] if name == "__setitem__" else result
            for t in _tensors(changed):
                self.mark(t, known)
                if not known and t.dim() and t.shape[0] != self._rows:
                    self.give_up(f"{name} moves time out of dimension 0: it returns {len(t)} rows, not {self._rows}")
        return result

    def _without_randomness(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        before = self._random or torch_random()
        result = func(*args, **kwargs)
        self._random = torch_random()
        own = any(isinstance(arg, torch.Generator) for arg in (*args, *kwargs.values()))
        if own or len(before) != len(self._random) or not all(map(torch.equal, before, self._random)):
            self.give_up(f"{name} draws random numbers, which must differ between steps")
        return result


class FollowingTraced(Following):
    """`Following` for a traced run, which cannot read the states of random generators."""

    _passes = False

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A context without tracking, in which other modes stay active: a scan collects what its body reads."""
        before, self._passes = self._passes, True
        try:
            yield
        finally:
            self._passes = before

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._passes:
            return func(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)

    def _without_randomness(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from _tensors(branch)
    elif isinstance(tree, dict):
        for branch in tree.values():
            yield from _tensors(branch)
