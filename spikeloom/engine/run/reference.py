"""The reference: the plain PyTorch loop over a cell's equation. Every kernel must agree with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..._torch import exporting
from ..feedback import Feedback
from .exported import recorded_scan

Step = Callable[..., tuple[Tensor, ...]]
"""One time step: (x [*S], *states [*S]) -> (spk [*S], *states)."""


@dataclass  # not frozen: created at every step
class Trajectory:
    """The results of a scan.

    Args:
        spk: spikes, [T, *S].
        traces: each state after every step, [T, *S]; empty if not requested.
        final_states: each state after the last step, [*S]; shares no memory with the traces.
    """

    spk: Tensor
    traces: tuple[Tensor, ...]
    final_states: tuple[Tensor, ...]


def fed_back(step: Step, feedback: Feedback) -> Step:
    """The step of a neuron whose spikes are fed back into its input; its first state is the previous spikes."""

    def step_with_feedback(x: Tensor, spk: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        spk, *new = step(x + feedback(spk), *states)
        return (spk, spk, *new)

    return step_with_feedback


def driven_back(step: Step, product: Callable[[Tensor], Tensor], split: Callable[[Tensor], Any]) -> Step:
    """The step of a neuron whose membrane, its last state, is fed back into its inputs through a product."""

    def step_with_product(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        return step(split(x + product(states[-1])), *states)

    return step_with_product


def loop(step: Step, x: Tensor, steps: int, states: tuple[Tensor, ...], traced: bool = True) -> Trajectory:
    """Run `step` over time.

    Args:
        step: the cell with its parameters bound.
        x: input, [T, *S]; or [1, *S], the same at each of the T steps.
        steps: T.
        states: each state before the first step, [*S].
        traced: whether the states after every step are requested.
    """
    if exporting():
        return _recorded(step, x, steps, states, traced)
    inputs = x.unbind(0) if len(x) == steps else [x[0]] * steps
    spikes: list[Tensor] = []
    seen: list[tuple[Tensor, ...]] = []
    for x_t in inputs:
        spk, *new = step(x_t, *states)
        states = tuple(new)
        spikes.append(spk)
        seen.append(states if traced else ())
    if not spikes:
        empty = tuple(s.new_empty((0, *s.shape)) for s in states)
        return Trajectory(empty[-1].to(x.dtype), empty if traced else (), states)
    return Trajectory(torch.stack(spikes), tuple(torch.stack(trace) for trace in zip(*seen, strict=True)), states)


def _recorded(step: Step, x: Tensor, steps: Any, states: tuple[Tensor, ...], traced: bool) -> Trajectory:
    """Run the loop in torch.export."""
    static = x[0] if is_static(x, steps) else None

    def body(carried: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        spk, *news = step(static if static is not None else inputs[0], *carried)
        return news, [spk, *news] if traced else [spk]

    final_states, (spk, *traces) = recorded_scan(body, states, [x] if static is None else [], steps)
    return Trajectory(spk, tuple(traces), tuple(final_states))


def is_static(x: Tensor, steps: Any) -> bool:
    """Whether a sequence [T, ...] or [1, ...] is the same at every of T steps, which may be a symbol."""
    return isinstance(x.shape[0], int) and x.shape[0] == 1 and not (isinstance(steps, int) and steps == 1)
