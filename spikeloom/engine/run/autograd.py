"""The differentiable scan over the fused Numba and Triton kernels, in two forms with one backward.

In eager mode it is an `autograd.Function`. While torch compiles or exports, it is the operator ``spikeloom::scan``, so
that compilers see one opaque, differentiable node. An eager call of the operator would take five times as
long, and would write a zero gradient for every sequence of states that is not differentiated.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ...ops import Surrogate
from ..cpu import launch
from ..gpu import launch as gpu_launch
from ..graph import (
    Constants,
    Cotangents,
    InputGrad,
    Param,
    Saved,
    State,
    Target,
    Variant,
    dtype_name,
    pullback,
    reads_input,
)
from ..saved_tensors import batched, saved_by, saved_tensors_of


def scan(
    key: str,
    variant: Variant,
    layer: str,
    steps: int,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    surrogate: Surrogate,
) -> launch.Outputs:
    """Run a program over time.

    Args:
        key: the key of the program.
        variant: the variant of the kernel.
        layer: the name of the neuron in messages.
        steps: T.
        x: input, [T, *S], or [1, *S] if it is the same at every step. Triton also accepts half precision, with states
            in float32; the spikes have the dtype of x.
        states: the states before the first step, [*S].
        params: the hoisted values of the program.
        surrogate: the spike function of the program.
    """
    n = len(states)
    if torch.compiler.is_compiling():
        spk, *rest = _operator(key, layer, steps, x, list(states), list(params), *_encoded(variant))
    elif variant.grad:
        constants, learned = (params, ()) if type(params) is Constants else ((), params)
        spk, *rest = _Scan.apply((key, variant, layer, steps, n, surrogate, constants), x, *states, *learned)
    else:
        outs: launch.Outputs = _backend(variant).forward(key, variant, steps, x, states, params)
        return outs
    return spk, rest[:n], launch.all_traces(variant.states, spk, rest[n:])


def _backend(variant: Variant) -> ModuleType:
    """The module that runs the variant, forward and backward."""
    return launch if variant.target == Target.NUMBA else gpu_launch


def _save(
    ctx: Any,
    call: tuple[str, Variant, int, tuple[Tensor, ...]],
    x: Tensor,
    states: Sequence[Tensor],
    outs: launch.Outputs,
    params: Sequence[Tensor],
) -> None:
    """Save what the backward reads: never the final states, which the caller may modify.

    The last item of `call` holds the hoisted values if they are constants. These are not saved for backward.
    """
    (key, variant, _, _), (spk, _, traces) = call, outs
    ctx.call, ctx.states = call, len(states)
    rebuilds = not {State.SPANS, State.RECOMPUTED}.isdisjoint(variant.states)
    ctx.reads_input = bool(variant.grad) and (reads_input(key) or rebuilds)
    ctx.own = [trace is not None and trace is not spk for trace in traces]  # which is an output already
    ctx.saved = [trace is not None for trace in traces]
    saved = [trace for trace in traces if trace is not None]
    ctx.save_for_backward(*states, *saved, *params, *([x] if ctx.reads_input else []))
    ctx.set_materialize_grads(False)


def _saved(ctx: Any, tensors: Sequence[Tensor]) -> Saved:
    """Return what `_save` saved."""
    left = iter(tensors)
    states = [next(left) for _ in range(ctx.states)]
    traces = [next(left) if saved else None for saved in ctx.saved]
    rest = list(left)
    key, variant, steps, constants = ctx.call
    x = rest.pop() if ctx.reads_input else None
    return Saved(key, variant, steps, x, states, traces, constants or rest)


def _incoming(ctx: Any, grads: Sequence[Tensor | None]) -> Cotangents:
    """The gradients of the outputs, grouped by output."""
    n = ctx.states
    own = iter(grads[1 + n :])
    return Cotangents(grads[0], list(grads[1 : 1 + n]), [next(own) if mine else None for mine in ctx.own])


# -- in eager mode ----------------------------------------------------------------------------------------------------


ScanCall = tuple[str, Variant, str, int, int, Surrogate, tuple[Tensor, ...]]
"""The arguments of `scan` without gradients, the number of states, and the hoisted values if they are constants. They
are one argument, since `Function.apply` inspects each."""


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: ScanCall, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        key, variant, ctx.layer, steps, count, ctx.surrogate, constants = call
        states, params = rest[:count], rest[count:]
        outs = _backend(variant).forward(key, variant, steps, x, states, constants or params)
        _save(ctx, (key, variant, steps, constants), x, states, outs, params)
        return outs[0], *outs[1], *launch.by_themselves(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, incoming = _saved(ctx, saved_tensors_of(ctx)), _incoming(ctx, grads)
        if torch.is_grad_enabled() or batched(grads):
            g = pullback.backward(ctx.surrogate, saved, incoming)
        else:
            g = _backend(saved.variant).backward(saved, incoming)
        return (None, g.x, *g.states, *(() if ctx.call[-1] else g.params))


# -- while torch compiles ---------------------------------------------------------------------------------------------


def _encoded(variant: Variant) -> tuple[list[int], list[int], int, int]:
    """The fields of a variant, without the dtype, as the arguments of an operator."""
    params, states = [param.value for param in variant.params], [state.value for state in variant.states]
    return params, states, variant.grad.value, variant.target.value


def _decoded(dtype: torch.dtype, kinds: Sequence[int], saved: Sequence[int], grad: int, target: int) -> Variant:
    params, states = tuple(Param(kind) for kind in kinds), tuple(State(state) for state in saved)
    return Variant.of(dtype_name(dtype), params, states, InputGrad(grad), Target(target))


@torch.library.custom_op("spikeloom::scan", mutates_args=())
def _operator(
    key: str,
    layer: str,
    steps: int,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    kinds: Sequence[int],
    saved: Sequence[int],
    grad: int,
    target: int,
) -> list[Tensor]:
    variant = _decoded(x.dtype, kinds, saved, grad, target)
    outs = _backend(variant).forward(key, variant, steps, x.contiguous(), states, params)  # as the fake kernel declares
    return [outs[0], *outs[1], *launch.by_themselves(outs)]


@_operator.register_fake
def _(key, layer, steps, x, states, params, kinds, saved, grad, target):  # type: ignore[no-untyped-def]
    spk = x.new_empty((steps, *x.shape[1:]))
    final_states = [torch.empty_like(s, memory_format=torch.contiguous_format) for s in states]
    return [spk, *final_states, *(states[0].new_empty(spk.shape) for state in saved if state == State.SAVED)]


@torch.library.custom_op("spikeloom::scan_backward", mutates_args=())
def _backward_operator(
    key: str,
    steps: int,
    x: Tensor | None,
    states: Sequence[Tensor],
    traces: Sequence[Tensor | None],
    params: Sequence[Tensor],
    grad_spk: Tensor | None,
    grad_finals: Sequence[Tensor | None],
    grad_traces: Sequence[Tensor | None],
    dtype: torch.dtype,
    kinds: Sequence[int],
    saved: Sequence[int],
    grad: int,
    target: int,
) -> list[Tensor]:
    variant = _decoded(dtype, kinds, saved, grad, target)
    read, incoming = Saved(key, variant, steps, x, states, traces, params), (grad_spk, grad_finals, grad_traces)
    g = _backend(variant).backward(read, Cotangents(*incoming))
    return [t for t in (g.x, *g.states, *g.params) if t is not None]


@_backward_operator.register_fake
def _(key, steps, x, states, traces, params, grad_spk, grad_finals, grad_traces, dtype, kinds, saved, grad, target):  # type: ignore[no-untyped-def]
    shape = states[0].shape
    length = {InputGrad.EACH: [steps], InputGrad.SUM: [1], InputGrad.UNWANTED: []}[InputGrad(grad)]
    dx = [states[0].new_empty((n, *shape), dtype=dtype) for n in length]
    wanted = [p for p, kind in zip(params, kinds, strict=True) if Param(kind).learned]
    return [*dx, *(s.new_empty(shape) for s in states), *(p.new_empty(p.shape) for p in wanted)]


def _setup_operator(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    key, ctx.layer, steps, x, states, params, *encoded = inputs
    variant, n = _decoded(x.dtype, *encoded), len(states)
    ctx.dtype, traces = x.dtype, launch.all_traces(variant.states, output[0], output[1 + n :])
    _save(ctx, (key, variant, steps, ()), x, states, (output[0], output[1 : 1 + n], traces), params)


def _backward_of_operator(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    key, variant, steps, *tensors = _saved(ctx, saved_by(ctx))
    incoming = _incoming(ctx, grads)
    out = _backward_operator(key, steps, *tensors, *incoming, ctx.dtype, *_encoded(variant))
    dx = out.pop(0) if variant.grad != InputGrad.UNWANTED else None
    states = [out.pop(0) for _ in range(ctx.states)]
    params = [out.pop(0) if kind.learned else None for kind in variant.params]
    return None, None, None, dx, states, params, None, None, None, None


_operator.register_autograd(_backward_of_operator, setup_context=_setup_operator)
