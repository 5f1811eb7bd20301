"""The states that a neuron keeps from one call to the next: where they start, end, and go with the layer."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._torch import is_traced
from ._graph import Passage, carried
from ._misplaced import refuse_misplaced, replicated, restarted, usable
from ._state import deep_copied, moved, state_for
from ._time import REWRITE, current_time
from ._values import Values


def by_reset_mem(self: Any) -> Any:
    """`reset_mem` by another name, for one that a subclass may have overridden."""
    return self.reset_mem()


class Keeping(Values):
    """Keeps the states of a layer, whose names its values know. They are neither buffers nor parameters."""

    _before: Tensor | None = None  # the membrane before the last step, with its graph, from which `reset` follows
    _reset: Tensor | None = None  # what a subclass with its own forward says that R was
    _passage: Passage | None = None
    _cut: weakref.ref[Tensor] | None = None  # the membrane that the last step returned before `detach_mem`

    def _states(self, x: Tensor, dtype: torch.dtype, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        """The state before this call: what was given, else what the layer keeps, else zeros. x is one step, [*S]."""
        states, names = [], self._state_names()
        # all of them: the spikes that a recurrent neuron has returned are not the tensor that it keeps
        cut = None if torch.compiler.is_compiling() or self._cut is None else self._cut()
        if cut is not None and given[-1] is cut:
            given = tuple(state if state is None else state.detach() for state in given)
        refuse_misplaced(self, [getattr(self, name) for name, g in zip(names, given, strict=True) if g is None])
        for name, state in zip(names, given, strict=True):
            kept = state is None
            state = state_for(x, dtype, self, name, getattr(self, name) if kept else state, self._starts_at(name), kept)
            if self._passage is not None and self._passage.done and state.requires_grad:
                state = carried(state, self._label(), name)
            states.append(state)
        return tuple(states)

    def _keep(self, states: tuple[Tensor, ...]) -> None:
        self.__dict__.update(zip(self._state_names(), states, strict=True))  # at once, also where Ctrl-C comes

    def _init_mem(self) -> None:
        """Called at the end of the constructor, for a subclass that adds states of its own."""

    def reset_mem(self) -> Any:
        """Set every state to what it starts from, in its present shape, and return them: one tensor, or a tuple."""
        time = current_time()
        if time is not None:
            cure = f"Reset before unroll, by snn.utils.reset(net). {REWRITE}"
            time.refuse_access(self, "it is reset (init_leaky, reset_mem or utils.reset)", cure)
        restarted(self)
        names, kept = self._state_names(), [usable(getattr(self, name)) for name in self._state_names()]
        if is_traced():  # torch.jit.trace runs twice and compares: the second run must not meet states of the first
            kept = [torch.zeros(0, dtype=state.dtype, device=state.device) for state in kept]
        states = tuple([torch.full_like(s, self._starts_at(n)) for s, n in zip(kept, names, strict=True)])
        self._keep(states)
        self._cut_before()
        return states[0] if len(states) == 1 else states

    def detach_mem(self) -> None:
        """Cut every state from the graph that made it; its value stays.

        What calls have returned keeps its graph, so that a loss may still be made of it. Where the last state that was
        returned is passed to the next step, it is taken without its graph.
        """
        states = [usable(getattr(self, name)) for name in self._state_names()]
        if states and not torch.compiler.is_compiling():
            self.__dict__["_cut"] = weakref.ref(states[-1])
        self._keep(tuple(state.detach() for state in states))
        self._cut_before()

    def _cut_before(self) -> None:
        if self._before is not None:
            self.__dict__["_before"] = usable(self._before).detach()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # states follow .to() and the like, but are no buffers: those would be broadcast in distributed training
        super()._apply(fn, recurse)
        self._keep(tuple(moved(usable(getattr(self, name)), fn) for name in self._state_names()))
        for name in ("_before", "_reset"):
            kept = getattr(self, name)
            self.__dict__[name] = None if kept is None else moved(usable(kept), fn)
        return self

    def _replicate_for_data_parallel(self) -> Any:
        # a replica sees another part of the batch: the state of the original is none of its own
        replica = super()._replicate_for_data_parallel()
        replicated(self, replica)
        replica._keep(tuple(getattr(self, name).new_zeros(0) for name in self._state_names()))
        replica.__dict__.update(_passage=None, _cut=None)
        return replica

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """A buffer; but a state stays a state, of which no state_dict knows, and only starts from the tensor."""
        if name in self._state_names():
            setattr(self, name, torch.zeros(0) if tensor is None else tensor)
        else:
            super().register_buffer(name, tensor, persistent)

    __deepcopy__ = deep_copied

    def __getstate__(self) -> dict[str, Any]:
        tensors = ((name, getattr(self, name)) for name in (*self._state_names(), "_before", "_reset"))
        kept = {name: usable(tensor).detach() for name, tensor in tensors if tensor is not None}
        return {k: v for k, v in self.__dict__.items() if k not in ("_program", "_passage", "_cut")} | kept

    def _label(self) -> str:
        """How messages name the neuron: by its path while its network is unrolled."""
        time, kind = current_time(), type(self).__name__
        return kind if time is None else time.label(self, kind)
