"""Run a network, restore it after an error, and compare it with its loop over steps.

The comparison is made at the first run of each kind, and on request.
"""

from collections.abc import Callable, Hashable
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from .._torch import count_dispatch_modes, is_traced, transforms_active
from ..caller import warn_caller
from ..layers import SEES_TIME
from ..neurons._state import on_trial
from ..neurons._unrolled_run import REWRITE, SPIKES_ALONE, mark
from ._checkpoint import run_in_chunks
from ._compare import STEPS, CannotCompare, Comparison, DeepSnapshot, Differs, raises
from ._known_layers import is_row_by_row
from ._run import Run, run
from ._snapshot import RandomState, Settings, Snapshot, adopt, undone
from ._time_folding import Request, read
from ._watch import differs_by_design

ROW_BY_ROW = "its layers are known to process each row of a batch separately"

COMPARED: WeakKeyDictionary[nn.Module, dict[Hashable, str]] = WeakKeyDictionary()
"""For each network, the kinds of runs that need no further comparison, with the reason; empty if they were compared."""

MOST = 64
"""Maximum number of kinds of runs compared per network: some networks get inputs of a new size at every call."""


Runner = Callable[[Request, Snapshot], Run]
"""`run`, or a function that runs a request in chunks; its second argument is the network's state before the run."""


def run_checked(
    request: Request,
    check: bool | None,
    checkpoint: int | None = None,
    *,
    counts: bool = False,
    detach: bool = False,
) -> Run:
    """Run a request; then compare the network with its loop over steps, if a comparison is due.

    After an error, the network and torch's settings are restored, and a note says that the network was unrolled.

    Args:
        request: the request.
        check: None: compare at the first run of a kind, over its first steps; True: always, all steps; False: never.
        checkpoint: see `unroll`.
        counts: whether the run counts for taps and monitors.
        detach: whether the states are detached at the end.

    Raises:
        RuntimeError: if the network differs, naming the module. With check=True also if it cannot be compared.
        TypeError: if check=True and a neuron accepts whole sequences only.
    """
    layers = [module for module in request.names if isinstance(module, SEES_TIME)]
    settings, context, before = Settings(), copy_context(), None
    how: Runner = run if checkpoint is None else partial(run_in_chunks, length=checkpoint)
    try:
        mark(layers, unrolled=True)
        before = Snapshot(request.names)
        comparison = _due(request, check)
        if comparison is None:
            done = context.run(how, request, before)
        else:
            done = context.run(_run_and_compare, comparison, request, check, how, before)
        for layer in layers if detach else ():
            context.run(layer.detach_mem)
        if counts:
            done.count(request.steps)
        adopt(context)
        mark(layers, unrolled=False)
        if request.static:
            warn_of_sequence(request)
        return done
    except BaseException as failure:
        error = failure
        settings.restore(error)
        if before is not None:
            before.restore()
        mark(layers, unrolled=False)
        if before is not None and isinstance(error, Exception):
            error = advised(error, request)
        rows = request.steps * request.batch
        sizes = f"{request.steps} steps of {request.batch} rows, {rows} in all"
        error.add_note(f"(while the network was unrolled: {sizes})")
        if error is failure and type(error) is RuntimeError and any(word in str(error) for word in ("shape", "size")):
            error.add_note(f"(Does its forward contain a fixed batch size or a loop over time? {REWRITE})")
        if error is failure and type(error) is TypeError and "tuple" in str(error):
            error.add_note(f"(Is it the tuple of a neuron? {SPIKES_ALONE})")
        if error is not failure:
            raise error from failure
        raise


def _run_and_compare(
    comparison: Comparison, request: Request, check: bool | None, how: Runner, before: Snapshot
) -> Run:
    try:
        with comparison.watching():
            done = how(request, before)
    except Exception as error:
        comparison.before.restore()
        if stored := comparison.stored():
            raise Differs(raises(error, request) + stored) from error
        raise
    except BaseException:
        comparison.before.restore()
        raise
    try:
        why = _compare(comparison, check)
    except BaseException:
        comparison.before.restore()
        raise
    _remember(request, why)
    return done


def _compare(comparison: Comparison, check: bool | None) -> str:
    """Compare; returns why that was not possible, or an empty string."""
    try:
        comparison.compare()
    except Differs:
        raise
    except CannotCompare as error:
        if check:
            raise RuntimeError(
                f"unroll(..., check=True) cannot compare this network with its steps: {error}"
            ) from error
        return str(error)
    except Exception as error:  # a tensor that cannot be cloned or compared must not stop a run that has succeeded
        if check:
            raise
        return f"the comparison raised {type(error).__name__}: {error}"
    return ""


def _due(request: Request, check: bool | None) -> Comparison | None:
    if check is False or request.steps < 2 or not request.batch:
        return None  # a single step stores nothing between steps, and its dimension 0 is the batch
    if check is None:
        known = COMPARED.get(request.net)
        if known is not None and (len(known) >= MOST or _kind(request) in known):
            return None
        if is_row_by_row(request.net):
            _remember(request, ROW_BY_ROW)
            return None
    for module, name in request.names.items():
        if getattr(module, "_without_steps", False):
            if check:
                raise TypeError(
                    f"check=True compares with single steps, which {name or 'the network'!r} ({type(module).__name__}) "
                    "does not support: it requires whole sequences. Omit check, or check the network without this layer"
                )
            _remember(request, f"{name or 'the network'!r} requires whole sequences")
            return None
    # are there values to compare, and does nothing else record or count operations?
    plain = all(type(t) in (Tensor, nn.Parameter) and not t.is_meta for t in request.tensors())
    capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    if not plain or capturing or is_traced() or transforms_active() or count_dispatch_modes():
        return None
    return Comparison(request, request.steps if check else STEPS)


def why_not_compared(request: Request) -> str | None:
    """Why a run of this kind was not compared with its steps; empty if it was, None if no run was made yet."""
    return COMPARED.get(request.net, {}).get(_kind(request))


def _remember(request: Request, why: str) -> None:
    COMPARED.setdefault(request.net, {})[_kind(request)] = why


def _kind(request: Request) -> Hashable:
    """The key of a comparison: the modules, their modes, and the kinds of the inputs."""
    modules = tuple([(name, type(m), m.training) for m, name in request.names.items()])
    lead = 1 if request.static else 2
    leaves, containers = request.leaves()
    return request.static, str(containers), tuple([_kind_of(leaf, lead) for leaf in leaves]), modules


def _kind_of(leaf: Any, lead: int) -> Hashable:
    if isinstance(leaf, Tensor):
        return leaf.dtype, leaf.shape[lead:]
    return leaf if isinstance(leaf, (bool, str)) else id(type(leaf))


def why_by_steps(net: nn.Module, x: Tensor, steps: int | None) -> str:
    """Why `unroll` would differ from a loop over time; empty if it would not. Changes nothing.

    The network is run on this input, in its current mode, and compared as by ``unroll(..., check=True)``. Layers that
    write to a buffer (BatchNorm in training) or draw random numbers (Dropout in training) do so once per step.
    """
    before, drawn = Snapshot(net.modules()), RandomState()

    def work() -> str:
        request = read(net, (x,), {}, steps)
        with torch.no_grad(), on_trial():
            run_checked(request, True)
        if before.written():
            return "a layer writes to a buffer in its forward"
        if any(map(differs_by_design, request.layers())):
            return "a BatchNorm over the statistics of a batch would mix the rows of all steps"
        return "" if drawn.same() else "a layer draws random numbers"

    try:
        return undone(work, before, drawn)
    except Exception as error:
        return str(error) or type(error).__name__


# -- what a caller may have meant: advice in errors, and a warning where only a guess is possible ----------------------

BUILTIN = (RuntimeError, ValueError, TypeError, IndexError)
"""Errors that can be raised again with another message."""


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
