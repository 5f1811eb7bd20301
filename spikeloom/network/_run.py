"""How a request is run, and which way its static input goes."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from .._torch import is_compiled, tree_map_only
from ..neurons._unrolled_run import UnrolledRun, running
from ._known_layers import runs_straight
from ._saved_bits import spikes_as_bits
from ._snapshot import RandomState, Snapshot
from ._static_inputs import Following, NotStatic
from ._time_folding import Request, unfolded

REPEATED: WeakKeyDictionary[nn.Module, dict[bool, str]] = WeakKeyDictionary()
"""Networks whose static input had to be repeated, why, by training mode: so that it is not found out at every call."""


@dataclass
class Run:
    """What came of a request.

    Args:
        outputs: what the forward returned, every tensor led by [T, B].
        unrolled: what the neurons did.
        repeated: why a static input was repeated over time; empty if it was not.
    """

    outputs: Any
    unrolled: UnrolledRun
    repeated: str = ""

    def count(self, steps: int) -> None:
        """Tell the taps and monitors of the network that it is done, and how many steps it had."""
        if not self.unrolled.counted:  # a run in chunks has told so of each
            self.unrolled.counted.append(steps)


def run_traced(request: Request) -> Any:
    """Under torch.compile, where nothing can be put back or tried again."""
    straight = request.static and runs_straight(request.net)
    args, kwargs = request.mapped(lambda t: t) if straight else request.folded()
    unrolled = UnrolledRun(request.steps, request.batch, straight, names=request.names)
    with running(unrolled):
        outputs = request.net(*args, **kwargs)
    unrolled.counted.append(request.steps)
    return unfolded(outputs, unrolled)


def run(request: Request, before: Snapshot) -> Run:
    """Run it; `before` is how the network is now."""
    if not request.steps:
        return _run_no_steps(request, before)
    if not request.static:
        return _run_once(request, request.folded())
    if runs_straight(request.net):
        return _run_once(request, request.mapped(lambda t: t), straight=True)
    why = REPEATED.get(request.net, {}).get(request.net.training, "") or _cannot_follow(request)
    if why or request.steps < 2:
        return _run_once(request, request.folded(), repeated=why)
    drawn = RandomState()
    followed = _follow(request, drawn)
    if isinstance(followed, Run):
        return followed
    before.restore()
    drawn.restore()
    done = _run_once(request, request.folded(), repeated=followed)
    REPEATED.setdefault(request.net, {})[request.net.training] = followed  # not if that, too, has raised
    return done


def _run_no_steps(request: Request, before: Snapshot) -> Run:
    """No steps change nothing, but their results have shapes: those of one step, which many forwards need to run."""
    drawn = RandomState()
    args, kwargs = request.mapped(lambda t: t.unsqueeze(0) if request.static else t.new_zeros((1, *t.shape[1:])))
    one = run(replace(request, args=args, kwargs=kwargs, steps=1, static=False), before)
    before.restore()
    drawn.restore()
    return replace(one, outputs=tree_map_only(Tensor, lambda t: t.new_empty((0, *t.shape[1:])), one.outputs))


def _cannot_follow(request: Request) -> str:
    """Compiled code shows nothing of what it does; and to stop a lazy module halfway would leave garbage in it."""
    if any(isinstance(module, LazyModuleMixin) for module in request.names):
        return "a lazy module makes its parameters in this call"
    return "a part of the network is compiled by itself" if any(map(is_compiled, request.names)) else ""


def _run_once(
    request: Request, inputs: Any, straight: bool = False, repeated: str = "", origins: Following | None = None
) -> Run:
    unrolled = UnrolledRun(request.steps, request.batch, straight, origins, request.names)
    with running(unrolled), spikes_as_bits(unrolled, request), origins or nullcontext():
        args, kwargs = inputs
        outputs = request.net(*args, **kwargs)
    return Run(unfolded(outputs, unrolled), unrolled, repeated)


def _follow(request: Request, drawn: RandomState) -> Run | str:
    """Run with the static input as it is; or say why it must be repeated over time."""
    following = Following(request.steps, request.batch)
    try:
        done = _run_once(request, request.mapped(following.static), origins=following)
    except NotStatic:
        pass
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        following.why_not = following.why_not or f"with a static input it raises {type(error).__name__}: {error}"
    if not drawn.same_outside_torch():
        following.why_not = "its forward draws random numbers, which are to differ from step to step"
    return following.why_not or done
