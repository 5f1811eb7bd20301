"""Which kernel of a program: the dtype, what is saved, and which gradients are wanted."""

from dataclasses import dataclass
from functools import cache

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


@dataclass(frozen=True)
class Variant:
    """One way to run a program, beyond its equation.

    Args:
        dtype: of the input and the spikes: "float32", "float64", or, on Triton, "float16" and "bfloat16", beside which
            states are float32.
        params: a letter per hoisted value: u one number, v one per element, t one per element and step, on Triton;
            capital if its gradient is wanted.
        traced: a letter per state: 1 if what it is at every step is kept, s if that is the spikes, 0 if it is not;
            c if it is kept at one step in `gpu.source.SPAN`, and the others are rebuilt from the input, on Triton;
            n if there is one step alone, which leaves the old state as it is and writes the new one to the trace.
            Then nothing is carried to its gradient, nor added to those of the parameters. The forward of such a step
            has o, w or b if it also copies the old state, the new one or both for the backward (see `own_words`);
            r for all of them if none is kept, and the backward makes them again from a static input, on Numba.
        grad: the gradient of the input: "each" step, "sum" over time (a static input), "none"; "" without backward;
            "back": that of a recurrent neuron, see `emit_recurrent`.
        machine: whose kernel: "numba", "triton" on a GPU, or "interpreter", Triton's, on the CPU.
    """

    dtype: str
    params: str
    traced: str
    grad: str
    machine: str = "numba"

    @property  # not kept: torch.compile traces this, and cannot enter the lock of a cached property
    def code(self) -> str:
        """The variant as one word, for keys."""
        machine = "" if self.machine == "numba" else f"-{self.machine}"
        return f"{self.dtype}-{self.params}-{self.traced}-{self.grad or 'forward'}{machine}"

    @property
    def computed(self) -> str:
        """The dtype of states, parameters and arithmetic."""
        return self.dtype if self.dtype == "float64" else "float32"

    @cached_property
    def forward(self) -> "Variant":
        """The same without what matters to the backward alone, so that training and inference share a kernel."""
        return Variant(self.dtype, self.params.lower(), self.traced.replace("r", "0"), "", self.machine)

    @property
    def alone(self) -> bool:
        """Whether it is one step alone."""
        return not {"n", "o", "w", "b"}.isdisjoint(self.traced)

    @property
    def again(self) -> bool:
        """Whether the backward makes the states again."""
        return "r" in self.traced and self.grad != ""

    @staticmethod
    @cache
    def parse(code: str) -> "Variant":
        """The variant of that word."""
        dtype, params, traced, grad, *machine = code.split("-")
        return Variant(dtype, params, traced, "" if grad == "forward" else grad, *machine)


def traced_in(code: str) -> str:
    """`Variant.traced` of a code; torch.compile can trace this, and not `parse`, which keeps what it has found."""
    return code.split("-")[2]


@dataclass(frozen=True)
class Gradients:
    """Gradients of the input (None if not wanted), the initial states and the parameters (None if not wanted)."""

    x: Tensor | None
    states: list[Tensor]
    params: list[Tensor | None]
