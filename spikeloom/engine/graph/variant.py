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
"""The dtypes in which kernels compute."""

HALVES = (torch.float16, torch.bfloat16)
"""Further dtypes that Triton kernels read and write."""

DTYPES = {dtype: str(dtype).removeprefix("torch.") for dtype in (*FLOATS, *HALVES)}


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype in kernels."""
    return DTYPES[dtype]


class Param(IntEnum):
    """The shape of a hoisted value in a kernel, and whether its gradient is computed.

    It is one number, one per element, or (on Triton) one per element and step.

    Attributes:
        learned: whether its gradient is computed.
        fixed: the kind of the same shape without a gradient, as used by a forward.
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
    """The values of a state that a kernel saves, in addition to the last."""

    DROPPED = 0
    """Nothing."""

    SAVED = 1
    """The value after every step."""

    SPIKES = 2
    """The value after every step, for a state that equals the spikes."""

    SPANS = 3
    """One value per span of steps; the backward recomputes the others from the input. Triton only."""

    RECOMPUTED = 4
    """Nothing: the backward recomputes all values from a static input. Numba only."""

    OLD = 5
    """A copy of the value before a single step."""

    NEW = 6
    """A copy of the value after a single step."""

    BOTH = 7
    """Copies of the values before and after a single step."""


class InputGrad(IntEnum):
    """Which gradient of the input a kernel computes; a forward computes none."""

    FORWARD = 0
    UNWANTED = 1
    EACH = 2
    """The gradient at each step."""

    SUM = 3
    """The sum over all steps, for a static input."""

    FED_BACK = 4
    """The gradient of the current of a recurrent layer, input plus feedback; see `cpu/recurrent.py`."""


class Target(IntEnum):
    """The target of a kernel: Numba, Triton on a GPU, or Triton's interpreter on the CPU."""

    NUMBA = 0
    TRITON = 1
    INTERPRETER = 2


@dataclass(frozen=True)
class Variant:
    """One way to run a program, beyond its equation. `Variant.of` gives one object for equal arguments.

    Args:
        dtype: dtype of the input and the spikes: "float32", "float64", or on Triton "float16" and "bfloat16", for which
            states are float32.
        params: the kind of each hoisted value.
        states: the saved values of each state. A recurrent neuron has one more entry: whether the current is saved.
        grad: the gradient of the input.
        target: the compiler of the kernel.
        single: whether the kernel runs a single step, which writes the new states to other memory than the old ones.
            Its gradients are neither carried from step to step nor summed.
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
        """Return the variant of these arguments."""
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
        """The variant without the fields that only the backward uses, so that training and inference share a kernel."""
        states = tuple(State.DROPPED if state == State.RECOMPUTED else state for state in self.states)
        params = tuple(param.fixed for param in self.params)
        return Variant.of(self.dtype, params, states, InputGrad.FORWARD, self.target, self.single)

    @property
    def recomputes(self) -> bool:
        """Whether the backward recomputes the states."""
        return State.RECOMPUTED in self.states and self.grad != InputGrad.FORWARD


_variant = cache(Variant)


class Saved(NamedTuple):
    """The values that a forward saves for its backward.

    Args:
        key: the key of the program.
        variant: the variant that was run.
        steps: T.
        x: the input, if the backward reads it.
        states: the states before the first step, [*S].
        traces: the states after every step, [T, *S]; None for one that the backward does not read.
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
    """The gradients of the input, the initial states and the parameters; None if not requested.

    Also the gradient of the input summed over time, if the kernel computes it.
    """

    x: Tensor | None
    states: list[Tensor]
    params: list[Tensor | None]
    summed: Tensor | None = None
