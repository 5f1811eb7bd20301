"""What a caller of `unroll` may have meant: advice in errors, and a warning where only a guess is possible."""

from dataclasses import replace
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from ..caller import warn_caller
from ..neurons._state import on_trial
from ._compare import DeepSnapshot
from ._run import run
from ._snapshot import RandomState, Snapshot, undone
from ._time_folding import Request

BUILTIN = (RuntimeError, ValueError, TypeError, IndexError)
"""Errors that can be raised anew with another message."""


def advised(error: Exception, request: Request) -> Exception:
    """The error of a failed run, or one of the same type whose message begins with advice about the number of steps."""
    x = _only_input(request)
    if x is None or type(error) not in BUILTIN or isinstance(error, torch.OutOfMemoryError):
        return error
    found = _static_without_steps(request, x) or _sequence_with_steps(request, x)
    return type(error)(f"{found}. (The network raises: {error})") if found else error


def _static_without_steps(request: Request, x: Tensor) -> str:
    if request.static or not _runs(request, static=True) or (x.dim() > 2 and _takes_any_dimensions(request)):
        return ""
    return (
        f"unroll reads an input of shape {tuple(x.shape)} as a sequence [T, B, ...] of {len(x)} steps with "
        f"{x.shape[1]} rows, but the network accepts it only as [B, ...]. If it is the same at every step, pass the "
        "number of steps, unroll(net, x, steps=T); if it is one step, pass x.unsqueeze(0)"
    )


def _sequence_with_steps(request: Request, x: Tensor) -> str:
    if not _may_be_sequence(request, x) or not _runs(request, static=False):
        return ""
    return (
        f"unroll got steps={request.steps} and reads an input of shape {tuple(x.shape)} as {len(x)} rows [B, ...], the "
        "same at every step, but the network accepts it only as a sequence [T, B, ...]. Leave out steps"
    )


def warn_of_sequence(request: Request) -> None:
    """Warn once per network if a static input looks like a sequence that was passed with its number of steps."""
    x = _only_input(request)
    if x is None or not _may_be_sequence(request, x) or request.net in _asked:
        return
    _asked.add(request.net)
    if not _takes_any_dimensions(request):
        return
    warn_caller(
        f"unroll got steps={request.steps} and reads an input of shape {tuple(x.shape)} as {len(x)} rows [B, ...], the "
        f"same at every step; outputs are [{request.steps}, {len(x)}, {x.shape[1]}, ...]. If it is a sequence "
        "[T, B, ...], leave out steps"
    )


_asked: WeakSet[nn.Module] = WeakSet()
"""The networks for which `warn_of_sequence` has looked."""


def _only_input(request: Request) -> Tensor | None:
    """The only input of the network, if it is a tensor with a batch dimension."""
    args = request.args
    return args[0] if len(args) == 1 and not request.kwargs and isinstance(args[0], Tensor) and args[0].dim() else None


def _may_be_sequence(request: Request, x: Tensor) -> bool:
    return request.static and request.steps == len(x) > 1 and x.dim() > 2


def _takes_any_dimensions(request: Request) -> bool:
    """Whether the network accepts a static input with one more dimension, such as layers of Linear and neurons do."""
    x = _only_input(request)
    return x is not None and _runs(replace(request, args=(x.unsqueeze(1).expand(-1, 2, *x.shape[1:]),)), static=True)


def _runs(request: Request, static: bool) -> bool:
    """Whether the network runs on its first input read as static, or as a sequence. Changes nothing."""
    x = request.args[0]
    if any(isinstance(module, LazyModuleMixin) for module in request.names) or torch.compiler.is_compiling():
        return False
    x = x.detach() if static else x[:1].detach()
    other = replace(request, args=(x,), steps=1, batch=x.shape[0 if static else 1], static=static)

    def work() -> bool:
        with torch.no_grad(), on_trial():
            run(other, Snapshot(request.names))
        return True

    try:
        return undone(work, DeepSnapshot(request.names), RandomState())
    except Exception:
        return False
