"""What a user's subclass may override, or assign on one neuron: its dynamics, how it fires and resets, its forward.

A neuron whose methods are the library's own runs by its equation, on any backend. One whose methods are the user's
runs step by step through them, also over a whole sequence.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .._torch import tree_map
from ..cells.firing import IMMEDIATE, Model
from ..engine.run import Call, choose, forced
from ._dynamics import Dynamics, as_tuple
from ._graph import Passage
from ._hooks import wants_states
from ._misplaced import may_be_misplaced
from ._state import checked_input, compute_dtype, fits, taken
from ._time import Time, Visit, time_is, time_of

Neuron = Any
"""A `SpikingNeuron`, which is built upon this file and can therefore not be imported here."""


class FiringMethods(Dynamics):
    """Firing and resetting as methods of a layer."""

    threshold: Tensor
    graded_spikes_factor: Tensor
    spike_grad: Callable[..., Tensor]
    state_quant: Any
    inhibition: bool

    def fire(self, mem: Tensor) -> Tensor:
        """Spikes of a membrane [B, *N]: spike_grad(mem - threshold) * graded_spikes_factor.

        With a state_quant the membrane passes through it once more before it is compared with the threshold.
        """
        if callable(self.state_quant):
            mem = self.state_quant(mem)
        spk: Tensor = self.spike_grad(mem - self.threshold) * taken(self.graded_spikes_factor)
        return spk

    def _spikes(self, mem: Tensor) -> Tensor:
        """What the neuron gives out by its methods for a new membrane [B, *N]."""
        return self.fire_inhibition(mem.size(0) if mem.dim() else 0, mem) if self.inhibition else self.fire(mem)

    def fire_inhibition(self, batch_size: int, mem: Tensor) -> Tensor:
        """Spikes of a membrane [B, N, ...] where only the largest mem - threshold along dimension 1 may fire.

        The graded factor is not applied. `batch_size` is not used; it is B.
        """
        del batch_size
        if mem.dim() < 2:
            raise ValueError(
                f"inhibition compares neurons along dimension 1 and got a membrane of shape {tuple(mem.shape)}; "
                "pass an input of shape [B, N, ...], or use inhibition=False"
            )
        above = mem - self.threshold
        spk: Tensor = self.spike_grad(above)
        if not mem.size(1):
            return spk
        winner = torch.zeros_like(spk).scatter_(1, above.argmax(dim=1, keepdim=True), 1.0)
        return spk * winner

    def mem_reset(self, mem: Tensor) -> Tensor:
        """The reset signal R of a membrane [B, *N]: 1 where it is above threshold, without gradient."""
        # detached first: what it costs to differentiate the spikes is not spent
        fired: Tensor = self.spike_grad((mem - self.threshold).detach())
        return fired.detach()


HOOKS = (
    *("fire", "fire_inhibition", "mem_reset", "_base_state_function", "_base_sub", "_base_zero", "_base_int"),
    *("_base_state_reset_zero", "_base_state_reset_sub_function"),
)
"""The methods through which a step runs where one of them is the user's."""

ASSIGNABLE = frozenset((*HOOKS, "state_function"))
"""What may also be assigned on one neuron."""


def by_methods(neuron: Neuron) -> bool:
    """Whether `why_by_methods` has something to say, told sooner."""
    theirs = type(neuron)._overridden or neuron._assigned or neuron.state_quant or neuron.inhibition
    return bool(theirs) and isinstance(neuron.model, Model)


def why_by_methods(neuron: Neuron) -> list[str]:
    """Why the neuron must run by its own methods instead of by its equation alone; empty if it need not."""
    if not isinstance(neuron.model, Model):  # its equation fires and resets by itself
        return []
    why, kind = [], type(neuron).__name__
    if neuron.state_quant:
        why.append("state_quant is a function of the user's")
    if neuron.inhibition:
        why.append("inhibition compares neurons with each other")
    why += [f"{kind} overrides {name}" for name in type(neuron)._overridden]
    if neuron._assigned:
        why += [f"{name} was assigned to this {kind}" for name in neuron.__dict__ if name in ASSIGNABLE]
    return why


def steps_by_methods(neuron: Neuron) -> bool:
    """Whether a single step runs by the methods: also where the spike function can only be called."""
    # asked at every step, so not by way of `by_methods`
    kind = type(neuron)
    theirs = kind._overridden or neuron._assigned or neuron.state_quant or neuron.inhibition
    return isinstance(neuron.model, Model) if theirs or neuron._program.untraceable else False


def step_by_methods(neuron: Neuron, input_: Tensor, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """One step by the methods of the neuron: the spikes and the new states, which it then keeps.

    It keeps its former states where a method raises.
    """
    if forced() is not None:
        no_kernel(neuron._label(), why_by_methods(neuron) or [neuron._program.untraceable], input_)
    raw = checked_input(input_, neuron._label)
    dtype = compute_dtype(raw)
    x = raw if raw.dtype is dtype else raw.to(dtype)
    olds = _states(neuron, x, given)
    own, names = neuron.__dict__, neuron._state_names()
    before = {name: getattr(neuron, name) for name in (*names, "_before", "_reset")}
    own.update(zip(names, olds, strict=True))
    try:
        spk, *news = outs = _by_methods(neuron, x, olds, dtype)
    except BaseException:
        own.update(before)
        raise
    own.update(zip(names, news, strict=True))
    passage = own["_passage"]
    if passage is None or passage.done or not any(state.requires_grad for state in olds):
        own["_passage"] = Passage.watching(outs)
    told: tuple[Tensor, ...] = neuron._outs((spk if spk.dtype is raw.dtype else spk.to(raw.dtype), *news))
    return told


def _by_methods(neuron: Neuron, x: Tensor, olds: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The spikes and the new states. Each method finds the states so far as attributes."""
    own, model, quantise = neuron.__dict__, neuron.model, neuron.state_quant
    own["_before"] = None
    own["_reset"] = fired = neuron.mem_reset(olds[-1])
    news = as_tuple(neuron.state_function(x))
    if len(news) != len(model.charged) or not all(isinstance(new, Tensor) for new in news):
        got = ", ".join(type(new).__name__ for new in news)
        raise TypeError(f"the dynamics of {neuron._label()} returned {got}; return {', '.join(model.charged)}")
    if callable(quantise):
        news = tuple([quantise(new) for new in news])
    *rest, mem = [new if new.dtype is dtype else new.to(dtype) for new in news]
    own.update(zip(model.charged, (*rest, mem), strict=True))
    spk = neuron._spikes(mem)
    spk = spk if spk.dtype is dtype else spk.to(dtype)
    if not neuron.reset_delay:
        late = spk / taken(neuron.graded_spikes_factor) - fired
        mem = IMMEDIATE[neuron.reset_mechanism](mem, late, taken(neuron.threshold))
    return (spk, *([spk] if len(olds) > len(news) else []), *rest, mem)


def _states(neuron: Neuron, x: Tensor, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """The states before the step; in the common case after a few looks."""
    own, passage = neuron.__dict__, neuron._passage
    if not torch.compiler.is_compiling() and not (passage and passage.done) and not may_be_misplaced(neuron):
        shape, names = neuron._shape_of_states(x), neuron._state_names()
        states = tuple([own[name] if state is None else state for name, state in zip(names, given, strict=True)])
        if x.is_cpu and False not in [fits(state, shape, x.dtype) for state in states]:
            return states
    made: tuple[Tensor, ...] = neuron._states(neuron._like_a_state(x), x.dtype, given)
    return made


def no_kernel(label: str, why: list[str], x: Tensor) -> list[str]:
    """What `choose` says of each faster backend where methods of the user's run.

    Raises:
        RuntimeError: if one of these is asked for.
    """
    program: Any = SimpleNamespace(untraceable="; ".join(why))
    return choose(Call(program, x, None, (x,), {}, layer=label))[1]


def unrolled_by_methods(neuron: Neuron, input_: Tensor, given: tuple[Tensor | None, ...], time: Time) -> Any:
    """All steps by the methods; what the layer returns, time folded into dimension 0."""
    refusals = no_kernel(neuron._label(), why_by_methods(neuron), input_)
    return step_by_step(neuron, lambda x: neuron._run(x, given), time, input_, given, refusals)


def forward_over_time(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a user's own forward, which knows one step, also serve a whole sequence while a network is unrolled."""

    @wraps(forward)
    def over_time(self: Neuron, input_: Tensor, *args: Any, **kwargs: Any) -> Any:
        time = time_of(self)
        if time is None:
            return forward(self, input_, *args, **kwargs)
        with time.aside():
            given = (*args, *(value for value in kwargs.values() if isinstance(value, Tensor)))
            why = [f"{type(self).__name__} overrides forward"]
            return step_by_step(self, lambda x: forward(self, x, *args, **kwargs), time, input_, given, why)

    over_time.over_time = True  # type: ignore[attr-defined]
    return over_time


def step_by_step(
    neuron: Neuron, step: Callable[[Tensor], Any], time: Time, input_: Tensor, given: Sequence[Any], why: list[str]
) -> Any:
    """One step after the other of a sequence; what they return is folded, time into dimension 0."""
    time.admit(neuron, given)
    x = time.unfold(input_, neuron._label())
    static = len(x) == 1 != time.steps
    inputs = [x[0]] * time.steps if static else list(x.unbind(0))
    if not inputs:  # one step shows the form of the results; whoever unrolls puts the state back
        inputs = [x.new_zeros(x.shape[1:])]
    listened, outs, states = wants_states(neuron), [], []
    with time_is(None):
        for x_t in inputs:
            outs.append(step(x_t))
            states.append(tuple(getattr(neuron, name) for name in neuron._state_names()) if listened else ())
    stacked = tree_map(lambda *each: torch.stack(each)[: time.steps], *outs)
    spk = stacked[0] if isinstance(stacked, tuple) else stacked
    heard = tuple(map(torch.stack, zip(*states, strict=True))) if listened else ()
    time.note(neuron, Visit("loop", why, static, spk, heard))
    return tree_map(time.fold, stacked)
