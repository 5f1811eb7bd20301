"""Save the state that a run may change, so that it can be restored after an error, an interrupt or a trial.

A `Snapshot` holds the attributes and buffers of modules, and is taken at every call. `RandomState` holds the states of
the random generators, and `Settings` torch's settings of the thread and the process. Attributes, dicts and tensors are
copied; nothing is deep-copied.

Python can raise KeyboardInterrupt between any two lines, even in the `finally` of a `with` block. So settings are saved
before the run and restored by the outermost caller, and context variables are set in a copy of the context, which ends
with the call, in C.
"""

import random
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextvars import Context, copy_context
from functools import cache
from traceback import clear_frames
from typing import Any, TypeVar, cast
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from .._torch import (
    CompiledInEager,
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
    tree_leaves,
)
from ..layers import SEES_TIME
from ..neurons._parameters import is_ours
from ..neurons._unrolled_run import RunHook

HELD = ("_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""The attributes in which nn.Module itself stores tensors and hooks."""

Copy = Callable[[Tensor], Tensor]
"""A function from a tensor to the copy that replaces it."""

Named = list[tuple["ref[nn.Module]", str, Any]]
"""Attributes or buffers: (module, name, value)."""

Result = TypeVar("Result")


class Snapshot:
    """The attributes of every module of a network, including the states of its neurons, and the values of its buffers.

    Attributes are saved by reference: a list that a forward appends to is not restored. Neither are the values of
    parameters, nor submodules. A snapshot does not keep the modules alive.
    """

    def __init__(self, modules: Iterable[nn.Module]):
        self._attributes: list[tuple[ref[nn.Module], dict[str, Any]]] = []
        self._containers: dict[int, tuple[Any, Any]] = {}  # containers by id, with a copy of each
        self._values: dict[int, tuple[Tensor, Tensor, int]] = {}  # tensors by id, with a copy and the version of each
        for module in modules:
            if isinstance(module, LazyModuleMixin):
                continue  # its first call changes its class; restoring its attributes would make it invalid
            attributes = dict(vars(module))
            attributes.pop("_modules", None)
            self._attributes.append((ref(module), attributes))
            for name in HELD:
                if isinstance(held := attributes.get(name), dict):
                    self._containers[id(held)] = held, held.copy()
            if module._buffers and _may_write(module):
                for buffer in module._buffers.values():
                    if buffer is not None:
                        self._save_values(buffer)

    def _save_values(self, tensor: Tensor) -> None:
        self._values[id(tensor)] = tensor, _like(tensor), version(tensor)

    def restore(self) -> None:
        """Restore everything."""
        self._put_back()
        for tensor, values, _ in self._values.values():
            if not torch.equal(tensor, values):  # BatchNorm does not count its writes in the version
                tensor.detach().copy_(values)  # not under no_grad, which Ctrl-C at its end would leave on

    def stand_in(self, only: Iterable[Any] | None = None) -> None:
        """Reset the network, or only some containers, to the saved state, on copies of the tensors, until `restore`.

        Because of the copies, not even the versions of the tensors change.
        """
        copies: dict[int, Tensor] = {}

        def copied_once(tensor: Tensor) -> Tensor:
            at = id(tensor)
            if at in self._values and at not in copies:
                copies[at] = _like(self._values[at][1])
            return copies.get(at, tensor)

        if only is None:
            self._put_back(copied_once)
        else:
            # some are not saved: those of a scripted module are no dictionaries, and a large network has too many
            saved = [self._containers[id(holder)] for holder in only if id(holder) in self._containers]
            self._put_back_containers(saved, copied_once)

    def _put_back(self, copied_once: Copy | None = None) -> None:
        for module, attributes in self._living():
            put(vars(module), {**attributes, "_modules": module._modules})
        self._put_back_containers(self._containers.values(), copied_once)

    def _put_back_containers(
        self, containers: Iterable[tuple[Any, Any]], copied_once: Callable[[Tensor], Tensor] | None
    ) -> None:
        for holder, saved in containers:
            if not saved and not holder:
                continue  # the usual case
            if copied_once is None or isinstance(saved, set):
                put(holder, saved)
            elif isinstance(saved, dict):
                put(holder, {k: copied_once(v) if isinstance(v, Tensor) else v for k, v in saved.items()})
            else:
                put(holder, [copied_once(v) if isinstance(v, Tensor) else v for v in saved])

    def _living(self) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
        for at, attributes in self._attributes:
            module = at()
            if module is not None:
                yield module, attributes

    def states(self) -> Named:
        """The current states of layers that process time: attributes that hold tensors or have changed."""
        return [
            (ref(module), name, value)
            for module, then in self._living()
            if isinstance(module, SEES_TIME)
            for name, value in vars(module).items()
            if name not in HELD and (value is not then.get(name, self) or _holds_tensors(value)) and name != "_modules"
        ]

    def changed_buffers(self) -> Named:
        """Copies of the buffers whose values have changed."""
        changed: Named = []
        for module, attributes in self._living():
            _, before = self._containers.get(id(attributes.get("_buffers")), (None, {}))
            for name, buffer in module._buffers.items():
                if buffer is None:
                    continue
                then = self._values[id(buffer)][1] if id(buffer) in self._values else buffer
                if buffer is not before.get(name) or not torch.equal(buffer, then):
                    changed.append((ref(module), name, buffer.detach().clone()))
        return changed

    def written(self) -> bool:
        """Whether the value of a buffer has changed, as the running statistics of a BatchNorm do in training."""
        return any(not torch.equal(tensor, values) for tensor, values, _ in self._values.values())

    def versions(self) -> list[tuple[Tensor, int]]:
        """The versions of the parameters and buffers that this snapshot does not copy."""
        tensors = [t for m, _ in self._living() for t in (*m._parameters.values(), *m._buffers.values())]
        return [
            (t, t._version) for t in tensors if t is not None and id(t) not in self._values and not t.is_inference()
        ]

    def mute(self) -> None:
        """Until `restore`, the hooks of taps and monitors record nothing; the network runs as if they did."""
        for module, _ in self._living():
            for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
                hooks = vars(module)[kind]
                quiet = {key: hook.muted() if isinstance(hook, RunHook) else hook for key, hook in hooks.items()}
                vars(module)[kind] = type(hooks)(quiet)


@cache
def _of_torch(kind: Hashable) -> bool:
    """Whether a module class is torch.nn's or this package's."""
    theirs: type = next(base for base in getattr(kind, "__mro__", ()) if not is_ours(base))
    return theirs.__module__.startswith("torch.nn.modules.")


def _may_write(module: nn.Module) -> bool:
    """Whether the forward of a module may write to its buffers.

    Layers of this package do not. Those of torch.nn do so if they track running statistics, or have a hook such as that
    of spectral_norm.
    """
    if not _of_torch(cast(Hashable, type(module))) or (module.training and vars(module).get("track_running_stats")):
        return True
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return not all(isinstance(hook, RunHook) for hook in hooks)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, (Tensor, list, tuple, dict)) and any(isinstance(t, Tensor) for t in tree_leaves(value))


def version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _like(tensor: Tensor) -> Tensor:
    """A copy of a tensor; that of a parameter is a parameter, since a forward may clip its weights."""
    values = tensor.detach().clone()
    return nn.Parameter(values, tensor.requires_grad) if type(tensor) is nn.Parameter else values


def put(holder: Any, values: Any) -> None:
    """Restore the contents of a container; a dict has all of its keys at any time."""
    if isinstance(holder, dict):
        holder.update(values)
        if len(holder) != len(values):
            for key in holder.keys() - values.keys():
                del holder[key]
    elif isinstance(holder, list):
        holder[:] = values
    elif isinstance(holder, set):
        holder.intersection_update(values)
        holder.update(values)
    else:
        holder.clear()
        holder.extend(values)


class RandomState:
    """The random generators that a network may draw from: torch's on the CPU and on CUDA, NumPy's and Python's."""

    def __init__(self) -> None:
        self._python, self._numpy = random.getstate(), np.random.get_state()
        self._torch = torch_random()

    def restore(self) -> None:
        """Restore the generators, so that they draw the same numbers again."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch[0])
        if self._torch[1:]:
            torch.cuda.set_rng_state_all(self._torch[1:])

    def same(self) -> bool:
        """Whether nothing was drawn since the snapshot."""
        return self.same_in_torch() and self.same_outside_torch()

    def same_in_torch(self) -> bool:
        """Whether torch's generators are unchanged."""
        now = torch_random()
        return all(map(torch.equal, now[: len(self._torch)], self._torch))

    def same_outside_torch(self) -> bool:
        """Whether NumPy's and Python's generators are unchanged."""
        kind, state_key, *rest = np.random.get_state()
        mine, known, *others = self._numpy
        same = (kind, *rest) == (mine, *others) and np.array_equal(state_key, known)
        return same and random.getstate() == self._python


def torch_random() -> list[Tensor]:
    """The states of torch's generators: of the CPU, and of all CUDA devices if CUDA is in use."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ())]


# -- torch's settings, and work without side effects ------------------------------------------------------------------

DEVICES = ("cpu", "cuda")


class Settings:
    """The settings of torch that a run changes temporarily: this thread's hooks and modes, and hooks on all modules."""

    def __init__(self) -> None:
        self._hooks = saved_hooks()
        self._modes, self._functions = function_modes(), function_state()
        self._dispatch = count_dispatch_modes()
        self._stance, self._eager = compiler_stance(), CompiledInEager.depth()
        self._grad, self._autocast = torch.is_grad_enabled(), [torch.is_autocast_enabled(d) for d in DEVICES]
        self._nested = _nested_autocast()
        self._on_modules = [set(hooks) for hooks in hooks_on_all_modules()]

    def restore(self, error: BaseException) -> None:
        """Restore all changed settings after an error."""
        if not isinstance(error, Exception):
            # Ctrl-C may have left context managers half entered, even torch's; they end with the frames that hold them
            clear_frames(error.__traceback__)
        while saved_hooks() not in (None, self._hooks):
            pop_saved_hooks()
        while function_modes() > self._modes:
            pop_function_mode()
        while count_dispatch_modes() > self._dispatch:
            pop_dispatch_mode()
        while CompiledInEager.depth() > self._eager:
            CompiledInEager.__exit__()
        if not self._eager:  # an exit may have been interrupted
            CompiledInEager.__exit__()
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
    """Set the user's context variables that were set in a copy of the context."""
    for variable, value in context.items():
        if variable.get(None) is not value:
            variable.set(value)


def undone(work: Callable[[], Result], *taken: Snapshot | RandomState) -> Result:
    """Return ``work()`` and restore all snapshots, whether it returns or raises; twice if it is interrupted."""

    def restore() -> None:
        for each in taken:
            each.restore()

    settings, context = Settings(), copy_context()
    try:
        result = context.run(work)
        adopt(context)
        restore()
        return result
    except BaseException as error:  # including Ctrl-C during `restore`
        settings.restore(error)
        restore()
        raise
