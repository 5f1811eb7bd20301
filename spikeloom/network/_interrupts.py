"""Work that leaves nothing behind when an error, or Ctrl-C at any line, ends it.

Python raises KeyboardInterrupt between any two lines, also within the `finally` of a `with` block. So what torch holds
for a thread or for the process is noted before, and put back by whoever is outermost; and context variables are set in
a copy of the context, which ends in C with the call.
"""

from collections.abc import Callable
from contextvars import Context, copy_context
from traceback import clear_frames
from typing import TypeVar

import torch

from .._torch import (
    compiler_stance,
    count_dispatch_modes,
    function_modes,
    function_state,
    hooks_on_all_modules,
    pop_dispatch_mode,
    pop_function_mode,
    pop_saved_hooks,
    saved_hooks,
    set_compiler_stance,
    set_function_state,
)
from ..neurons._parameters import is_ours
from ._snapshot import RandomState, Snapshot

Result = TypeVar("Result")
DEVICES = ("cpu", "cuda")


class Settings:
    """What torch holds for this thread that a run sets for a while: hooks and modes; and hooks on all modules."""

    def __init__(self) -> None:
        self._hooks = saved_hooks()
        self._modes, self._functions = function_modes(), function_state()
        self._dispatch, self._stance = count_dispatch_modes(), compiler_stance()
        self._grad, self._autocast = torch.is_grad_enabled(), [torch.is_autocast_enabled(d) for d in DEVICES]
        self._nested = _nested_autocast()
        self._on_modules = [set(hooks) for hooks in hooks_on_all_modules()]

    def restore(self, error: BaseException) -> None:
        """After an error, put everything back that is not as it was."""
        if not isinstance(error, Exception):
            # Ctrl-C may have left context managers, torch's too, half entered; they end with the frames that hold them
            clear_frames(error.__traceback__)
        while saved_hooks() not in (None, self._hooks):
            pop_saved_hooks()
        while function_modes() > self._modes:
            pop_function_mode()
        while count_dispatch_modes() > self._dispatch:
            pop_dispatch_mode()
        if compiler_stance() is not self._stance:
            set_compiler_stance(self._stance)
        set_function_state(self._functions)
        torch.set_grad_enabled(self._grad)
        for device, on in zip(DEVICES, self._autocast, strict=True):
            torch.set_autocast_enabled(device, on)
        while _nested_autocast() > self._nested:
            torch.autocast_decrement_nesting()
        for hooks, before in zip(hooks_on_all_modules(), self._on_modules, strict=True):
            for key in hooks.keys() - before:
                if is_ours(hooks[key]):
                    hooks.pop(key, None)


def _nested_autocast() -> int:
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return depth


def adopt(context: Context) -> None:
    """Context variables of the user's that were set in a copy of the context stay set."""
    for variable, value in context.items():
        if variable.get(None) is not value:
            variable.set(value)


def undone(work: Callable[[], Result], *taken: Snapshot | RandomState) -> Result:
    """Return ``work()``, and put back all that was taken, whether it returns or raises; twice, if it is interrupted."""

    def restore() -> None:
        for each in taken:
            each.restore()

    settings, context = Settings(), copy_context()
    try:
        result = context.run(work)
        adopt(context)
        restore()
        return result
    except BaseException as error:  # also where Ctrl-C came while it was put back
        settings.restore(error)
        restore()
        raise
