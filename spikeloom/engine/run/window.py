"""Leaky sums over the last K steps alone: mem[t] = sum_{k < K} decay^k * x[t - k], in O(T) for any K.

The difference of two leaky sums, ``s[t] - decay^K * s[t - K]``, would lose its digits where sums grow long, and a NaN
would stay in it for ever. So nothing is subtracted here. Time is cut into blocks of K steps; the window that ends at
step r of a block is the block's own leaky sum up to r, and what the last K - 1 - r steps of the block before have left:

    mem[b, r] = sum_{j <= r} decay^(r - j) x[b, j]  +  decay^(r + 1) * sum_{j > r} decay^(K - 1 - j) x[b - 1, j]

Both are sums of terms that only shrink. The gradient of x is the same sum over reversed time.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from ..cpu.window_source import WINDOW, WINDOW_GRADIENT, block_of, emit_window, scratch_rows
from ..graph.program import Program
from ..jit import buffer_pool, openmp
from ..jit.layout import rows, spread, sum_to
from ..jit.numba_jit import compiled
from ..saved_tensors import saved_by
from .backends import Backend, numba_refusals


@dataclass(frozen=True)
class WindowCall:
    """What is to be summed up.

    Args:
        program: of the neuron; where it cannot be traced there is no kernel.
        x: [T, *S].
        decay: per step, broadcastable to [*S].
        length: K, 1 or more.
        layer: how messages name the neuron.
    """

    program: Program
    x: Tensor
    decay: Tensor
    length: int
    layer: str


def _run_loop(call: WindowCall) -> Tensor:
    """The law in plain PyTorch: step by step through all blocks at once."""
    K, decay, steps = call.length, call.decay, len(call.x)
    missing = -steps % K
    whole = torch.cat((call.x, call.x.new_zeros((missing, *call.x.shape[1:]))))
    rows = whole.unflatten(0, (-1, K)).unbind(1)  # one for each step of a block, [blocks, *S]
    zero, one = torch.zeros_like(rows[0]), torch.ones_like(call.x[0])
    left, power = [zero], one
    for x in rows[:0:-1]:
        left.append(left[-1] + power * x)
        power = power * decay
    own, power, sums = zero, one, []
    for x, before in zip(rows, reversed(left), strict=True):
        own, power = decay * own + x, power * decay
        sums.append(own + power * torch.cat((zero[:1], before[:-1])))
    return torch.stack(sums, 1).flatten(0, 1)[:steps]


def _run_numba(call: WindowCall) -> Tensor:
    out: Tensor = _operator(call.x, call.decay, call.length, call.layer)
    return out


WINDOWS: tuple[Backend, ...] = (
    Backend("numba", numba_refusals, _run_numba),
    Backend("loop", lambda call: [], _run_loop),
)
"""The ladder of such sums; from a `WindowCall` to mem, [T, *S]."""


# -- the kernels as a differentiable operator --------------------------------------------------------------------------


@cache
def _kernel(name: str, dtype: torch.dtype, kind: str) -> openmp.Entry:
    return compiled(partial(emit_window, name, str(dtype).removeprefix("torch."), kind))


def _sums(x: Tensor, decay: Tensor, K: int, backwards: bool = False, grad: Tensor | None = None) -> Tensor:
    """The sums over x, or, backwards, over the K steps that follow; with a gradient of theirs, that of decay."""
    steps, shape = len(x), x.shape[1:]
    kind = "u" if decay.numel() == 1 else "v"
    each, (x, stride) = spread(decay, kind, shape), rows(x)
    out = buffer_pool.empty((steps, *shape), x) if grad is None else x.new_zeros(shape)
    block, team = block_of(K), torch.get_num_threads()
    scratch = x.new_empty(team * scratch_rows(K) * block)
    words = [steps, shape.numel(), 0, K, block, each.data_ptr(), scratch.data_ptr()]
    last = (steps - 1) * x.element_size() if backwards else 0
    turned = -1 if backwards else 1
    words += [x.data_ptr() + last * stride, turned * stride]
    if grad is None:
        words += [out.data_ptr() + last * shape.numel(), turned * shape.numel()]
        _kernel(WINDOW, x.dtype, kind).run(words, team)
        return out
    grad, stride = rows(grad)
    words += [grad.data_ptr(), stride, out.data_ptr()]
    _kernel(WINDOW_GRADIENT, x.dtype, kind).run(words, team)
    return sum_to(out, decay)


@torch.library.custom_op("spikeloom::window_sums", mutates_args=())
def _operator(x: Tensor, decay: Tensor, length: int, layer: str) -> Tensor:
    return _sums(x, decay, length)


@_operator.register_fake
def _(x: Tensor, decay: Tensor, length: int, layer: str) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("spikeloom::window_sums_backward", mutates_args=())
def _backward_operator(x: Tensor, decay: Tensor, length: int, grad: Tensor, learned: bool) -> list[Tensor]:
    dx = _sums(grad, decay, length, backwards=True)
    return [dx, _sums(x, decay, length, grad=grad)] if learned else [dx]


@_backward_operator.register_fake
def _(x: Tensor, decay: Tensor, length: int, grad: Tensor, learned: bool) -> list[Tensor]:
    return [x.new_empty(x.shape), *([decay.new_empty(decay.shape)] if learned else [])]


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, int, str], output: Tensor) -> None:
    x, decay, ctx.length, ctx.layer = inputs
    ctx.save_for_backward(x, decay)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, decay = saved_by(ctx)
    learned = ctx.needs_input_grad[1]
    dx, *ddecay = _backward_operator(x, decay, ctx.length, grad, learned)
    return dx, ddecay[0] if learned else None, None, None


_operator.register_autograd(_backward, setup_context=_setup)
