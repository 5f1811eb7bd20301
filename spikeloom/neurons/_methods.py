"""What a user's subclass may override, or assign on one neuron: how it fires, how it resets, its whole forward.

A neuron whose methods are the library's own runs by its equation, on any backend. One whose methods are the user's
runs step by step through them, also over a whole sequence.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from .._torch import tree_map
from ..cells.firing import Frame, Model
from ..scan.program import Program
from ._listening import wants_states
from ._state import taken
from ._time import Time, Visit, time_is, time_of

Neuron = Any
"""A `SpikingNeuron`, which is built upon this file and can therefore not be imported here."""


class FiringMethods:
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
        fired: Tensor = self.spike_grad(mem - self.threshold)
        return fired.clone().detach()


FIRE, INHIBIT, RESET = FiringMethods.fire, FiringMethods.fire_inhibition, FiringMethods.mem_reset
OURS = {"fire": FIRE, "fire_inhibition": INHIBIT, "mem_reset": RESET}
"""The methods that say what the equation says."""


def by_methods(neuron: Neuron) -> bool:
    """Whether `why_by_methods` has something to say, told sooner."""
    kind, own = type(neuron), neuron.__dict__
    ours = kind.fire is FIRE and kind.mem_reset is RESET and kind.fire_inhibition is INHIBIT
    theirs = "fire" in own or "mem_reset" in own or "fire_inhibition" in own
    return (theirs or not ours or neuron.state_quant or neuron.inhibition) and isinstance(neuron.model, Model)


def why_by_methods(neuron: Neuron) -> list[str]:
    """Why the neuron must fire by its own methods instead of by its equation alone; empty if it need not."""
    if not isinstance(neuron.model, Model):  # its equation fires and resets by itself
        return []
    why = []
    kind, own = type(neuron), neuron.__dict__
    if neuron.state_quant:
        why.append("state_quant is a function of the user's")
    if neuron.inhibition:
        why.append("inhibition compares neurons with each other")
    for name, ours in OURS.items():
        if getattr(kind, name) is not ours:
            why.append(f"{kind.__name__} overrides {name}")
        elif name in own:
            why.append(f"{name} was assigned to this {kind.__name__}")
    return why


class ByMethods(Program):
    """A program that fires by the methods of a neuron; it cannot be traced, and so runs on the loop."""

    def __init__(self, neuron: Neuron, why: list[str]):
        self.neuron, self.untraceable = neuron, "; ".join(why)
        self.cell, self.surrogate = neuron._program.cell, neuron.spike_grad
        self.derivation, self.key = None, ""

    def step(self, params: Mapping[str, Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        """One step by the methods. Their results are brought back to the dtype of the state."""
        neuron, firing = self.neuron, MethodFiring(self.neuron)
        frame = Frame(neuron.reset_mechanism, neuron.reset_delay, neuron.decay)

        def step(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
            results = neuron.model.step(firing, frame, x, states, params)
            return tuple(result.to(states[-1].dtype) for result in results)

        return step


class MethodFiring:
    """The methods of a neuron in the form that the firing frame asks for."""

    def __init__(self, neuron: Neuron):
        self.neuron = neuron

    def reset_signal(self, mem: Tensor) -> Tensor:
        fired: Tensor = self.neuron.mem_reset(mem)
        return fired

    def settle(self, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        quantise = self.neuron.state_quant
        return tuple(quantise(s) for s in states) if callable(quantise) else states

    def spikes(self, mem: Tensor) -> Tensor:
        spk: Tensor = self.neuron._spikes(mem)
        return spk


def forward_over_time(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a user's own forward, which knows one step, also serve a whole sequence while a network is unrolled."""

    @wraps(forward)
    def over_time(self: Neuron, input_: Tensor, *args: Any, **kwargs: Any) -> Any:
        time = time_of(self)
        if time is None:
            return forward(self, input_, *args, **kwargs)
        with time.aside():
            return _step_by_step(self, forward, time, input_, args, kwargs)

    return over_time


def _step_by_step(
    neuron: Neuron, forward: Callable[..., Any], time: Time, input_: Tensor, args: Any, kwargs: Any
) -> Any:
    """A user's own forward at every step of a sequence; what it returns is folded, time into dimension 0."""
    time.admit(neuron, (*args, *(value for value in kwargs.values() if isinstance(value, Tensor))))
    x = time.unfold(input_, neuron._label())
    static = len(x) == 1 != time.steps
    inputs = [x[0]] * time.steps if static else list(x.unbind(0))
    if not inputs:  # one step shows the form of the results; whoever unrolls puts the state back
        inputs = [x.new_zeros(x.shape[1:])]
    outs, states = [], []
    with time_is(None):
        for x_t in inputs:
            outs.append(forward(neuron, x_t, *args, **kwargs))
            states.append(tuple(getattr(neuron, name) for name in neuron._state_names()))
    stacked = tree_map(lambda *each: torch.stack(each)[: time.steps], *outs)
    spk = stacked[0] if isinstance(stacked, tuple) else stacked
    heard = tuple(map(torch.stack, zip(*states, strict=True))) if wants_states(neuron) else ()
    time.note(neuron, Visit("loop", [f"{type(neuron).__name__} overrides forward"], static, spk, heard))
    return tree_map(time.fold, stacked)
