"""Which machine runs a scan: a walk down a list of backends; each accepts, or refuses in sentences."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor

from .loop import Trajectory, loop
from .program import Program


@dataclass(frozen=True)
class Call:
    """What is to be run.

    Args:
        program: the cell.
        x: input, [T, *S], or [1, *S] if it is the same at every step.
        steps: T.
        states: before the first step, each [*S].
        params: the cell's parameters by name, each broadcastable to [*S].
        traced: whether the states of every step are wanted, not only the last.
        layer: how messages name the neuron.
    """

    program: Program
    x: Tensor
    steps: int
    states: tuple[Tensor, ...]
    params: Mapping[str, Tensor]
    traced: bool = True
    layer: str = "the neuron"


@dataclass(frozen=True)
class Backend:
    """A machine: its name, why it would not run a call, and how it runs one."""

    name: str
    refusals: Callable[[Call], list[str]]
    run: Callable[[Call], Trajectory]


def _run_loop(call: Call) -> Trajectory:
    return loop(call.program.step(call.params), call.x, call.steps, call.states, call.traced)


LADDER: tuple[Backend, ...] = (Backend("loop", lambda call: [], _run_loop),)
"""Fastest first; the last always accepts."""

_forced: ContextVar[str | None] = ContextVar("spikeloom_backend", default=None)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Within this context every neuron runs on the named backend, or raises with that backend's reasons.

    Args:
        name: "loop", the plain PyTorch loop, or "numba", the fused CPU kernels.

    Raises:
        ValueError: if there is no such backend.

    The backward pass always takes the backend of its forward.

        >>> import torch, spikeloom as snn
        >>> with snn.backend("loop"):
        ...     spk, mem = snn.Leaky(beta=0.9)(torch.ones(2, 3))
    """
    known = [b.name for b in LADDER]
    if name not in known:
        raise ValueError(f"there is no backend {name!r}; choose one of {', '.join(known)}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def choose(call: Call) -> tuple[Backend, list[str]]:
    """The backend that runs the call, and why each faster one does not; a forced backend raises if it refuses."""
    forced, reasons = _forced.get(), []
    for machine in LADDER:
        if forced not in (None, machine.name):
            continue
        why = machine.refusals(call)
        if not why:
            return machine, reasons
        reasons.extend(f"{machine.name}: {reason}" for reason in why)
    raise RuntimeError(f"backend {forced!r} was asked for and cannot run {call.layer}: {'; '.join(reasons)}")
