"""A network over all time at once: its forward is called a single time, with time folded into dimension 0."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..neurons._time import Time, time_is
from .following import Following, NotStatic
from .request import Request, read, runs_straight
from .results import unfolded
from .snapshot import RandomState, Snapshot

REPEATED: WeakKeyDictionary[nn.Module, dict[bool, str]] = WeakKeyDictionary()
"""Networks whose static input had to be repeated, why, by training mode: so that it is not found out at every call."""


@dataclass
class Run:
    """What came of a request.

    Args:
        outputs: what the forward returned, every tensor led by [T, B].
        time: what the neurons did.
        repeated: why a static input was repeated over time; empty if it was not.
    """

    outputs: Any
    time: Time
    repeated: str = ""


def unroll(net: nn.Module, x: Any, *inputs: Any, steps: int | None = None, check: bool = False, **kwargs: Any) -> Any:
    """Run a network over all time at once.

    (docs to come)
    """
    request = read(net, (x, *inputs), kwargs, steps)
    if torch.compiler.is_dynamo_compiling():
        return _traced(request)
    return run(request).outputs


def _traced(request: Request) -> Any:
    """Under torch.compile, where nothing can be put back or tried again."""
    straight = request.static and runs_straight(request.net)
    args, kwargs = request.mapped(lambda t: t) if straight else request.folded()
    time = Time(request.steps, request.batch, straight, names=request.names)
    with time_is(time):
        outputs = request.net(*args, **kwargs)
    return unfolded(outputs, time)


def run(request: Request) -> Run:
    """Run it. A request that raises leaves the network as it was, and so does one of no steps."""
    before = Snapshot(request.names)
    try:
        done = _run(request, before)
    except BaseException as error:
        before.restore()
        rows = request.steps * request.batch
        told = f"raised while the network was unrolled: {request.steps} steps of {request.batch} rows, {rows} in all"
        if told not in getattr(error, "__notes__", ()):
            error.add_note(told)
        raise
    if not request.steps:
        before.restore()
    return done


def _run(request: Request, before: Snapshot) -> Run:
    if not request.static:
        return _once(request, *request.folded())
    if runs_straight(request.net):
        return _once(request, *request.mapped(lambda t: t), straight=True)
    why = REPEATED.get(request.net, {}).get(request.net.training, "")
    if why or request.steps < 2:
        return _once(request, *request.folded(), repeated=why)
    drawn = RandomState()
    followed = _followed(request, drawn)
    if isinstance(followed, Run):
        return followed
    before.restore()
    drawn.restore()
    done = _once(request, *request.folded(), repeated=followed)
    REPEATED.setdefault(request.net, {})[request.net.training] = followed  # not if that, too, has raised
    return done


def _once(request: Request, args: Any, kwargs: Any, straight: bool = False, repeated: str = "") -> Run:
    time = Time(request.steps, request.batch, straight, names=request.names)
    with time_is(time):
        outputs = request.net(*args, **kwargs)
    return Run(unfolded(outputs, time), time, repeated)


def _followed(request: Request, drawn: RandomState) -> Run | str:
    """Run with the static input as it is; or say why it must be repeated over time."""
    following = Following(request.steps, request.batch)
    args, kwargs = request.mapped(following.static)
    time = Time(request.steps, request.batch, origins=following, names=request.names)
    try:
        with time_is(time):
            with following:
                outputs = request.net(*args, **kwargs)
            done = Run(unfolded(outputs, time), time)
    except NotStatic:
        pass
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        following.why_not = following.why_not or f"with a static input it raises {type(error).__name__}: {error}"
    if not drawn.same_outside_torch():
        following.why_not = "its forward draws random numbers, which are to differ from step to step"
    return following.why_not or done
