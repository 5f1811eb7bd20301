"""Run a program's kernels on a GPU, with the arguments and results of `cpu/launch.py`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .. import tuning
from ..cpu import Outputs, all_traces
from ..graph import Cotangents, Gradients, InputGrad, Param, Saved, State, Variant, structure_of
from ..jit import TritonKernel, plain, rows, spread, sum_to
from ..tuning import triton_shapes
from .parallel_source import emit_triton_parallel
from .source import emit_triton


def kernel(key: str, variant: Variant, steps: int, size: int) -> TritonKernel:
    """The kernel of a program for a number of steps and elements: a parallel or a sequential scan."""
    if steps >= triton_shapes.joined_steps and size <= tuning.limits.gpu_parallel_most and structure_of(key).any_order:
        return _kernel_in_parallel(key, variant) or _kernel(key, variant)
    return _kernel(key, variant)


@cache
def _kernel_in_parallel(key: str, variant: Variant) -> TritonKernel | None:
    title = f"A scan in parallel over time: {variant}."
    source = emit_triton_parallel(structure_of(key).derivation, variant, title)
    return (
        None if source is None else TritonKernel(source, triton_shapes.joined_elements, TIME=triton_shapes.joined_steps)
    )


@cache
def _kernel(key: str, variant: Variant) -> TritonKernel:
    """A Triton kernel, compiled at first use and cached until the process ends."""
    source = emit_triton(structure_of(key).derivation, variant, f"A scan: {variant}.")
    return TritonKernel(source, block_of(variant))


def block_of(variant: Variant) -> int:
    """The number of elements that one program of the grid processes."""
    spans = variant.grad and State.SPANS in variant.states
    size = triton_shapes.span_bytes if spans else triton_shapes.block_bytes
    dtype: torch.dtype = getattr(torch, variant.computed if variant.grad else variant.dtype)
    return size // dtype.itemsize


def forward(
    key: str, variant: Variant, steps: int, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
) -> Outputs:
    """Run the scan; see `cpu.launch.forward`."""
    shape, (x, stride) = x.shape[1:], rows(x)
    spk = x.new_empty((steps, *shape))
    final_states = [_empty(s) for s in states]
    lengths = {State.SAVED: steps, State.SPANS: max(steps - 1, 0) // triton_shapes.span}
    stored = [states[0].new_empty((lengths[state], *shape)) for state in variant.states if state in lengths]
    traces = all_traces(variant.states, spk, stored)
    given = {"steps": steps, "size": shape.numel(), "x": x, "x_stride": stride, "spk": spk}
    given |= named("initial", [s.contiguous() for s in states])
    given |= named("final", final_states) | named("trace", traces) | params_by_name(params, variant, x, shape)
    run(kernel(key, variant.forward, steps, shape.numel()), given, x, shape.numel())
    return spk, final_states, traces


def backward(saved: Saved, grads: Cotangents) -> Gradients:
    """Run the adjoint scan; see `cpu.launch.backward`."""
    key, variant, steps, x, states, traces, params = saved
    like, shape = states[0], states[0].shape
    zero = like.new_zeros(shape)
    length = {InputGrad.EACH: [steps], InputGrad.SUM: [1], InputGrad.UNWANTED: []}[variant.grad]
    dx = next((like.new_empty((n, *shape), dtype=getattr(torch, variant.dtype)) for n in length), None)
    carries = [_empty(s) for s in states]
    totals = [
        None if not kind.learned else like.new_empty((steps, *shape)) if kind == Param.LEARNED_STEP else _empty(like)
        for kind in variant.params
    ]
    given = {"steps": steps, "size": shape.numel(), "dx": dx}
    given |= named("initial", [s.contiguous() for s in states]) | named("trace", traces)
    given |= named("grad_final", [zero if g is None else plain(g).contiguous() for g in grads.final_states])
    given |= named("carry", carries) | named("total", totals) | params_by_name(params, variant, like, shape)
    sequences = {"x": x, **named("grad", (grads.spk, *grads.traces))}
    for name, sequence in sequences.items():
        given[name], given[f"{name}_stride"] = (zero, 0) if sequence is None else rows(sequence)
    run(kernel(key, variant, steps, shape.numel()), given, like, shape.numel())
    sums = [None if total is None else sum_to(total, p) for total, p in zip(totals, params, strict=True)]
    return Gradients(dx, carries, sums)


def one_step(key: str, variant: Variant, like: Tensor, params: Sequence[Tensor], width: int) -> Callable[..., None]:
    """A kernel of one step on existing rows; see `cpu.launch.one_step`."""
    launch, size = kernel(key, variant, 1, like.numel()), like.numel()
    strides = dict.fromkeys(("x_stride", *(f"grad{k}_stride" for k in range(1 + len(variant.states)))), 0)
    fixed = {"steps": 1, "size": size, "width": width, **strides, **params_by_name(params, variant, like, like.shape)}

    def forward(x: Tensor, spk: Tensor, state: Sequence[Tensor], trace: Sequence[Tensor]) -> None:
        run(launch, fixed | {"x": x, "spk": spk} | named("initial", state) | named("final", trace), like, size)

    def backward(
        x: Tensor,
        dx: Tensor,
        grad: Sequence[Tensor],
        initial: Sequence[Tensor],
        trace: Sequence[Tensor],
        carry: Sequence[Tensor],
        total: Sequence[Tensor | None],
    ) -> None:
        more = [None if t is None else torch.empty_like(t) for t in total]
        given = {"x": x, "dx": dx} | named("initial", initial) | named("trace", trace) | named("grad", grad)
        given |= named("grad_final", carry) | named("carry", carry) | named("total", more)
        run(launch, fixed | given, like, size)
        for t, addend in zip(total, more, strict=True):
            if t is not None and addend is not None:
                t += addend

    return backward if variant.grad else forward


def _empty(like: Tensor) -> Tensor:
    """Allocate contiguous memory of a shape."""
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def named(kind: str, tensors: Sequence[Tensor | None]) -> dict[str, Any]:
    """Name the arguments of one kind that a kernel takes."""
    return {f"{kind}{k}": tensor for k, tensor in enumerate(tensors)}


def params_by_name(params: Sequence[Tensor], variant: Variant, x: Tensor, shape: torch.Size) -> dict[str, Any]:
    """The hoisted values as a kernel reads them, on the device of x: a single number may be on the CPU."""
    pairs = zip(params, variant.params, strict=True)
    return named("param", [spread(p, kind, shape).to(x.device) for p, kind in pairs])


def run(launch: TritonKernel, given: dict[str, Any], x: Tensor, size: int) -> None:
    """Run a kernel over `size` elements or rows on the device of x."""
    # Triton launches on the current device, which need not be that of the tensors
    on: AbstractContextManager[Any] = torch.cuda.device(x.device) if x.is_cuda else nullcontext()
    with on:
        launch.run(size, given)
