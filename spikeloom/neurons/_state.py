"""The states of a layer: initial values, use in a call, and how they are moved, copied and saved with the layer.

Before a run a layer also checks its input, and whether its states belong to the current run:

- `torch.utils.checkpoint` repeats a forward within the backward pass, which would start from the end of the first run.
- A replica of nn.DataParallel exists for one call. Its states are lost, and the next call starts from initial states.
- A state of a `torch.func.vmap` is a wrapper, which is invalid after the transform.
"""

import copy
import operator
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from .._torch import (
    IS_REPLICA,
    exporting,
    graph_task,
    is_batched,
    is_fake,
    is_traced,
    is_wrapped,
    of_running_vmap,
    trace_in_progress,
    untraced,
    unwrapped_if_dead,
)
from ..caller import warn_caller
from ..engine.graph import HALVES
from ..engine.run import seen_through
from ..scoped import Scoped
from ._parameters import Parameters, broadcasts
from ._unrolled_run import REWRITE, SPIKES_ALONE, current_run

Layer = Any
"""A layer with states: a `SpikingNeuron` or an `OverTime`, which depend on this file."""


def by_reset_mem(self: Any) -> Any:
    """Alias of `reset_mem` that respects overrides in subclasses."""
    return self.reset_mem()


def deep_copied(layer: Layer, memo: dict[int, Any]) -> Layer:
    """``__deepcopy__`` of a layer with states: uses its `__getstate__`, which detaches them.

    Defined explicitly, because a class derived by `torch.nn.utils.parametrize` otherwise copies attributes unchanged.
    """
    kind: Any = type(layer)
    twin = memo[id(layer)] = kind.__new__(kind)
    # the derived class's own __getstate__ raises
    source = kind.__mro__[1] if is_parametrized(layer) else kind
    twin.__setstate__(copy.deepcopy(source.__getstate__(layer), memo))
    return twin


def moved(state: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """A state after `fn` of `.to(...)` and similar; zeros if it was on the meta device and had no values."""
    new = fn(state)
    return torch.zeros_like(new) if state.is_meta and not new.is_meta else new


@dataclass
class OfTrace:
    """The states of a layer in a recording of torch.jit.trace, which must not outlive it.

    A recording has no effect on the states: the next call, and the second recording with which torch compares the
    first, start from the states before it.

    Args:
        recording: the recording.
        before: the states before it.
        after: the states after the last call in it.
    """

    recording: Any
    before: tuple[Tensor, ...]
    after: tuple[Tensor, ...] = ()

    def __call__(self) -> None:
        """Stands in for a weak reference to a membrane: there is none."""


class States(Parameters):
    """Stores the states of a layer between calls. They are neither buffers nor parameters."""

    _before: Tensor | None = None  # the membrane before the last step, with its graph, from which `reset` follows
    _reset: Tensor | None = None  # R as set by a subclass with its own forward
    # the membrane that the last step returned before `detach_mem`; or, after torch.jit.trace, the states before it
    _cut: weakref.ref[Tensor] | OfTrace | None = None

    def _states(self, x: Tensor, dtype: torch.dtype, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        """The states before this call: the given ones, else the stored ones, else zeros. x is one step, [*S]."""
        own, names = self.__dict__, self._state_names()
        if not torch.compiler.is_compiling():
            if is_traced() or isinstance(self._cut, OfTrace):
                self._enter_trace()
            # all of them: the spikes that a recurrent neuron returned are not the tensor that it stores
            cut = None if self._cut is None else self._cut()
            if cut is not None and given[-1] is cut:
                given = tuple(state if state is None else state.detach() for state in given)
        refuse_misplaced(self, [own[name] for name, state in zip(names, given, strict=True) if state is None])
        states = []
        for name, state in zip(names, given, strict=True):
            stored = state is None
            value = own[name] if stored else state
            states.append(state_for(x, dtype, self, name, value, self._starts_at(name), stored))
        return tuple(states)

    def _enter_trace(self) -> None:
        """Start from the states before the last recording, if it is over; begin one, if a new one has begun."""
        now, last = trace_in_progress(), self._cut
        if isinstance(last, OfTrace) and last.recording is now:
            return
        with untraced():
            states = tuple([getattr(self, name) for name in self._state_names()])
            if isinstance(last, OfTrace) and all(map(operator.is_, states, last.after)):
                states = last.before
            if now is not None:  # a tensor that requires gradients cannot be a constant of a recording
                states = tuple([state.detach() for state in states])
        self._keep(states)
        self.__dict__["_cut"] = None if now is None else OfTrace(now, states)

    def _leave(self) -> None:
        """Note the end of a call."""
        own = self.__dict__
        if isinstance(own["_cut"], OfTrace) and own["_cut"].recording is trace_in_progress():
            own["_cut"].after = tuple([own[name] for name in self._state_names()])
        else:
            own["_cut"] = None

    def _states_at_hand(self, x: Tensor, given: tuple[Tensor | None, ...]) -> list[Tensor] | None:
        """The states for a run, if every state can be used unchanged with an input on the CPU; otherwise None."""
        own, shape, dtype, states = self.__dict__, self._shape_of_states(x), x.dtype, []
        for name, state in zip(self._state_names(), given, strict=True):
            if state is None:
                state = own[name]
            if (
                type(state) is not Tensor
                or state.shape != shape
                or state.dtype is not dtype
                or not state.is_cpu
                or (state.is_inference() and not torch.is_inference_mode_enabled())
                or state.is_neg()
                or is_wrapped(state)
            ):
                return None
            states.append(state)
        return states

    def _shape_of_states(self, x: Tensor) -> tuple[int, ...]:
        """The shape of a state for one step of the input."""
        return x.shape

    def _keep(self, states: tuple[Tensor, ...]) -> None:
        named = zip(self._state_names(), states, strict=True)
        if torch.compiler.is_compiling():  # torch 2.9 cannot trace an update
            for name, state in named:
                self.__dict__[name] = state
        else:
            self.__dict__.update(named)  # at once, also where Ctrl-C comes

    def _init_mem(self) -> None:
        """Hook at the end of the constructor, for subclasses that add states."""

    def reset_mem(self) -> Any:
        """Set every state to its initial value, in its current shape, and return them: one tensor, or a tuple."""
        unrolled = current_run()
        if unrolled is not None:
            cure = f"Reset before unroll, by snn.utils.reset(net). {REWRITE}"
            unrolled.refuse_access(self, "it is reset (init_leaky, reset_mem or utils.reset)", cure)
        restarted(self)
        names, stored = self._state_names(), [usable(getattr(self, name)) for name in self._state_names()]
        if is_traced() or exporting():  # a recording must not contain states of a run before it
            stored = [torch.zeros(0, dtype=state.dtype, device=state.device) for state in stored]
        states = tuple([torch.full_like(s, self._starts_at(n)) for s, n in zip(stored, names, strict=True)])
        self._keep(states)
        self._cut_before()
        return states[0] if len(states) == 1 else states

    def detach_mem(self) -> None:
        """Detach every state from its autograd graph; its value is preserved.

        Returned tensors keep their graph, so a loss may still be computed from them. If the last returned state is
        passed to the next step, it is detached there.
        """
        states = [usable(getattr(self, name)) for name in self._state_names()]
        if states and not torch.compiler.is_compiling():
            self.__dict__["_cut"] = weakref.ref(states[-1])
        self._keep(tuple(state.detach() for state in states))
        self._cut_before()

    def _cut_before(self) -> None:
        if self._before is not None:
            self.__dict__["_before"] = None if is_traced() or exporting() else usable(self._before).detach()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # states follow .to() etc., but are not buffers, which would be broadcast in distributed training
        super()._apply(fn, recurse)
        self._keep(tuple(moved(usable(getattr(self, name)), fn) for name in self._state_names()))
        for name in ("_before", "_reset"):
            stored = getattr(self, name)
            self.__dict__[name] = None if stored is None else moved(usable(stored), fn)
        return self

    def _replicate_for_data_parallel(self) -> Any:
        # a replica receives another part of the batch, to which the state of the original does not apply
        replica = super()._replicate_for_data_parallel()
        replicated(self, replica)
        replica._keep(tuple(getattr(self, name).new_zeros(0) for name in self._state_names()))
        replica.__dict__["_cut"] = None
        return replica

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a buffer. A state is not registered: it is set to the tensor and is not in the state_dict."""
        if name in self._state_names():
            setattr(self, name, torch.zeros(0) if tensor is None else tensor)
        else:
            super().register_buffer(name, tensor, persistent)

    __deepcopy__ = deep_copied

    def __getstate__(self) -> dict[str, Any]:
        tensors = ((name, getattr(self, name)) for name in (*self._state_names(), "_before", "_reset"))
        stored = {name: usable(tensor).detach() for name, tensor in tensors if tensor is not None}
        return {k: v for k, v in self.__dict__.items() if k not in ("_program", "_cut")} | stored

    def _label(self) -> str:
        """The name of the neuron in messages: its path while its network is unrolled."""
        unrolled, kind = current_run(), type(self).__name__
        return kind if unrolled is None else unrolled.label(self, kind)


def state_for(
    x: Tensor, dtype: torch.dtype, layer: Layer, name: str, state: Any, start: float = 0.0, stored: bool = False
) -> Tensor:
    """The state before a step x of the input, [*S]: `state`, broadcast; its initial value if it does not broadcast.

    A loop that passes the zeros of `reset_mem`, in the shape of the last batch, can continue with a smaller one. If
    other values are discarded, the layer warns once.

    `stored` is whether the layer stores the state; then a meta or fake one is discarded for a real input.
    """
    if not isinstance(state, Tensor):
        raise TypeError(f"{layer._label()} got {name} of type {type(state).__name__}; pass a tensor or nothing")
    same = state.shape == x.shape
    if not (same or broadcasts(state.shape, x.shape)) or (not state.numel() and (stored or not same)):
        _warn_dropped(x, layer, name, state, start)
        return torch.full(x.shape, start, dtype=dtype, device=x.device)
    other = type(state) is not type(x) and not torch.compiler.is_compiling()
    if stored and ((other and is_fake(state) != is_fake(x)) or state.is_meta != x.is_meta):
        return torch.full(x.shape, start, dtype=dtype, device=x.device)
    if state.device != x.device:
        raise ValueError(
            f"{layer._label()} has {name} on {state.device} and got an input on {x.device}; move one to the other, "
            "with .to(device)"
        )
    if state.is_complex():
        raise TypeError(f"{layer._label()} got {name} of dtype {state.dtype}; pass real numbers")
    compiling = torch.compiler.is_dynamo_compiling()  # dynamo cannot trace is_inference()
    if not compiling and state.is_inference() and not torch.is_inference_mode_enabled():
        state = state.clone()  # autograd rejects tensors created in inference mode
    taken: Tensor = state if state.dtype is dtype else state.to(dtype)
    return (taken if same else taken.expand(x.shape)).resolve_neg()


_warned: WeakSet[Layer] = WeakSet()
"""The layers that have warned. Not stored as an attribute, because `unroll` restores attributes."""

_trial: Scoped[bool] = Scoped("spikeloom_trial", False)
on_trial = partial(_trial.set, True)
"""Context for a run that only inspects a network and must not warn."""


def _warn_dropped(x: Tensor, layer: Layer, name: str, state: Tensor, start: float) -> None:
    """Warn once per layer if values are discarded; not for tensors without values."""
    if torch.compiler.is_compiling() or not state.numel() or seen_through() or _trial.get() or layer in _warned:
        return
    lost = ((state != start) & (state != 0)).any()
    if type(lost) is Tensor and not lost.is_meta and lost:  # a fake tensor has no value
        warn_caller(
            f"{layer._label()} starts from {name} = {start:g}: its previous {name}, of shape {tuple(state.shape)}, "
            f"does not broadcast to {tuple(x.shape)} and is dropped. Call spikeloom.utils.reset(net) before data of "
            "another shape"
        )
        _warned.add(layer)


# -- checks before a run -----------------------------------------------------------------------------------------------


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of states: that of the input, but float32 for half precision, which is too coarse to accumulate."""
    return torch.float32 if x.dtype in HALVES else x.dtype


def checked_input(x: Tensor, label: Callable[[], str]) -> Tensor:
    """The input as a floating tensor; integers and booleans become the default dtype, as in torch's type promotion."""
    if not isinstance(x, Tensor):
        from_neuron = type(x) is tuple and len(x) > 1 and all(isinstance(item, Tensor) for item in x)
        advice = f". Is it the tuple of a neuron? {SPIKES_ALONE}" if from_neuron else ""
        raise TypeError(f"{label()} got an input of type {type(x).__name__}; pass a torch.Tensor{advice}")
    if x.is_complex():
        raise TypeError(f"{label()} got an input of dtype {x.dtype}; pass real numbers")
    if x.layout is not torch.strided:
        raise TypeError(f"{label()} got an input of layout {x.layout}; pass a dense tensor, x.to_dense()")
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


# -- states of another run ---------------------------------------------------------------------------------------------


def refuse_misplaced(layer: Layer, states: Sequence[Tensor] | None = None, begun: bool = False) -> None:
    """Raise if the states belong to another run, or to a transform that has ended.

    `states` are the stored states from which the layer starts; None if it has none. `begun` indicates by other means
    that it has run before.
    """
    if torch.compiler.is_compiling():
        return
    task = graph_task()  # -1 outside of a backward
    own = layer.__dict__
    if task != -1 and own.get("_restarted") != task:
        if begun or any(state.numel() for state in states or ()):
            raise RuntimeError(
                f"{layer._label()} is run again within a backward, as torch.utils.checkpoint does, and would start "
                "from where the first run ended. Give checkpoint context_fn=spikeloom.utils.recomputing(net), or reset "
                "the neurons within what is checkpointed"
            )
        if states is None or states:  # passed states do not determine the next call, which may be called without any
            own["_restarted"] = task
    if any(map(escaped, states or ())):
        raise RuntimeError(
            f"{layer._label()} holds a state of a torch.func.vmap that has ended; "
            "call spikeloom.utils.reset(net) before the next run"
        )
    if IS_REPLICA in own:
        own.setdefault("_replicated", []).append("step")


def restarted(layer: Layer) -> None:
    """Record that the states of the layer belong to the current run: it was reset, or they were passed."""
    if torch.compiler.is_compiling():
        return
    layer.__dict__["_restarted"] = graph_task()
    if IS_REPLICA in layer.__dict__:
        layer.__dict__.setdefault("_replicated", []).append("reset")
    else:
        layer.__dict__["_replicated"] = []


def replicated(layer: Layer, replica: Layer) -> None:
    """Track the use of replicas; raise if the last one ran a single step from a state that was lost with it."""
    if set(layer.__dict__.get("_replicated", ())) == {"step"}:
        raise RuntimeError(
            f"{layer._label()} is called once per step by an nn.DataParallel, whose replicas, and their states, are "
            "gone after each call. Put the loop over time, or spikeloom.unroll, into the forward of the module that is "
            "wrapped, or use nn.parallel.DistributedDataParallel"
        )
    layer.__dict__["_replicated"] = replica.__dict__["_replicated"] = []


def usable(state: Tensor) -> Tensor:
    """The state; an empty one if it comes from a torch.func.vmap that has ended."""
    return torch.zeros(0, dtype=state.dtype, device=state.device) if escaped(state) else state


def escaped(state: Tensor) -> bool:
    """Whether a state is a wrapper from a torch.func.vmap that has ended."""
    if torch.compiler.is_compiling() or not is_wrapped(state):
        return False
    inner = unwrapped_if_dead(state)  # a wrapper left by torch.func.grad is used as the tensor inside
    return is_batched(inner) and not of_running_vmap(inner)
