"""The scan of a cell over the entries of a matrix [D, N], to which each step adds the outer product of two vectors.

The inputs of a step are v [D], k [N] and a gate [N] for the columns; they are not expanded to the size of the matrix.
Of the sequence of matrices, [T, B, D, N], one per `matrix_span` steps is saved for backward. The backward recomputes
the others span by span, so that the states of one span and one row stay in the cache. The code of a step is generated
from the program, as in `cpu/source.py`; only loads and stores differ. One thread processes all rows of a batch entry,
since they share the gradients of k and of the gate.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from ..._torch import exporting
from ..cpu import Names
from ..graph import Program, needed, structure_of
from ..jit import buffer_pool, lines, rows
from ..saved_tensors import saved_by
from ..sparse import row_kernel
from ..tuning import shapes
from .backends import Backend, kernel_refusals, run_fused
from .call import Call
from .exported import recorded_scan

ARGUMENTS = "steps, batch, D, N, v*, k*, gate*, stored*"

FORWARD = """{uniforms}
    row = low
    while row < high:
        b = row // D
        stop = min(high, (b + 1) * D)
        for t in range(steps):
            k_t, gate_t = k + SIZE * (t * batch + b) * N, gate + SIZE * (t * batch + b) * N
            for i in range(row, stop):
                state_i = state + SIZE * i * N
                if stored != 0 and t % {span} == 0:
                    stored_i = stored + SIZE * (t // {span} * rows + i) * N
                    for j in range(N):
                        store(stored_i, j, load(state_i, j))
                spk_i = spk + SIZE * (t * rows + i) * N
                v_m = load(v, t * rows + i)
                for j in range(N):
{loads}
{body}
                    store(spk_i, j, {spk})
                    store(state_i, j, {new})
        row = stop
"""

BACKWARD = """{uniforms}
    spans = (steps + {span} - 1) // {span}
    dx = scratch + SIZE * ({span} + 1) * N  # after the states before each step of a span and after its last
    for b in range(low, high):
        for span in range(spans - 1, -1, -1):
            begin = span * {span}
            end = min(begin + {span}, steps)
            for i in range(b * D, (b + 1) * D):
                stored_i = stored + SIZE * (span * batch * D + i) * N
                for j in range(N):
                    store(scratch, j, load(stored_i, j))
                for t in range(begin, end):
                    k_t, gate_t = k + SIZE * (t * batch + b) * N, gate + SIZE * (t * batch + b) * N
                    state_i = scratch + SIZE * (t - begin) * N
                    v_m = load(v, t * batch * D + i)
                    for j in range(N):
{loads}
{again}
                        store(state_i + SIZE * N, j, {new})
                carry_i = carry + SIZE * i * N
                for t in range(end - 1, begin - 1, -1):
                    k_t, gate_t = k + SIZE * (t * batch + b) * N, gate + SIZE * (t * batch + b) * N
                    dk_t, dgate_t = dk + SIZE * (t * batch + b) * N, dgate + SIZE * (t * batch + b) * N
                    grad_i = grad + SIZE * (t * grad_stride + i * N)
                    state_i = scratch + SIZE * (t - begin) * N
                    v_m = load(v, t * batch * D + i)
                    for j in range(N):
{loads}
                        new0_m = load(state_i + SIZE * N, j)
                        grad0_m, grad1_m = load(grad_i, j), load(carry_i, j)
{body}
                        store(carry_i, j, {carry})
                        store(dgate_t, j, load(dgate_t, j) + {dgate})
                        store(dk_t, j, load(dk_t, j) + {dx} * v_m)
                        store(dx, j, {dx} * load(k_t, j))
{zeros}
                    for j in range(0, N - {lanes} + 1, {lanes}):
{sums}
                    for j in range(N // {lanes} * {lanes}, N):
                        sum0 = sum0 + load(dx, j)
                    store(dv, t * batch * D + i, {total})
"""


@cache
def _kernel(key: str, forward: bool) -> Callable[[torch.dtype], Callable[..., None]]:
    """Kernel source for a program with one state and a parameter `gate`; its other parameters are numbers."""
    derivation = structure_of(key).derivation
    gate = [node.value for node in derivation.hoisted].index("gate")
    numbers = [p for p in range(len(derivation.hoisted)) if p != gate]
    params = "".join(f", param{k}*" for k in range(len(numbers)))
    loads = ["x_m = v_m * load(k_t, j)", "state0_m = load(state_i, j)", f"param{gate}_m = load(gate_t, j)"]
    name, known = Names(derivation, recalled=False), frozenset(derivation.hoisted)
    spk, new = derivation.forward
    parts: dict[str, Any] = {
        "uniforms": lines([f"param{p}_m = load(param{k}, 0)" for k, p in enumerate(numbers)], 1),
        "span": shapes.matrix_span,
        "new": name(new),
    }
    if forward:
        body = lines(name.assign(needed(derivation.forward, known)), 5)
        source = FORWARD.format(loads=lines(loads, 5), body=body, spk=name(spk), **parts)
        return row_kernel("a scan of matrices", f"rows, {ARGUMENTS}, state*, spk*{params}", source)
    name_back, lanes, (dx, carry, *totals) = Names(derivation, recalled=True), shapes.matrix_lanes, derivation.backward
    nodes = needed([g for g in (dx, carry, totals[gate]) if g is not None], derivation.recalled)
    source = BACKWARD.format(
        loads=lines(loads, 6),
        again=lines(name.assign(needed([new], known)), 6),
        body=lines(name_back.assign(nodes), 6),
        carry=name_back(carry),
        dgate=name_back(totals[gate]),
        dx=name_back(dx),
        zeros=lines([" = ".join(f"sum{lane}" for lane in range(lanes)) + " = R(0)"], 5),
        sums=lines([f"sum{lane} = sum{lane} + load(dx, j + {lane})" for lane in range(lanes)], 6),
        total=" + ".join(f"sum{lane}" for lane in range(lanes)),
        lanes=lanes,
        **parts,
    )
    others = ARGUMENTS.replace("batch, ", "")
    return row_kernel(
        "the gradient of a scan of matrices",
        f"batch, {others}, grad*, grad_stride, carry*, dv*, dk*, dgate*{params}, scratch",
        source,
    )


@dataclass(frozen=True)
class MatrixCall:
    """A request to run a scan over a matrix.

    Args:
        program: the program of a cell with one state and a parameter `gate`.
        v: values, [T, B, D].
        k: keys, [T, B, N].
        gate: decay of each column per step, [T, B, N].
        params: the cell's other parameters by name, each one number.
        layer: the name of the neuron in messages.
    """

    program: Program
    v: Tensor
    k: Tensor
    gate: Tensor
    params: Mapping[str, Tensor]
    layer: str

    @property
    def x(self) -> Tensor:
        """The input, as the backends check it."""
        return self.v


def by_steps(call: MatrixCall, which: int) -> Tensor:
    """The reference: step by step in plain PyTorch. Returns the spikes (0) or the matrices (1), [T, B, D, N]."""
    _, batch, D = call.v.shape
    mem, outs = call.v.new_zeros(batch, D, call.k.shape[-1]), []
    if exporting():
        return _recorded(call, mem, which)
    for v, k, gate in zip(call.v, call.k, call.gate, strict=True):
        step = call.program.step({**call.params, "gate": gate.unsqueeze(-2)})
        out = step(v.unsqueeze(-1) * k.unsqueeze(-2), mem)
        mem = out[1]
        outs.append(out[which])
    return torch.stack(outs) if outs else mem.new_empty((0, *mem.shape))


def _recorded(call: MatrixCall, mem: Tensor, which: int) -> Tensor:
    """Run the reference in torch.export."""

    def body(states: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        v, k, gate = inputs
        step = call.program.step({**call.params, "gate": gate.unsqueeze(-2)})
        out = step(v.unsqueeze(-1) * k.unsqueeze(-2), states[0])
        return [out[1]], [out[which]]

    return recorded_scan(body, [mem], [call.v, call.k, call.gate], call.v.shape[0])[1][0]


def _refusals(call: MatrixCall) -> Iterator[str]:
    yield from kernel_refusals(call.program.untraceable, call.v, (call.v, call.k, call.gate, *call.params.values()))
    if any(p.requires_grad for p in call.params.values()) and torch.is_grad_enabled():
        yield f"{' and '.join(call.params)} get no gradient from its kernel"
    if any(p.numel() != 1 for p in call.params.values()):
        yield f"its kernel takes one number each for {' and '.join(call.params)}"


def _triton_refusals(call: MatrixCall) -> Iterator[str]:
    tensors = (call.v, call.k, call.gate, *call.params.values())
    return kernel_refusals(call.program.untraceable, call.v, tensors, triton=True)


def _numbers(call: MatrixCall) -> list[Tensor]:
    """The parameters other than the gate, in the order of the kernel."""
    values = call.program.hoist({**call.params, "gate": call.gate}, call.v)
    return [value for value, name in zip(values, call.program.structure.as_given, strict=True) if name != "gate"]


def _run_numba(call: MatrixCall) -> Tensor:
    params = _numbers(call)
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (call.v, call.k, call.gate))
    spk: Tensor = _operator(call.program.key, call.layer, call.v, call.k, call.gate, params, wanted)[0]
    return spk


def _run_triton(call: MatrixCall) -> Tensor:
    """Run as a scan over the entries, with expanded inputs and gates."""
    x = call.v.unsqueeze(-1) * call.k.unsqueeze(-2)
    params = {**call.params, "gate": call.gate.unsqueeze(-2).expand_as(x)}
    start = x.new_zeros(x.shape[1:])
    return run_fused(Call(call.program, x, len(x), (start,), params, traced=False, layer=call.layer)).spk


MATRICES: tuple[Backend, ...] = (
    Backend("numba", _refusals, _run_numba),
    Backend("triton", _triton_refusals, _run_triton, on_gpu=True),
    Backend("loop", lambda call: [], partial(by_steps, which=0)),
)
"""The backends of scans over a matrix, fastest first; each maps a `MatrixCall` to spikes, [T, B, D, N]."""


# -- the kernels as a differentiable operator --------------------------------------------------------------------------


def _given(v: Tensor, k: Tensor, gate: Tensor, params: Sequence[Tensor]) -> dict[str, Any]:
    """The arguments of both kernels."""
    (T, B, D), N = v.shape, k.shape[-1]
    inputs = {"v": v.contiguous(), "k": k.contiguous(), "gate": gate.contiguous()}
    return {"steps": T, "batch": B, "D": D, "N": N, **inputs, **{f"param{k}": p for k, p in enumerate(params)}}


def _spans(steps: int) -> int:
    """The number of saved matrices."""
    return (steps + shapes.matrix_span - 1) // shapes.matrix_span


def _sizes(v: Tensor, k: Tensor) -> tuple[int, int, int, int]:
    return *v.shape, k.shape[-1]


@torch.library.custom_op("spikeloom::matrix_scan", mutates_args=())
def _operator(
    key: str, layer: str, v: Tensor, k: Tensor, gate: Tensor, params: Sequence[Tensor], wanted: bool
) -> list[Tensor]:
    """Compute the spikes [T, B, D, N] and, if a gradient is required, the matrices before each span of steps."""
    T, B, D, N = _sizes(v, k)
    spk = buffer_pool.empty((T, B, D, N), v)
    stored = buffer_pool.empty((_spans(T), B, D, N), v) if wanted else v.new_empty(0)
    given, state = _given(v, k, gate, params), v.new_zeros(B, D, N)
    _kernel(key, True)(v.dtype)(
        rows=B * D, size=T * N, **given, stored=stored if wanted else None, state=state, spk=spk
    )
    return [spk, stored]


@_operator.register_fake
def _(key, layer, v, k, gate, params, wanted):  # type: ignore[no-untyped-def]
    T, B, D, N = _sizes(v, k)
    return [v.new_empty(T, B, D, N), v.new_empty(_spans(T), B, D, N) if wanted else v.new_empty(0)]


@torch.library.custom_op("spikeloom::matrix_scan_backward", mutates_args=())
def _backward_operator(
    key: str, v: Tensor, k: Tensor, gate: Tensor, params: Sequence[Tensor], stored: Tensor, grad: Tensor
) -> list[Tensor]:
    T, B, D, N = _sizes(v, k)
    dv, dk, dgate = v.new_empty(v.shape), k.new_zeros(k.shape), k.new_zeros(k.shape)
    grad, stride = rows(grad)
    _kernel(key, False)(v.dtype)(
        size=T * D * N,
        **_given(v, k, gate, params),
        stored=stored,
        grad=grad,
        grad_stride=stride,
        carry=v.new_zeros(B, D, N),
        dv=dv,
        dk=dk,
        dgate=dgate,
        scratch=(shapes.matrix_span + 2) * N * v.element_size(),
    )
    return [dv, dk, dgate]


@_backward_operator.register_fake
def _(key, v, k, gate, params, stored, grad):  # type: ignore[no-untyped-def]
    return [t.new_empty(t.shape) for t in (v, k, gate)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.key, ctx.layer, v, k, gate, params, _ = inputs
    ctx.save_for_backward(v, k, gate, output[1], *params)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    v, k, gate, stored, *params = saved_by(ctx, *grads)
    out = (None, None, None) if grads[0] is None else _backward_operator(ctx.key, v, k, gate, params, stored, grads[0])
    return None, None, *out, [None] * len(params), None


_operator.register_autograd(_backward, setup_context=_setup)
