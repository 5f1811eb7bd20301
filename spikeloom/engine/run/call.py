"""The request to run a neuron, and the kernel variant that it needs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import tuning
from ..cpu import elements_recomputed
from ..feedback import Feedback, MemFeedback, Recurrence
from ..graph import (
    HALVES,
    Constants,
    InputGrad,
    Param,
    Program,
    State,
    Target,
    Variant,
    compiles_quickly,
    dtype_name,
    read_states,
    reads_input,
    runs_quickly,
)


@dataclass  # not frozen: created at every step, and freezing would double its cost
class Call:
    """A request to run a neuron.

    Args:
        program: the program of the cell.
        x: input, [T, *S], or [1, *S] if it is the same at every step; [*S] for a single step. If it is in half
            precision, the states are float32, and the spikes may have either dtype.
        steps: T; None for a single step, whose results have no time dimension.
        states: the states before the first step, each [*S].
        params: the cell's parameters by name, each broadcastable to [*S]; on Triton also [T, *S].
        traced: whether the states of every step are requested, not only the final ones.
        layer: the name of the neuron in messages.
        feedback: maps the spikes of the previous step, then the first state, to a term of the input.
        mem_feedback: maps the membrane of the previous step, the last state, to terms of the inputs. x then holds the
            inputs concatenated along the axis of its map.
        untraceable: why no kernel can run it, if the layer knows the reason.
        numbers: the parameters as numbers, if all are on the CPU and none requires a gradient. Then `params` are not
            copied yet; see `copied`.
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
    untraceable: str = ""
    numbers: tuple[float, ...] | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that a kernel reads."""
        return (self.x, *self.states, *self.params.values())

    def weights(self) -> list[Tensor]:
        """The weight, and the bias if any, of the feedback of spikes or membrane."""
        if self.mem_feedback is not None:
            return [self.mem_feedback.weight]
        return [] if self.feedback is None else [*self.feedback.layer.parameters()]

    def hoisted(self) -> tuple[Tensor, ...]:
        """The parameters of the kernels, see `Program.hoist`."""
        like, numbers = self.states[0], self.numbers
        return self.program.hoist(self.params, like) if numbers is None else self.program.constants(like.dtype, numbers)

    def copied(self) -> Mapping[str, Tensor]:
        """The parameters, copied so that autograd may save them: they are not modified in place."""
        return self.params if self.numbers is None else {name: p.clone() for name, p in self.params.items()}


def variant_of(call: Call, params: tuple[Tensor, ...], target: Target = Target.NUMBA) -> Variant:
    """The kernel variant: which tensors require gradients decides what is saved and differentiated."""
    dtype, learning = dtype_name(call.x.dtype), _learning((call.x, *call.states, *params))
    kinds = _kinds(params, learning, call.states[0].dim())
    grad = _input_gradient(call) if learning else InputGrad.FORWARD
    return Variant.of(dtype, kinds, _saved_states(call, kinds, grad, target), grad, target)


def recurrence_of(call: Call, params: tuple[Tensor, ...], target: Target) -> Recurrence:
    """The variant of a call with feedback of spikes or the membrane through weights.

    With feedback of spikes, the first state is the previous spikes, which the program does not have.
    """
    key, dtype = call.program.key, dtype_name(call.states[0].dtype)
    map = None if call.mem_feedback is None else call.mem_feedback.map
    weight, *bias = call.weights()
    learning = _learning((call.x, *call.states, *params, weight, *bias))
    kinds, requested = _kinds(params, learning), call.traced and call.steps is not None
    if map is None:
        grad = InputGrad.FED_BACK if learning else InputGrad.FORWARD
        saved = (State.SAVED if requested else State.DROPPED,) * (len(call.states) - 1)
        if learning and not requested:
            saved = _apart_from_spikes(read_states(key, kinds, grad))
        saved += (State.SAVED if learning and reads_input(key) else State.DROPPED,)
    else:
        grad = InputGrad.EACH if learning else InputGrad.FORWARD
        saved = (State.SAVED if learning or requested else State.DROPPED,) * (len(call.states) + 1)
    variant, steps = Variant.of(dtype, kinds, saved, grad, target), 1 if call.steps is None else call.steps
    return Recurrence(key, variant, call.layer, steps, _input_gradient(call), weight.requires_grad, map)


def kinds_of_step(
    x: Tensor, states: Sequence[Tensor], params: tuple[Tensor, ...]
) -> tuple[tuple[Param, ...], InputGrad]:
    """`Variant.params` and `Variant.grad` of a single step."""
    grad = InputGrad.FORWARD
    if torch.is_grad_enabled():
        if x.requires_grad:
            grad = InputGrad.EACH
        elif True in [t.requires_grad for t in (*states, *params)]:
            grad = InputGrad.UNWANTED
    return _kinds(params, grad is not InputGrad.FORWARD), grad


def _learning(tensors: Iterable[Tensor]) -> bool:
    return torch.is_grad_enabled() and True in [t.requires_grad for t in tensors]


FIXED = (Param.NUMBER, Param.ELEMENT, Param.STEP)
LEARNED = (Param.LEARNED_NUMBER, Param.LEARNED_ELEMENT, Param.LEARNED_STEP)


def _kinds(params: tuple[Tensor, ...], learning: bool, dims: int = 0) -> tuple[Param, ...]:
    """`Variant.params`. The number of dimensions of a step distinguishes a parameter from a sequence."""
    if type(params) is Constants:
        return params.kinds
    return tuple(
        [
            (LEARNED if learning and p.requires_grad else FIXED)[
                0 if p.numel() == 1 else 2 if 0 < dims < p.dim() else 1
            ]
            for p in params
        ]
    )


def _input_gradient(call: Call) -> InputGrad:
    """Whether the gradient of the input is computed at each step, as the sum over all steps, or not at all."""
    if not call.x.requires_grad:
        return InputGrad.UNWANTED
    return InputGrad.EACH if call.steps is None or len(call.x) == call.steps else InputGrad.SUM


def _apart_from_spikes(states: tuple[State, ...]) -> tuple[State, ...]:
    """Save a separate sequence for a state that equals the spikes."""
    return tuple([State.SAVED if state == State.SPIKES else state for state in states])


def _saved_states(call: Call, kinds: tuple[Param, ...], grad: InputGrad, target: Target) -> tuple[State, ...]:
    """`Variant.states`: the states that are requested, and those that a backward reads."""
    count = len(call.states)
    if call.steps is None or not (call.traced or grad):  # for a single step, the last state is the only one
        return (State.DROPPED,) * count
    requested = call.traced or torch.compiler.is_compiling()  # a compiled graph runs all sizes, so it saves every state
    saved_states = call.program.every_state if requested else read_states(call.program.key, kinds, grad)
    if call.x.dtype in HALVES:  # a state that equals the spikes has their dtype
        saved_states = _apart_from_spikes(saved_states)
    if requested:
        return saved_states
    if target == Target.NUMBA:
        return (State.RECOMPUTED,) * count if _recomputed(call, saved_states) else saved_states
    return (State.SPANS,) * count if State.SAVED in saved_states and _rebuilt(call.program) else saved_states


def _rebuilt(program: Program) -> bool:
    """Whether Triton's backward recomputes states from the input. Not for affine recurrences, see `gpu.affine`."""
    return not program.cell.any_order and compiles_quickly(program.key)


def _recomputed(call: Call, saved_states: tuple[State, ...]) -> bool:
    """Whether the backward recomputes the states: for a static input, if that is faster than reading a large trace."""
    if call.steps is None or len(call.x) == call.steps:
        return False
    states, each = len(saved_states), call.x.element_size()
    saved = (states - saved_states.count(State.DROPPED)) * call.steps * call.x.nbytes
    enough = elements_recomputed(call.steps, states, each) >= max(64, tuning.limits.recompute_elements * states)
    return saved >= tuning.limits.pool_from and enough and runs_quickly(call.program.key)
