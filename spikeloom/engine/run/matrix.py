"""The scan of a cell over the entries of a matrix [D, N], to which each step writes the outer product of two vectors.

What a step takes is v [D], k [N] and a gate [N] for the columns; nothing of the size of the matrix is made of them. Of
the sequence of matrices, [T, B, D, N], only one in `emit_matrix.SPAN` is kept for the backward, which computes the
others again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from ..cpu.matrix_source import SPAN, emit_matrix
from ..graph.program import Program, program_of
from ..jit import buffer_pool, openmp
from ..jit.layout import rows
from ..jit.numba_jit import compiled
from ..saved_tensors import saved_by
from .backends import Backend, numba_refusals, off_the_cpu, run_triton, triton_refusals
from .call import Call


@dataclass(frozen=True)
class MatrixCall:
    """What is to be run.

    Args:
        program: of a cell with one state and a parameter `gate`.
        v: what is written, [T, B, D].
        k: where it is written, [T, B, N].
        gate: what is left of each column after a step, [T, B, N].
        params: the cell's other parameters by name, each one number.
        layer: how messages name the neuron.
    """

    program: Program
    v: Tensor
    k: Tensor
    gate: Tensor
    params: Mapping[str, Tensor]
    layer: str

    @property
    def x(self) -> Tensor:
        """The input by which a backend decides."""
        return self.v


def by_steps(call: MatrixCall, which: int) -> Tensor:
    """The reference: step by step in plain PyTorch. Returns the spikes (0) or the matrices (1), [T, B, D, N]."""
    _, batch, D = call.v.shape
    mem, outs = call.v.new_zeros(batch, D, call.k.shape[-1]), []
    for v, k, gate in zip(call.v, call.k, call.gate, strict=True):
        step = call.program.step({**call.params, "gate": gate.unsqueeze(-2)})
        out = step(v.unsqueeze(-1) * k.unsqueeze(-2), mem)
        mem = out[1]
        outs.append(out[which])
    return torch.stack(outs) if outs else mem.new_empty((0, *mem.shape))


def _refusals(call: MatrixCall) -> list[str]:
    why = numba_refusals(call)
    if any(p.requires_grad for p in call.params.values()) and torch.is_grad_enabled():
        why.append(f"{' and '.join(call.params)} get no gradient from its kernel")
    if any(p.numel() != 1 for p in call.params.values()):
        why.append(f"its kernel takes one number each for {' and '.join(call.params)}")
    return why


def _numbers(call: MatrixCall) -> list[Tensor]:
    """The values beside the gate, in the order of the kernel."""
    values = call.program.hoist({**call.params, "gate": call.gate}, call.v)
    return [value for value, name in zip(values, call.program.structure.as_given, strict=True) if name != "gate"]


def _run_numba(call: MatrixCall) -> Tensor:
    params = _numbers(call)
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (call.v, call.k, call.gate))
    spk: Tensor = _operator(call.program.key, call.layer, call.v, call.k, call.gate, params, wanted)[0]
    return spk


def _run_triton(call: MatrixCall) -> Tensor:
    """As a scan over the entries, whose inputs and gates are written out for it."""
    x = call.v.unsqueeze(-1) * call.k.unsqueeze(-2)
    params = {**call.params, "gate": call.gate.unsqueeze(-2).expand_as(x)}
    start = x.new_zeros(x.shape[1:])
    return run_triton(Call(call.program, x, len(x), (start,), params, traced=False, layer=call.layer)).spk


MATRICES: tuple[Backend, ...] = (
    Backend("numba", _refusals, _run_numba),
    Backend("triton", triton_refusals, _run_triton, off_the_cpu),
    Backend("loop", lambda call: [], partial(by_steps, which=0)),
)
"""The ladder of such scans; from a `MatrixCall` to spikes, [T, B, D, N]."""


# -- the kernels as a differentiable operator --------------------------------------------------------------------------


@cache
def _kernel(key: str, forward: bool, dtype: torch.dtype) -> openmp.Entry:
    name = str(dtype).removeprefix("torch.")
    title = f"A scan as products of matrices, {name}, {'forward' if forward else 'backward'}."
    return compiled(partial(emit_matrix, program_of(key).derivation, forward, name, title))


def _sizes(v: Tensor, k: Tensor) -> tuple[int, int, int, int]:
    return *v.shape, k.shape[-1]


@torch.library.custom_op("spikeloom::matrix_scan", mutates_args=())
def _operator(
    key: str, layer: str, v: Tensor, k: Tensor, gate: Tensor, params: Sequence[Tensor], wanted: bool
) -> list[Tensor]:
    """The spikes [T, B, D, N] and, if a gradient is wanted, the matrices before every SPANth step."""
    T, B, D, N = _sizes(v, k)
    spk = buffer_pool.empty((T, B, D, N), v)
    kept = buffer_pool.empty((-(-T // SPAN), B, D, N), v) if wanted else v.new_empty(0)
    held = [t.contiguous() for t in (v, k, gate)]
    state = v.new_zeros(B, D, N)
    words = [T, B * D * N, 0, B, D, N, *(t.data_ptr() for t in held), kept.data_ptr() if wanted else 0]
    words += [t.data_ptr() for t in (state, spk, *params)]
    _kernel(key, True, v.dtype).run(words)
    return [spk, kept]


@_operator.register_fake
def _(key, layer, v, k, gate, params, wanted):  # type: ignore[no-untyped-def]
    T, B, D, N = _sizes(v, k)
    return [v.new_empty(T, B, D, N), v.new_empty((T + SPAN - 1) // SPAN, B, D, N) if wanted else v.new_empty(0)]


@torch.library.custom_op("spikeloom::matrix_scan_backward", mutates_args=())
def _backward_operator(
    key: str, v: Tensor, k: Tensor, gate: Tensor, params: Sequence[Tensor], kept: Tensor, grad: Tensor
) -> list[Tensor]:
    T, B, D, N = _sizes(v, k)
    dv, dk, dgate = v.new_empty(v.shape), k.new_zeros(k.shape), k.new_zeros(k.shape)
    held = [t.contiguous() for t in (v, k, gate)]
    team = torch.get_num_threads()
    scratch, carry = v.new_empty(team * (SPAN + 2) * N), v.new_zeros(B, D, N)
    grad, stride = rows(grad)
    words = [T, B * D * N, 0, B, D, N, *(t.data_ptr() for t in (*held, kept, scratch, grad)), stride]
    words += [t.data_ptr() for t in (carry, dv, dk, dgate, *params)]
    _kernel(key, False, v.dtype).run(words, team)
    return [dv, dk, dgate]


@_backward_operator.register_fake
def _(key, v, k, gate, params, kept, grad):  # type: ignore[no-untyped-def]
    return [t.new_empty(t.shape) for t in (v, k, gate)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.key, ctx.layer, v, k, gate, params, _ = inputs
    ctx.save_for_backward(v, k, gate, output[1], *params)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    v, k, gate, kept, *params = saved_by(ctx)
    out = (None, None, None) if grads[0] is None else _backward_operator(ctx.key, v, k, gate, params, kept, grads[0])
    return None, None, *out, [None] * len(params), None


_operator.register_autograd(_backward, setup_context=_setup)
