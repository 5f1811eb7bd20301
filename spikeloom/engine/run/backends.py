"""Choose the backend of a scan: the first in a list, fastest first, that has no reason to refuse the call."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor

from ..._torch import constant_for_compiler, fake_mode, is_traced, tangents_pass, transforms_active, unwrapped_if_dead
from ...caller import warn_caller
from ...scoped import Scoped
from ..cpu import single_step
from ..gpu import cuda_graphs
from ..gpu import recurrent as gpu_recurrent
from ..graph import FLOATS, HALVES, Constants, Program, State, Target, Variant, dtype_name
from ..jit import plain, triton_jit
from . import autograd, recurrent
from .call import Call, kinds_of_step, recurrence_of, variant_of
from .reference import Step, Trajectory, driven_back, fed_back, loop


class Refused(RuntimeError):
    """The selected backend cannot run a call; `reasons` says why."""

    def __init__(self, message: str, reasons: str = ""):
        super().__init__(message)
        self.reasons = reasons


@dataclass(frozen=True)
class Backend:
    """A backend: its name, its reasons to refuse a call, and the function that runs one.

    A call is a `Call`, or another kind of scan with an `x` and a `layer`. In the name, the text after a comma is a
    variant of the backend. For a call on the CPU, a GPU backend is skipped without a reason, unless it was selected.
    """

    name: str
    refusals: Callable[[Any], Iterable[str]]
    run: Callable[[Any], Any]
    on_gpu: bool = False

    @property
    def family(self) -> str:
        """The name that selects it."""
        return self.name.partition(",")[0]


# -- refusals ---------------------------------------------------------------------------------------------------------


BROKEN = "numba cannot be imported"


def _why_no_numba() -> str:
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return "NUMBA_DISABLE_JIT is set"
    try:
        import numba  # noqa: F401
    except Exception as error:  # a release that does not fit NumPy may raise any error
        return f"{BROKEN} ({error}); pip install --upgrade numba"
    return ""


_no_numba: list[str] = []
"""Filled at first use, since the import takes half a second. torch.compile would trace into a cached function."""


@constant_for_compiler
def numba_missing() -> str:
    """Why Numba cannot compile in this process; empty if it can."""
    if not _no_numba:
        _no_numba.append(_why_no_numba())
        if BROKEN in _no_numba[0]:
            warn_caller(f"{_no_numba[0]}. Until then neurons on the CPU run the plain loop, which is slow.")
    return _no_numba[0]


def kernel_refusals(untraceable: str, x: Tensor, tensors: Sequence[Tensor] = (), triton: bool = False) -> Iterator[str]:
    """Why no Numba (or Triton) kernel can run a program on an input and other tensors.

    Args:
        untraceable: why the program has no kernels; empty if it has.
    """
    if untraceable:
        yield untraceable
    if triton:
        yield from triton_jit.refusals(x.device, _forced.get() == "triton")
    else:
        if numba_missing():
            yield numba_missing()
        if not x.is_cpu:
            yield f"it needs a tensor on the CPU, got one on {x.device}"
    if x.dtype not in KERNEL_DTYPES:
        yield f"it computes in float32 and float64, got {x.dtype}"
    why = seen_through()
    if why:
        yield why
    if not tensors or torch.compiler.is_compiling():
        return
    kinds: set[type[Tensor]] = {*map(type, tensors)}
    for kind in kinds:
        if kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
            yield f"a {kind.__name__} overrides torch's operations, and may have no values in memory"


KERNEL_DTYPES = (*FLOATS, *HALVES)


def seen_through() -> str:
    """Why torch must see each operation, as in a transform that would silently ignore a kernel; empty if not."""
    if transforms_active():
        return "torch.func transforms apply to the operations of the equation, not to a kernel"
    if torch.compiler.is_exporting():  # the exported program may be loaded without spikeloom
        return "torch.export records the operations of the equation, not a kernel"
    if torch.compiler.is_compiling():
        return ""
    if tangents_pass():
        return "forward-mode differentiation applies to the operations of the equation, not to a kernel"
    if is_traced():
        return "torch.jit.trace records the operations of the equation, not a kernel"
    if fake_mode() is not None:
        return "tensors of a FakeTensorMode have no values in memory"
    return ""


COMPILED_RECURRENCE = "the recurrent layer is compiled with the network, step by step"


def _refusals(call: Call, triton: bool = False, fused: bool = False) -> list[str]:
    """Why kernels cannot run the call step by step or, if fused, all steps at once."""
    reasons = [*kernel_refusals(call.untraceable or call.program.untraceable, call.x, call.tensors(), triton)]
    if call.mem_feedback is not None and torch.compiler.is_compiling():
        reasons.append("torch.compile cannot see a product between two kernels, and traces the plain loop")
    if fused and not reasons and call.feedback is not None and call.steps is not None:
        return [COMPILED_RECURRENCE] if torch.compiler.is_compiling() else [*call.feedback.refusals(call.states[0])]
    return reasons


def _triton_refusals(call: Call) -> list[str]:
    if call.mem_feedback is not None:
        return ["the membrane is fed back through a layer of weights, step by step"]
    reasons = _refusals(call, triton=True, fused=True)
    if not reasons and call.feedback is not None and call.steps is not None:
        reasons += gpu_recurrent.refusals(call.states[0])
    return reasons


def _capture_refusals(call: Call) -> list[str]:
    if call.steps is None:
        return ["a single step is not captured as a graph"]
    return _refusals(call, triton=True, fused=True) or [*cuda_graphs.refusals(call.states[0])]


def kernel_at_hand(program: Program, x: Tensor) -> bool:
    """Whether a kernel can run a step of the program on x, whose dtype is that of the states."""
    if x.dtype not in FLOATS or _forced.get() not in (None, "numba"):
        return False
    return next(kernel_refusals(program.untraceable, x), None) is None


# -- runs -------------------------------------------------------------------------------------------------------------


def run_fused(call: Call, target: Target | None = None, captured: bool = False) -> Trajectory:
    """Run all steps at once, or a single step, by kernels that do not refuse it; `captured`: by CUDA graphs.

    Args:
        target: the kernels' target. Default: Triton on the input's device.
    """
    target = triton_jit.target_on(call.x) if target is None else target
    if call.steps is None and (target == Target.NUMBA or call.mem_feedback is None):
        return _run_steps(call, target)
    if target == Target.NUMBA or call.mem_feedback is not None:
        call = _wide(call)
    program, params = call.program, call.hoisted()
    if call.steps is not None and call.feedback is None and call.mem_feedback is None:
        variant = variant_of(call, params, target)
        spk, final_states, traces = autograd.scan(
            program.key, variant, call.layer, call.steps, call.x, call.states, params, program.surrogate
        )
        requested = [trace for trace in traces if trace is not None] if call.traced else ()
        return Trajectory(spk, tuple(requested), tuple(final_states))
    x, (weight, *bias) = call.x.unsqueeze(0) if call.steps is None else call.x, call.weights()
    plan = recurrence_of(call, params, target)
    run = recurrent.scan(plan, x, weight, bias[0] if bias else None, call.states, params, captured)
    if call.steps is None:
        return Trajectory(run.spk.squeeze(0), (), run.final_states)
    return run if call.traced else replace(run, traces=())


def _run_steps(call: Call, target: Target | None = None) -> Trajectory:
    """Run step by step by kernels; see `run_fused`."""
    target = triton_jit.target_on(call.x) if target is None else target
    if target != Target.NUMBA and call.mem_feedback is not None:
        return run_fused(call, target)  # the kernel of one step accepts several inputs in one tensor
    call = _wide(call) if target == Target.NUMBA else call
    program, params = call.program, call.hoisted()

    def step(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        if target != Target.NUMBA or torch.compiler.is_compiling():  # which needs the operator
            return _scan_step(program, call.layer, x, states, params, target)
        unwrapped = [unwrapped_if_dead(state) for state in states]  # a tensor of a transform that has ended
        return kernel_step(program, call.layer, x, unwrapped, params)

    return _looped(call, step)


def _run_loop(call: Call) -> Trajectory:
    """Run the reference."""
    call = _wide(call)
    return _looped(call, call.program.step(call.copied()), call.program.cell.inputs)


def _looped(call: Call, step: Step, inputs: int = 1) -> Trajectory:
    """Run the call step by step, by a step with `inputs` inputs."""
    if call.feedback is not None:
        step = fed_back(step, call.feedback)
    if call.mem_feedback is not None:
        step = driven_back(step, call.mem_feedback, partial(call.mem_feedback.split, count=inputs))
    if call.steps is None:
        spk, *states = step(call.x, *call.states)
        return Trajectory(spk, (), tuple(states))
    return loop(step, call.x, call.steps, call.states, call.traced)


def _wide(call: Call) -> Call:
    """Return the call with its input in the dtype of the states."""
    dtype = call.states[0].dtype
    return call if call.x.dtype is dtype else replace(call, x=call.x.to(dtype))


def kernel_step(
    program: Program, layer: str, x: Tensor, states: Sequence[Tensor], params: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Run one step by a Numba kernel, differentiable; returns the spikes and the new states.

    `params` are the hoisted values. If a gradient is required, those that are not learned must not be modified.
    """
    if type(params) is not Constants and all(p.numel() == 1 and not p.requires_grad for p in params):
        # as on the fast path, so that a step recomputed in a backward saves the same tensors as the first run
        params = Constants.of(plain(p.detach()) for p in params)
    kinds, grad = kinds_of_step(x, states, params)
    plan = single_step.plan_of(program.key, x.dtype, kinds, grad)
    return single_step.step(plan, layer, x, states, params, program.surrogate)


def _scan_step(
    program: Program, layer: str, x: Tensor, states: Sequence[Tensor], params: tuple[Tensor, ...], target: Target
) -> tuple[Tensor, ...]:
    """Run one step as a scan over one step."""
    kinds, grad = kinds_of_step(x, states, params)
    # the backward reads a trace, since the caller may modify the new states
    saved = (State.SAVED if grad else State.DROPPED,) * len(states)
    variant = Variant.of(dtype_name(x.dtype), kinds, saved, grad, target)
    spk, final_states, _ = autograd.scan(
        program.key, variant, layer, 1, x.unsqueeze(0), states, params, program.surrogate
    )
    return (spk.squeeze(0), *final_states)


# -- the choice -------------------------------------------------------------------------------------------------------

LADDER: tuple[Backend, ...] = (
    Backend("numba", partial(_refusals, fused=True), partial(run_fused, target=Target.NUMBA)),
    Backend("numba, step by step", _refusals, partial(_run_steps, target=Target.NUMBA)),
    Backend("triton", _triton_refusals, run_fused, on_gpu=True),
    Backend("triton, recorded", _capture_refusals, partial(run_fused, captured=True), on_gpu=True),
    Backend("triton, step by step", partial(_refusals, triton=True), _run_steps, on_gpu=True),
    Backend("loop", lambda call: [], _run_loop),
)
"""The backends, fastest first. The last accepts every call."""

ENVIRONMENT = "SPIKELOOM_BACKEND"
AUTO = "auto"


def families() -> list[str]:
    """The names of backends, fastest first."""
    return [*dict.fromkeys(b.family for b in LADDER)]


def _checked(name: str, given: str) -> str | None:
    """The backend of a name; None for "auto"."""
    known = [AUTO, *families()]
    if name not in known:
        raise ValueError(f"{given} {name!r}; choose one of {', '.join(known)}")
    return None if name == AUTO else name


_forced: Scoped[str | None] = Scoped(
    "spikeloom_backend", _checked(os.environ.get(ENVIRONMENT) or AUTO, f"{ENVIRONMENT} is"), outer=True
)
forced = _forced.get
"""The name of the selected backend; None if the fastest is chosen."""


@overload
def backend() -> str: ...
@overload
def backend(name: str) -> AbstractContextManager[None]: ...
def backend(name: str | None = None) -> str | AbstractContextManager[None]:
    """Select a backend within a ``with`` block, or return the name of the selected one.

    Every neuron then runs on this backend, or raises an error with the reasons why it cannot.

    Args:
        name: one of

            - "auto": the fastest backend that can run the call. The default.
            - "loop": the plain PyTorch loop, the reference of all kernels.
            - "numba": the fused kernels of the CPU.
            - "triton": the fused kernels of the GPU. With the environment variable TRITON_INTERPRET=1 they also run on
              the CPU, in Triton's interpreter, slowly.

    Returns:
        a context manager; without a name, the name of the selected backend.

    Raises:
        ValueError: for an unknown name.

    The environment variable SPIKELOOM_BACKEND sets the default of the process. The backward pass uses the backend of
    its forward pass.

        >>> import torch, spikeloom as snn
        >>> with snn.backend("loop"):
        ...     spk, mem = snn.Leaky(beta=0.9)(torch.ones(2, 3))
        ...     snn.backend()
        'loop'
    """
    if name is None:
        return _forced.get() or AUTO
    return _selected(_checked(name, "there is no backend"))


@contextmanager
def _selected(name: str | None) -> Iterator[None]:
    with _forced.set(name):
        yield


def choose(call: Any, ladder: Sequence[Backend] = LADDER) -> tuple[Backend, list[str]]:
    """The backend that runs the call, and why each faster one does not. Raises if a selected backend refuses."""
    forced = _forced.get()
    reasons: dict[str, None] = {}  # without repetition: a reason may apply both to a scan and to a step
    for candidate in ladder:
        if (candidate.on_gpu and call.x.is_cpu) if forced is None else forced != candidate.family:
            continue
        why = [*candidate.refusals(call)]
        if not why:
            return candidate, [*reasons]
        reasons |= dict.fromkeys(f"{candidate.family}: {reason}" for reason in why)
    reason = "; ".join(reasons) or f"{forced}: it has no kernel for this kind of scan"
    raise Refused(f"backend {forced!r} was selected, but cannot run {call.layer}: {reason}", reason)
