"""The short way through one step in eager mode.

A step decides much: which backend and which kernel, whether the states and parameters fit the input, and what to make
of them where they do not. In the common case all of it shows in a few looks, and the kernel runs at once. Whatever is
not common, every error with it, is left to the long way, `SpikingNeuron._scan`, which decides the same from the ground
up. Each look is at what is there now; nothing is remembered from step to step, so nothing can be out of date.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..cells.firing import Model
from ..scan.program import Constants, Program
from ..scan.select import kernel_at_hand, kernel_step
from ._misplaced import may_be_misplaced, refuse_misplaced
from ._state import checked_params, fits

PLAIN = (Tensor, nn.Parameter)
"""Tensors whose numbers are in memory."""

Neuron = Any
"""A `SpikingNeuron`, which is built upon this file and can therefore not be imported here."""


def short_step(neuron: Neuron, x: Tensor, given: tuple[Tensor | None, ...]) -> tuple[Tensor, ...] | None:
    """One step of the equation on its kernel: the spikes and the new states, which the neuron then keeps.

    None where the long way must be taken; then nothing has changed.

    Args:
        x: the input as it was given, [*S].
        given: the states passed by hand.
    """
    program, own = neuron._program, neuron.__dict__
    if torch.compiler.is_compiling() or type(x) is not Tensor or x.layout is not torch.strided:
        return None
    if neuron._passage is not None or neuron._cut is not None:
        return None
    if not kernel_at_hand(program, x):
        return None
    names, dtype = neuron._state_names(), x.dtype
    shape = neuron._shape_of_states(x)
    states = [own[name] if state is None else state for name, state in zip(names, given, strict=True)]
    for state in states:
        if not fits(state, shape, dtype):
            return None
    x = neuron._drive_step(x, states)
    if x.dtype is not dtype:  # autocast
        return None
    if may_be_misplaced(neuron):  # not left to the long way: a recomputed step must save what the first one has saved
        refuse_misplaced(neuron, [own[name] for name, state in zip(names, given, strict=True) if state is None])
    through_layer = neuron._through_layer
    olds = states[1:] if through_layer else states
    hoisted = _hoisted(neuron, olds[-1])
    if type(hoisted) is not Constants and False in [type(v) in PLAIN for v in hoisted]:
        return None
    outs = kernel_step(program, type(neuron).__name__, x, olds, hoisted)
    if through_layer:
        outs = (outs[0], *outs)
    for name, state in zip(names, outs[1:], strict=True):
        own[name] = state
    own["_before"], own["_reset"] = states[-1] if isinstance(neuron.model, Model) else None, None
    told: tuple[Tensor, ...] = neuron._outs(outs)
    return told


def _hoisted(neuron: Neuron, mem: Tensor) -> tuple[Tensor, ...]:
    """The hoisted values of the program. Those of numbers that are not learned are looked up by the numbers."""
    program: Program = neuron._program
    numbers = neuron._numbers()
    if numbers is not None:
        return program.constants(mem.dtype, numbers)
    return program.hoist(checked_params(neuron._values(), mem, mem.dtype, neuron._label), mem)
