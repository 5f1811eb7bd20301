"""What is to be run, and which kernel that asks for: who wants gradients, and what has to be kept for them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import tuning
from ..cpu import recurrent
from ..feedback import Feedback, MemFeedback
from ..graph import (
    HALVES,
    Constants,
    Program,
    Variant,
    compiles_quickly,
    dtype_name,
    read_states,
    reads_input,
    runs_quickly,
)
from ..jit import room_for


@dataclass  # not frozen: made at every step, and freezing costs as much as all else about it
class Call:
    """What is to be run.

    Args:
        program: the cell.
        x: input, [T, *S], or [1, *S] if it is the same at every step; [*S] of a single step. In half precision it
            stands beside states in float32, and the spikes may be of either dtype.
        steps: T; None for a single step, whose results have no time dimension.
        states: before the first step, each [*S].
        params: the cell's parameters by name, each broadcastable to [*S]; on Triton also [T, *S].
        traced: whether the states of every step are wanted, not only the last.
        layer: how messages name the neuron.
        feedback: what the spikes of the step before, which are then the first state, add to the input.
        mem_feedback: what the membrane of the step before, the last state, adds to the inputs. x then holds the inputs
            one after the other along the axis of its map.
        numbers: gives the parameters as numbers, or None where one is learned, has dimensions, or is not on the CPU.
    """

    program: Program
    x: Tensor
    steps: int | None
    states: tuple[Tensor, ...]
    params: Mapping[str, Tensor]
    traced: bool = True
    layer: str = "the neuron"
    feedback: Feedback | None = None
    mem_feedback: MemFeedback | None = None
    numbers: Callable[[], tuple[float, ...] | None] = lambda: None

    def hoisted(self) -> tuple[Tensor, ...]:
        """What the kernels take as parameters, see `Program.hoist`."""
        like = self.states[0]
        numbers = self.numbers() if like.is_cpu and not torch.compiler.is_compiling() else None
        return self.program.hoist(self.params, like) if numbers is None else self.program.constants(like.dtype, numbers)


def variant_of(call: Call, params: tuple[Tensor, ...], machine: str = "numba") -> Variant:
    """Which kernel: what has to be written and differentiated follows from who asks for gradients."""
    weights = () if call.mem_feedback is None else (call.mem_feedback.weight,)
    dtype, learning = dtype_name(call.x.dtype), _learning((call.x, *call.states, *params, *weights))
    kinds = _kinds(params, learning, call.states[0].dim())
    grad = _input_gradient(call) if learning else ""
    return Variant(dtype, kinds, _kept_states(call, kinds, grad, machine), grad, machine)


def recurrent_plan(call: Call, layer: nn.Linear, params: tuple[Tensor, ...], machine: str) -> recurrent.Plan:
    """The same for a neuron fed back through a layer, whose first state, the spikes, is none of the program's."""
    key, dtype = call.program.key, dtype_name(call.states[0].dtype)
    learning = _learning((call.x, *call.states, *params, *layer.parameters()))
    kinds, grad, kept = _kinds(params, learning), "back" if learning else "", "0" * (len(call.states) - 1)
    if call.traced:
        kept = "1" * len(kept)
    elif learning:
        kept = read_states(key, kinds, grad).replace("s", "1")
    kept += "1" if learning and reads_input(key) else "0"
    assert call.steps is not None
    variant, learns = Variant(dtype, kinds, kept, grad, machine), layer.weight.requires_grad
    return recurrent.Plan(key, variant, call.layer, call.steps, _input_gradient(call), learns)


def step_letters(x: Tensor, states: Sequence[Tensor], params: tuple[Tensor, ...]) -> tuple[str, str]:
    """`Variant.params` and `Variant.grad` of a single step."""
    grad = ""
    if torch.is_grad_enabled():
        if x.requires_grad:
            grad = "each"
        elif True in [t.requires_grad for t in (*states, *params)]:
            grad = "none"
    return _kinds(params, grad != ""), grad


def _learning(tensors: Iterable[Tensor]) -> bool:
    return torch.is_grad_enabled() and True in [t.requires_grad for t in tensors]


def _kinds(params: tuple[Tensor, ...], learning: bool, dims: int = 0) -> str:
    """The letters of `Variant.params`, where a step has so many dimensions, if one is to be told from a sequence."""
    if type(params) is Constants:
        return params.kinds
    return "".join(
        [
            ("uU" if p.numel() == 1 else "tT" if 0 < dims < p.dim() else "vV")[learning and p.requires_grad]
            for p in params
        ]
    )


def _input_gradient(call: Call) -> str:
    """Whether the gradient of the input is wanted at each step, as a sum over them, or not."""
    each = call.steps is None or len(call.x) == call.steps
    return "none" if not call.x.requires_grad else "each" if each else "sum"


def _kept_states(call: Call, kinds: str, grad: str, machine: str) -> str:
    """Which states are kept (see `Variant.traced`): those asked for, and those that the backward, if any, reads."""
    count = len(call.states)
    if call.steps is None or not (call.traced or grad):  # of a single step the last state is all of it
        return "0" * count
    asked = call.traced or torch.compiler.is_compiling()  # a graph is for all sizes, and so keeps every state
    kept = call.program.every_state if asked else read_states(call.program.key, kinds, grad)
    if call.x.dtype in HALVES:  # of a state that is the spikes the kernel writes those in the dtype of the input
        kept = kept.replace("s", "1")
    if asked:
        return kept
    if machine == "numba":
        return "r" * count if _made_again(call, kept) else kept
    return "c" * count if "1" in kept and _rebuilt(call.program) else kept


def _rebuilt(program: Program) -> bool:
    """Whether Triton's backward rebuilds states from the input: not where steps can be joined, see `affine`."""
    return not program.cell.any_order and compiles_quickly(program.key)


def _made_again(call: Call, kept: str) -> bool:
    """Whether the backward makes the states again: those of a static input, where that is faster than a large trace."""
    if call.mem_feedback is not None or call.steps is None or len(call.x) == call.steps:
        return False
    states, each = len(kept), call.x.element_size()
    saved = (states - kept.count("0")) * call.steps * call.x.nbytes
    roomy = room_for(call.steps, states, each) >= tuning.limits.recompute_room * states
    return saved >= tuning.limits.pool_from and roomy and runs_quickly(call.program.key)
