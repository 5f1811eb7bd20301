"""Leaky sums over the last K steps alone: mem[t] = sum_{k < K} decay^k * x[t - k], in O(T) for any K.

The difference of two leaky sums, ``s[t] - decay^K * s[t - K]``, would lose its digits where sums grow long, and a NaN
would stay in it for ever. So nothing is subtracted here. Time is cut into blocks of K steps; the window that ends at
step r of a block is the block's own leaky sum up to r, and what the last K - 1 - r steps of the block before have left:

    mem[b, r] = sum_{j <= r} decay^(r - j) x[b, j]  +  decay^(r + 1) * sum_{j > r} decay^(K - 1 - j) x[b - 1, j]

Both are sums of terms that only shrink. The gradient of x is the same sum over reversed time. That of the decay is a
forward derivative: beside each value runs its derivative by the decay. Each thread works on blocks of elements that are
small enough for what a block of K steps leaves to stay in the cache.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from ..graph import Program
from ..jit import buffer_pool, compiled, module_source, openmp, rows, spread, sum_to
from ..saved_tensors import saved_by
from .backends import Backend, numba_refusals

WINDOW, WINDOW_GRADIENT = "window", "window_gradient"

KEPT = 1 << 17
"""Elements of a thread's scratch memory, about: the second-level cache holds them."""


def block_of(K: int) -> int:
    """How many elements a thread works on at once."""
    return max(16, min(4096, KEPT // K // 16 * 16))


def scratch_rows(K: int) -> int:
    """How many rows of a block a thread needs: three values and what each of K steps leaves, and their derivatives."""
    return 2 * (K + 3)


BODY = """
    part = (size + threads * 16 - 1) // (threads * 16) * 16
    end = min(me * part + part, size)
    own = scratch + SIZE * me * block * 2 * (K + 3)
    power, rest, left = own + SIZE * block, own + SIZE * block * 2, own + SIZE * block * 3
    shift = SIZE * block * (K + 3)  # from a value to its derivative
    low = me * part
    while low < end:
        count = min(block, end - low)
        for m in range(block * 2 * (K + 3)):
            store(own, m, R(0))
        for begin in range(0, steps, K):
            for m in range(count):
                store(own, m, R(0))
                store(power, m, R(1))
                store(own + shift, m, R(0))
                store(power + shift, m, R(0))
            for r in range(min(K, steps - begin)):
                x_t = x + SIZE * ((begin + r) * x_stride + low)
                left_r = left + SIZE * block * r
                {result_row}
                for m in range(count):
                    decay_m = load(decay, {index})
                    own_m, power_m, left_m = load(own, m), load(power, m), load(left_r, m)
                    {own_derivative}
                    own_m = decay_m * own_m + load(x_t, m)
                    power_m = power_m * decay_m
                    {result}
                    store(own, m, own_m)
                    store(power, m, power_m)
            for m in range(count):
                store(rest, m, R(0))
                store(power, m, R(1))
                store(rest + shift, m, R(0))
                store(power + shift, m, R(0))
            for r in range(K - 1 if begin + K < steps else 0, 0, -1):
                x_t = x + SIZE * ((begin + r) * x_stride + low)
                left_r = left + SIZE * block * (r - 1)
                for m in range(count):
                    decay_m = load(decay, {index})
                    power_m = load(power, m)
                    {rest_derivative}
                    rest_m = load(rest, m) + power_m * load(x_t, m)
                    store(rest, m, rest_m)
                    store(left_r, m, rest_m)
                    store(power, m, power_m * decay_m)
        low = low + count
"""

SUMS = {
    "result_row": "out_t = out + SIZE * ((begin + r) * out_stride + low)",
    "own_derivative": "pass",
    "result": "store(out_t, m, own_m + power_m * left_m)",
    "rest_derivative": "pass",
}

DECAY_GRADIENT = {
    "result_row": "grad_t = grad + SIZE * ((begin + r) * grad_stride + low)",
    "own_derivative": """own1_m = decay_m * load(own + shift, m) + own_m
                    power1_m = load(power + shift, m) * decay_m + power_m
                    store(own + shift, m, own1_m)
                    store(power + shift, m, power1_m)""",
    "result": """slope = own1_m + (power1_m * left_m + power_m * load(left_r + shift, m))
                    store(total, low + m, load(total, low + m) + load(grad_t, m) * slope)""",
    "rest_derivative": """power1_m = load(power + shift, m)
                    rest1_m = load(rest + shift, m) + power1_m * load(x_t, m)
                    store(rest + shift, m, rest1_m)
                    store(left_r + shift, m, rest1_m)
                    store(power + shift, m, power1_m * decay_m + power_m)""",
}

WORDS = ["steps", "size", "team", "K", "block", "decay", "scratch", "x", "x_stride"]


def emit_window(name: str, dtype: str, kind: str, team: bool, cached: bool) -> str:
    """The source of a kernel.

    Args:
        name: `WINDOW`, which writes the sums to `out`, or `WINDOW_GRADIENT`, which adds the gradient to `total`.
        dtype, team, cached: see `module_source`.
        kind: "u" if the decay is one number, "v" if there is one per element.
    """
    summing = name == WINDOW
    words = [*WORDS, *(("out", "out_stride") if summing else ("grad", "grad_stride", "total"))]
    body = BODY.format(index="0" if kind == "u" else "low + m", **(SUMS if summing else DECAY_GRADIENT))
    return module_source(f"{name}, {dtype}, {kind}", dtype, words, body, team, cached)


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
