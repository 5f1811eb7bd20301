"""The differentiable scan: one torch operator for every kernel, so that compilers and exporters see one opaque node.

The operator serves sequences, and everything while torch compiles. A single step in eager mode goes through an
`autograd.Function` over the same kernels, whose call costs a fifth of the operator's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import kernels
from .emit_numba import Variant
from .program import reads_input

STALE = (
    "{layer} got a gradient for a state whose graph is already freed: the state was carried over from before the last "
    "backward. Call spikeloom.utils.reset(net) between independent batches, or spikeloom.utils.detach(net) to keep the "
    "values without their history."
)
TWICE = (
    "the fused kernels have no second derivative; compute it with the plain loop: "
    "with spikeloom.backend('loop'): ... around the forward pass"
)


def _saved(ctx: Any) -> tuple[Tensor, ...]:
    try:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
    except RuntimeError as error:
        if "second time" in str(error):
            raise RuntimeError(STALE.format(layer=ctx.layer)) from error
        raise
    if torch.is_grad_enabled():
        raise RuntimeError(TWICE)
    return saved


# -- a sequence: the operator ---------------------------------------------------------------------------------------


@torch.library.custom_op("spikeloom::scan", mutates_args=())
def scan(
    key: str, code: str, layer: str, steps: int, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
) -> list[Tensor]:
    """Spikes [T, *S], then the last states [*S], then, if the variant is traced, all states [T, *S]."""
    spk, finals, traces = kernels.forward(key, code, steps, x, states, params)
    return [spk, *finals, *traces]


@scan.register_fake
def _(key, code, layer, steps, x, states, params):  # type: ignore[no-untyped-def]
    spk = x.new_empty((steps, *x.shape[1:]))
    finals = [torch.empty_like(s, memory_format=torch.contiguous_format) for s in states]
    return [spk, *finals, *([torch.empty_like(spk) for _ in states] if Variant.parse(code).traced else [])]


@torch.library.custom_op("spikeloom::scan_backward", mutates_args=())
def scan_backward(
    key: str,
    code: str,
    steps: int,
    x: Tensor | None,
    states: Sequence[Tensor],
    traces: Sequence[Tensor],
    params: Sequence[Tensor],
    grad_spk: Tensor | None,
    grad_finals: Sequence[Tensor | None],
    grad_traces: Sequence[Tensor | None],
) -> list[Tensor]:
    """Gradients of the input, the states and the parameters, those that are wanted."""
    g = kernels.backward(key, code, steps, x, states, traces, params, grad_spk, grad_finals, grad_traces)
    return [t for t in (g.x, *g.states, *g.params) if t is not None]


@scan_backward.register_fake
def _(key, code, steps, x, states, traces, params, grad_spk, grad_finals, grad_traces):  # type: ignore[no-untyped-def]
    variant, shape = Variant.parse(code), states[0].shape
    length = {"each": [steps], "sum": [1], "none": []}[variant.grad]
    dx = [states[0].new_empty((n, *shape)) for n in length]
    wanted = [p for p, kind in zip(params, variant.params, strict=True) if kind.isupper()]
    return [*dx, *(s.new_empty(shape) for s in states), *(p.new_empty(p.shape) for p in wanted)]


def _setup_scan(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    key, code, ctx.layer, steps, x, states, params = inputs
    count = len(states)
    ctx.call, ctx.states, ctx.static = (key, code, steps), count, len(x) == 1
    ctx.reads_input = Variant.parse(code).grad != "" and reads_input(key)
    saved = [*states, *output[1 + count :], *params]
    ctx.save_for_backward(*saved, *([x] if ctx.reads_input else []))


def _backward_scan(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    saved, n = _saved(ctx), ctx.states
    x = saved[-1] if ctx.reads_input else None
    rest = saved[2 * n : -1] if ctx.reads_input else saved[2 * n :]
    variant = Variant.parse(ctx.call[1])
    out = scan_backward(
        *ctx.call, x, saved[:n], saved[n : 2 * n], rest, grads[0], list(grads[1 : 1 + n]), list(grads[1 + n :])
    )
    dx = out.pop(0) if variant.grad != "none" else None
    states = [out.pop(0) for _ in range(n)]
    params = [out.pop(0) if kind.isupper() else None for kind in variant.params]
    return None, None, None, None, dx, states, params


scan.register_autograd(_backward_scan, setup_context=_setup_scan)


# -- one step: an autograd function ---------------------------------------------------------------------------------


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, key: str, code: str, layer: str, count: int, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        states, params = rest[:count], rest[count:]
        spk, finals, _ = kernels.forward(key, code, 1, x, states, params)
        ctx.call, ctx.layer, ctx.states = (key, code), layer, count
        ctx.reads_input = reads_input(key)
        ctx.save_for_backward(*states, *finals, *params, *([x] if ctx.reads_input else []))
        ctx.set_materialize_grads(False)
        return (spk, *finals)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, n = _saved(ctx), ctx.states
        x = saved[-1] if ctx.reads_input else None
        params = saved[2 * n : -1] if ctx.reads_input else saved[2 * n :]
        traces = [s.unsqueeze(0) for s in saved[n : 2 * n]]
        g = kernels.backward(*ctx.call, 1, x, saved[:n], traces, params, grads[0], grads[1:], (None,) * n)
        return (None, None, None, None, g.x, *g.states, *g.params)


def step(
    key: str, code: str, layer: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """One step: spikes [1, *S] and the new states [*S]."""
    if not Variant.parse(code).grad:
        spk, finals, _ = kernels.forward(key, code, 1, x, states, params)
        return spk, finals
    spk, *finals = _Step.apply(key, code, layer, len(states), x, *states, *params)
    return spk, finals
