"""The variant of a kernel: the dtype, what is saved, and which gradients are computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ...forks import cached_property

FLOATS = (torch.float32, torch.float64)
"""What the kernels compute in."""

HALVES = (torch.float16, torch.bfloat16)
"""What Triton's kernels read and write besides."""

DTYPES = {dtype: str(dtype).removeprefix("torch.") for dtype in (*FLOATS, *HALVES)}


def dtype_name(dtype: torch.dtype) -> str:
    """How kernels name a dtype."""
    return DTYPES[dtype]


class Param(IntEnum):
    """A hoisted value as a kernel takes it: one number, one per element, or one per element and step (on Triton); with
    a gradient or without.

    Attributes:
        learned: whether its gradient is wanted.
        fixed: the same without a gradient, which is all that a forward needs to know.
    """

    learned: bool
    fixed: "Param"

    NUMBER = 0
    ELEMENT = 1
    STEP = 2
    LEARNED_NUMBER = 3
    LEARNED_ELEMENT = 4
    LEARNED_STEP = 5


for _param in Param:
    _param.learned, _param.fixed = _param >= Param.LEARNED_NUMBER, Param(_param % Param.LEARNED_NUMBER)


class State(IntEnum):
    """Which values of a state a kernel saves, besides the last."""

    DROPPED = 0
    """Nothing."""

    SAVED = 1
    """Its value after every step."""

    SPIKES = 2
    """The same, which is the spikes."""

    SPANS = 3
    """One value in a span of steps; the backward rebuilds the others from the input, on Triton."""

    RECOMPUTED = 4
    """Nothing: the backward computes all values from a static input, on Numba."""

    OLD = 5
    """Of a single step: a copy of the value before it."""

    NEW = 6
    """Of a single step: a copy of the value after it."""

    BOTH = 7
    """Both of them."""


class InputGrad(IntEnum):
    """Which gradient of the input a kernel computes; a forward computes none."""

    FORWARD = 0
    UNWANTED = 1
    EACH = 2
    """The gradient at each step."""

    SUM = 3
    """The sum over all steps, for a static input."""

    FED_BACK = 4
    """That of the current, to which a recurrent layer adds, see `cpu/recurrent.py`."""


class Target(IntEnum):
    """The target of a kernel: Numba, Triton on a GPU, or Triton's interpreter on the CPU."""

    NUMBA = 0
    TRITON = 1
    INTERPRETER = 2


@dataclass(frozen=True)
class Variant:
    """One way to run a program, beyond its equation. `Variant.of` gives one object for equal arguments.

    Args:
        dtype: of the input and the spikes: "float32", "float64", or, on Triton, "float16" and "bfloat16", beside which
            states are float32.
        params: of the hoisted values.
        states: of the states; of a recurrent neuron one more says whether the current is saved.
        grad: of the input.
        target: whose kernel.
        single: whether there is one step alone, which leaves the old states as they are and writes the new ones
            elsewhere. Then nothing is carried to their gradients, nor added to those of the parameters.
    """

    dtype: str
    params: tuple[Param, ...]
    states: tuple[State, ...]
    grad: InputGrad
    target: Target = Target.NUMBA
    single: bool = False

    @staticmethod
    def of(
        dtype: str,
        params: tuple[Param, ...],
        states: tuple[State, ...],
        grad: InputGrad,
        target: Target = Target.NUMBA,
        single: bool = False,
    ) -> "Variant":
        """The variant of these."""
        make = Variant if torch.compiler.is_compiling() else _variant  # torch.compile warns of cached functions
        return make(dtype, params, states, grad, target, single)

    def __str__(self) -> str:
        members: list[IntEnum] = [*self.params, *self.states, self.grad, self.target]
        return " ".join([self.dtype, *(member.name for member in members), *(["SINGLE"] if self.single else [])])

    @property
    def computed(self) -> str:
        """The dtype of states, parameters and arithmetic."""
        return self.dtype if self.dtype == "float64" else "float32"

    @cached_property
    def forward(self) -> "Variant":
        """The same without the fields that only the backward uses, so that training and inference share a kernel."""
        states = tuple(State.DROPPED if state == State.RECOMPUTED else state for state in self.states)
        params = tuple(param.fixed for param in self.params)
        return Variant.of(self.dtype, params, states, InputGrad.FORWARD, self.target, self.single)

    @property
    def recomputes(self) -> bool:
        """Whether the backward computes the states."""
        return State.RECOMPUTED in self.states and self.grad != InputGrad.FORWARD


_variant = cache(Variant)


class Saved(NamedTuple):
    """The values of a forward that its backward reads.

    Args:
        key: of the program.
        variant: how it was run.
        steps: T.
        x: the input, if the backward reads it.
        states: before the first step, [*S].
        traces: after every step, [T, *S]; None where the backward does not read one.
        params: the hoisted values.
    """

    key: str
    variant: Variant
    steps: int
    x: Tensor | None
    states: Sequence[Tensor]
    traces: Sequence[Tensor | None]
    params: Sequence[Tensor]


class Cotangents(NamedTuple):
    """The gradients of the spikes, of the last states and of the states after every step; None is zero."""

    spk: Tensor | None
    final_states: Sequence[Tensor | None]
    traces: Sequence[Tensor | None]


class Gradients(NamedTuple):
    """Gradients of the input (None if not wanted), the initial states and the parameters (None if not wanted); and that
    of the input summed over time, where a kernel has it."""

    x: Tensor | None
    states: list[Tensor]
    params: list[Tensor | None]
    summed: Tensor | None = None
