"""Run a network, restore it after an error, and compare it with its loop over steps.

The comparison is made at the first run of each kind, and on request.
"""

from collections.abc import Callable, Hashable
from contextvars import copy_context
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .._torch import count_dispatch_modes, is_traced, transforms_active
from ..layers import SEES_TIME
from ..neurons._state import on_trial
from ..neurons._unrolled_run import REWRITE, mark
from ._advice import advised, warn_of_sequence
from ._checkpoint import run_in_chunks
from ._compare import STEPS, CannotCompare, Comparison, Differs, raises
from ._known_layers import is_row_by_row
from ._run import Run, run
from ._snapshot import RandomState, Settings, Snapshot, adopt, undone
from ._time_folding import Request, read
from ._watch import differs_by_design

ROW_BY_ROW = "its layers are known to process each row of a batch separately"

COMPARED: WeakKeyDictionary[nn.Module, dict[Hashable, str]] = WeakKeyDictionary()
"""For each network, the kinds of runs that need no further comparison: why none was made; empty if one was."""

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
