"""The differentiable scan over the fused kernels, Numba's or Triton's, in two forms with one backward.

In eager mode it is an `autograd.Function`. While torch compiles or exports, it is the operator ``spikeloom::scan``, so
that compilers see one opaque, differentiable node. (Eager calls of the operator would cost five times as much, and
write out a zero gradient for every sequence of states that nobody differentiates.)
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...ops import Surrogate
from ..cpu import launch
from ..gpu import launch as gpu_launch
from ..graph import Variant, pullback, reads_input, traced_in
from ..saved_tensors import batched, saved_by, unpacked


def scan(
    key: str,
    code: str,
    layer: str,
    steps: int | None,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    surrogate: Surrogate,
) -> launch.Outputs:
    """Run a program over time, or, if `steps` is None, for one step, whose tensors have no time dimension.

    Args:
        key: of the program.
        code: of the variant.
        layer: how messages name the neuron.
        steps: T.
        x: input, [T, *S], or [1, *S] if it is the same at every step. Triton also takes it in half precision beside
            states in float32; the spikes are of its dtype.
        states: before the first step, [*S].
        params: the program's hoisted values.
        surrogate: its spike function.
    """
    n = len(states)
    if torch.compiler.is_compiling():
        x_seq = x.unsqueeze(0) if steps is None else x
        spk, *rest = _operator(key, code, layer, steps or len(x_seq), x_seq, list(states), list(params))
        if steps is None:
            return spk.squeeze(0), rest[:n], []
        return spk, rest[:n], launch.all_traces(traced_in(code), spk, rest[n:])
    if steps is None:  # on Triton; with Numba, a single step in eager mode is `single.step`
        spk, finals, _ = scan(key, code, layer, 1, x.unsqueeze(0), states, params, surrogate)
        return spk.squeeze(0), finals, []
    if not Variant.parse(code).grad:
        outs: launch.Outputs = _machine(code).forward(key, code, steps, x, states, params)
        return outs
    spk, *rest = _Scan.apply(key, code, layer, steps, n, surrogate, x, *states, *params)
    return spk, rest[:n], launch.all_traces(traced_in(code), spk, rest[n:])


def _machine(code: str) -> Any:
    """The module that runs the variant, forward and backward."""
    return launch if Variant.parse(code).machine == "numba" else gpu_launch


def _keep(
    ctx: Any, call: tuple[Any, ...], x: Tensor, states: Sequence[Tensor], outs: launch.Outputs, params: Any
) -> None:
    """Save what the backward reads: never the last states, into which whoever gets them may write."""
    key, code, ctx.layer, steps = call
    ctx.call, ctx.states = (key, code, steps), len(states)
    variant = Variant.parse(code)
    ctx.reads_input = bool(variant.grad) and (reads_input(key) or not {"c", "r"}.isdisjoint(variant.traced))
    spk, _, traces = outs
    ctx.own = [trace is not None and trace is not spk for trace in traces]  # which are outputs by themselves
    ctx.kept = [trace is not None for trace in traces]
    kept = [trace for trace in traces if trace is not None]
    ctx.save_for_backward(*states, *kept, *params, *([x] if ctx.reads_input else []))
    ctx.set_materialize_grads(False)


def _recall(ctx: Any, saved: Sequence[Tensor]) -> tuple[Any, ...]:
    """The arguments of `kernels.backward` up to the incoming gradients."""
    left = iter(saved)
    states = [next(left) for _ in range(ctx.states)]
    traces = [next(left) if kept else None for kept in ctx.kept]
    rest = list(left)
    return *ctx.call, rest.pop() if ctx.reads_input else None, states, traces, rest


def _incoming(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """The gradients of the spikes, of the last states and of the states of every step."""
    n = ctx.states
    own = iter(grads[1 + n :])
    return grads[0], list(grads[1 : 1 + n]), [next(own) if mine else None for mine in ctx.own]


# -- in eager mode ----------------------------------------------------------------------------------------------------


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        key: str,
        code: str,
        layer: str,
        steps: int,
        count: int,
        surrogate: Surrogate,
        x: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        states, params = rest[:count], rest[count:]
        ctx.surrogate = surrogate
        outs = _machine(code).forward(key, code, steps, x, states, params)
        _keep(ctx, (key, code, layer, steps), x, states, outs, params)
        return outs[0], *outs[1], *launch.by_themselves(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        arguments = (*_recall(ctx, unpacked(ctx)), *_incoming(ctx, grads))
        if torch.is_grad_enabled() or batched(grads):
            g = pullback.backward(ctx.surrogate, *arguments)
        else:
            g = _machine(ctx.call[1]).backward(*arguments)
        return (None, None, None, None, None, None, g.x, *g.states, *g.params)


# -- while torch compiles ---------------------------------------------------------------------------------------------


@torch.library.custom_op("spikeloom::scan", mutates_args=())
def _operator(
    key: str, code: str, layer: str, steps: int, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
) -> list[Tensor]:
    outs = _machine(code).forward(key, code, steps, x.contiguous(), states, params)  # as the fake says
    return [outs[0], *outs[1], *launch.by_themselves(outs)]


@_operator.register_fake
def _(key, code, layer, steps, x, states, params):  # type: ignore[no-untyped-def]
    spk = x.new_empty((steps, *x.shape[1:]))
    finals = [torch.empty_like(s, memory_format=torch.contiguous_format) for s in states]
    return [spk, *finals, *(states[0].new_empty(spk.shape) for _ in range(traced_in(code).count("1")))]


@torch.library.custom_op("spikeloom::scan_backward", mutates_args=())
def _backward_operator(
    key: str,
    code: str,
    steps: int,
    x: Tensor | None,
    states: Sequence[Tensor],
    traces: Sequence[Tensor | None],
    params: Sequence[Tensor],
    grad_spk: Tensor | None,
    grad_finals: Sequence[Tensor | None],
    grad_traces: Sequence[Tensor | None],
) -> list[Tensor]:
    g = _machine(code).backward(key, code, steps, x, states, traces, params, grad_spk, grad_finals, grad_traces)
    return [t for t in (g.x, *g.states, *g.params) if t is not None]


@_backward_operator.register_fake
def _(key, code, steps, x, states, traces, params, grad_spk, grad_finals, grad_traces):  # type: ignore[no-untyped-def]
    variant, shape = Variant.parse(code), states[0].shape
    length = {"each": [steps], "sum": [1], "none": []}[variant.grad]
    dtype = getattr(torch, variant.dtype)
    dx = [states[0].new_empty((n, *shape), dtype=dtype) for n in length]
    wanted = [p for p, kind in zip(params, variant.params, strict=True) if kind.isupper()]
    return [*dx, *(s.new_empty(shape) for s in states), *(p.new_empty(p.shape) for p in wanted)]


def _setup_operator(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *call, x, states, params = inputs
    n = len(states)
    traces = launch.all_traces(traced_in(call[1]), output[0], output[1 + n :])
    _keep(ctx, tuple(call), x, states, (output[0], output[1 : 1 + n], traces), params)


def _backward_of_operator(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    out = _backward_operator(*_recall(ctx, saved_by(ctx)), *_incoming(ctx, grads))
    variant = Variant.parse(ctx.call[1])
    dx = out.pop(0) if variant.grad != "none" else None
    states = [out.pop(0) for _ in range(ctx.states)]
    params = [out.pop(0) if kind.isupper() else None for kind in variant.params]
    return None, None, None, None, dx, states, params


_operator.register_autograd(_backward_of_operator, setup_context=_setup_operator)
