"""Which backend runs a scan: a walk down a list of backends; each accepts, or refuses in sentences."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..._torch import constant_for_compiler, fake_mode, is_traced, tangents_pass, transforms_active, unwrapped_if_dead
from ...scoped import Scoped
from ..cpu import recurrent as cpu_recurrent
from ..cpu import single_step
from ..feedback import MemFeedback
from ..gpu import cuda_graphs
from ..gpu import recurrent as gpu_recurrent
from ..graph import FLOATS, HALVES, Constants, Program, State, Target, Variant, dtype_name
from ..jit import plain, triton_jit
from . import autograd, recurrent
from .call import Call, kinds_of_step, recurrence_of, variant_of
from .reference import Step, Trajectory, driven_back, fed_back, loop


@dataclass(frozen=True)
class Backend:
    """A backend: its name, why it would not run a call, and how it runs one.

    The calls are those of the ladder that it stands in: `Call`, or a kind of scan of its own with a `layer`. What
    follows a comma in its name is a variety of one backend. Where it is of no `concern` to a call, it is passed over
    without a word, unless it is forced.
    """

    name: str
    refusals: Callable[[Any], Iterable[str]]
    run: Callable[[Any], Any]
    concern: Callable[[Any], bool] = lambda call: True

    @property
    def family(self) -> str:
        """The name by which it is asked for."""
        return self.name.partition(",")[0]


def _widened(run: Callable[[Call], Trajectory]) -> Callable[[Call], Trajectory]:
    """The same for what computes in the dtype that it reads."""
    return lambda call: run(_wide(call))


def _wide(call: Call) -> Call:
    """The call with its input in the dtype of the states."""
    dtype = call.states[0].dtype
    return call if call.x.dtype is dtype else replace(call, x=call.x.to(dtype))


def _run_loop(call: Call) -> Trajectory:
    return _looped(call, call.program.step(call.params))


def _looped(call: Call, step: Step) -> Trajectory:
    """The call step by step, by that step."""
    if call.feedback is not None:
        step = fed_back(step, call.feedback)
    if call.mem_feedback is not None:
        step = driven_back(step, call.mem_feedback, partial(call.mem_feedback.split, count=call.program.cell.inputs))
    if call.steps is None:
        spk, *states = step(call.x, *call.states)
        return Trajectory(spk, (), tuple(states))
    return loop(step, call.x, call.steps, call.states, call.traced)


BROKEN = "numba cannot be imported"


def _why_no_numba() -> str:
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return "NUMBA_DISABLE_JIT is set"
    try:
        import numba  # noqa: F401
    except Exception as error:  # a release that does not go with that of NumPy raises what it likes
        return f"{BROKEN} ({error}); pip install --upgrade numba"
    return ""


_no_numba: list[str] = []
"""Filled at first use: the import takes half a second. Not a cached function: torch.compile would trace into it."""


@constant_for_compiler
def numba_missing() -> str:
    """Why Numba cannot compile in this process, or nothing."""
    if not _no_numba:
        _no_numba.append(_why_no_numba())
        if BROKEN in _no_numba[0]:
            warnings.warn(
                f"{_no_numba[0]}. Until then neurons on the CPU run the plain loop, which is slow.", stacklevel=2
            )
    return _no_numba[0]


def numba_refusals(program: Program, x: Tensor, tensors: Sequence[Tensor] = ()) -> Iterator[str]:
    """Why no kernel of Numba's runs a program on an input and other tensors."""
    if program.untraceable:
        yield program.untraceable
    if numba_missing():
        yield numba_missing()
    if not x.is_cpu:
        yield f"it needs a tensor on the CPU, got one on {x.device}"
    yield from _kernel_refusals(x, tensors)


def _kernel_refusals(x: Tensor, tensors: Sequence[Tensor]) -> Iterator[str]:
    """What no kernel of either backend takes."""
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
            yield f"a {kind.__name__} computes by its own operations, and need not have its numbers in memory"


KERNEL_DTYPES = (*FLOATS, *HALVES)


def seen_through() -> str:
    """Why torch has to see each operation of what runs now, or nothing: a kernel would be left out without a word."""
    if transforms_active():
        return "torch.func transforms see through the equation only, not through a kernel"
    if torch.compiler.is_compiling():
        return ""
    if tangents_pass():
        return "tangents of forward-mode differentiation pass through the equation only, not through a kernel"
    if is_traced():
        return "torch.jit.trace records the operations of the equation only, not a kernel"
    if fake_mode() is not None:
        return "what is computed in a FakeTensorMode has no numbers in memory"
    return ""


def _step_refusals(call: Call) -> Iterator[str]:
    yield from numba_refusals(call.program, call.x, call.tensors())
    yield from _compiler_refusals(call)


def _compiler_refusals(call: Call) -> Iterator[str]:
    """What torch has to see where it compiles or exports."""
    if call.steps is None and torch.compiler.is_exporting():  # for those who read the program elsewhere
        yield "torch.export records the operations of a step, not a kernel"
    if call.mem_feedback is not None and torch.compiler.is_compiling():
        yield "torch.compile cannot see a product between two kernels, and traces the plain loop"


COMPILED_RECURRENCE = "the recurrent layer is compiled with the network, step by step"


def _fused_refusals(call: Call) -> Iterator[str]:
    yield from _first_of(_step_refusals(call), _feedback_refusals(call))


def _first_of(*groups: Iterator[str]) -> list[str]:
    """The reasons of the first group that has any: the others take for granted that these do not hold."""
    return next((why for group in groups if (why := [*group])), [])


def _feedback_refusals(call: Call) -> Iterator[str]:
    """Why no scan over all steps does what brings the spikes back between them."""
    if call.feedback is not None and call.steps is not None:
        if torch.compiler.is_compiling():
            yield COMPILED_RECURRENCE
        else:
            yield from cpu_recurrent.refusals(call.feedback, call.states[0])


def triton_refusals(program: Program, x: Tensor, tensors: Sequence[Tensor]) -> Iterator[str]:
    """Why no kernel of Triton's runs a program on an input and other tensors."""
    if program.untraceable:
        yield program.untraceable
    yield from triton_jit.refusals(x.device, _forced.get() == "triton")
    yield from _kernel_refusals(x, tensors)


def _triton_step_refusals(call: Call) -> Iterator[str]:
    yield from triton_refusals(call.program, call.x, call.tensors())
    yield from _compiler_refusals(call)


def _triton_fused_refusals(call: Call) -> Iterator[str]:
    if call.mem_feedback is not None:
        yield "the membrane comes back through a layer of weights, step by step"
        return
    wide = gpu_recurrent.refusals(call.states[0]) if call.feedback is not None and call.steps is not None else iter(())
    yield from _first_of(_triton_step_refusals(call), _feedback_refusals(call), wide)


def _triton_recorded_refusals(call: Call) -> Iterator[str]:
    if call.steps is None:
        yield "a single step is not recorded"
        return
    yield from _first_of(_triton_step_refusals(call), _feedback_refusals(call), cuda_graphs.refusals(call.states[0]))


def run_triton(call: Call) -> Trajectory:
    """The call by Triton's kernels, which do not refuse it."""
    if call.steps is None:
        return _run_triton_steps(call)
    if call.feedback is not None:
        return _run_recurrent(call)
    return _scanned(call, call.hoisted(), triton_jit.target_on(call.x))


def _run_triton_steps(call: Call) -> Trajectory:
    if call.mem_feedback is not None:
        return _run_recurrent(_wide(call))
    params, target = call.hoisted(), triton_jit.target_on(call.x)

    def step(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        return _scan_step(call.program, call.layer, x, states, params, target)

    return _looped(call, step)


def _run_numba(call: Call) -> Trajectory:
    if call.steps is None:
        return _run_steps(call) if call.mem_feedback is None else _run_driven_step(call, call.mem_feedback)
    if call.feedback is not None or call.mem_feedback is not None:
        return _run_recurrent(call)
    return _scanned(call, call.hoisted(), Target.NUMBA)


def _run_driven_step(call: Call, feedback: MemFeedback) -> Trajectory:
    """A step whose kernel takes several inputs in one tensor."""
    spk, *states = _one_step(call, call.hoisted(), call.x + feedback(call.states[-1]), *call.states)
    return Trajectory(spk, (), tuple(states))


def _scanned(call: Call, params: tuple[Tensor, ...], target: Target) -> Trajectory:
    """The whole scan by one kernel."""
    variant, program = variant_of(call, params, target), call.program
    spk, finals, traces = autograd.scan(
        program.key, variant, call.layer, call.steps, call.x, call.states, params, program.surrogate
    )
    asked = tuple(trace for trace in traces if trace is not None) if call.traced else ()
    return Trajectory(spk, asked, tuple(finals))


def _run_steps(call: Call) -> Trajectory:
    return _looped(call, partial(_one_step, call, call.hoisted()))


def _run_recorded(call: Call) -> Trajectory:
    return _run_recurrent(call if call.mem_feedback is None else _wide(call), recorded=True)


def _run_recurrent(call: Call, recorded: bool = False) -> Trajectory:
    params, on_triton = call.hoisted(), not call.x.is_cpu or _forced.get() == "triton"
    plan = recurrence_of(call, params, triton_jit.target_on(call.x) if on_triton else Target.NUMBA)
    x, (weight, *bias) = call.x.unsqueeze(0) if call.steps is None else call.x, call.weights()
    run = recurrent.scan(plan, x, weight, bias[0] if bias else None, call.states, params, recorded)
    if call.steps is None:
        return Trajectory(run.spk.squeeze(0), (), run.finals)
    return run if call.traced else replace(run, traces=())


def _one_step(call: Call, params: tuple[Tensor, ...], x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
    if torch.compiler.is_compiling():  # which needs the operator
        return _scan_step(call.program, call.layer, x, states, params, Target.NUMBA)
    unwrapped = [unwrapped_if_dead(state) for state in states]  # of what a transform has left
    return kernel_step(call.program, call.layer, x, unwrapped, params)


def kernel_step(
    program: Program, layer: str, x: Tensor, states: Sequence[Tensor], params: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """One step by the kernel, differentiable: the spikes and the new states.

    `params` are the hoisted values, and if anything is differentiated, nobody changes those that are not learned.
    """
    if type(params) is not Constants and all(p.numel() == 1 and not p.requires_grad for p in params):
        # as on the short way, so that a step run again within a backward saves what its first run has saved
        params = Constants.of(plain(p.detach()) for p in params)
    kinds, grad = kinds_of_step(x, states, params)
    plan = single_step.plan_of(program.key, x.dtype, kinds, grad)
    return single_step.step(plan, layer, x, states, params, program.surrogate)


def _scan_step(
    program: Program, layer: str, x: Tensor, states: Sequence[Tensor], params: tuple[Tensor, ...], target: Target
) -> tuple[Tensor, ...]:
    """The same as a scan over one step."""
    kinds, grad = kinds_of_step(x, states, params)
    # what the backward reads is a trace, since whoever gets the new states may write into them
    saved = (State.SAVED if grad else State.DROPPED,) * len(states)
    variant = Variant.of(dtype_name(x.dtype), kinds, saved, grad, target)
    spk, finals, _ = autograd.scan(program.key, variant, layer, None, x, states, params, program.surrogate)
    return (spk, *finals)


def kernel_at_hand(program: Program, x: Tensor) -> bool:
    """Whether a kernel runs a step of the program on x, whose dtype is that of the states."""
    if x.dtype not in FLOATS or _forced.get() not in (None, "numba"):
        return False
    return next(numba_refusals(program, x), None) is None


def off_the_cpu(call: Any) -> bool:
    """Whether a call is of concern to a backend beside the CPU."""
    return not call.x.is_cpu


LADDER: tuple[Backend, ...] = (
    Backend("numba", _fused_refusals, _widened(_run_numba)),
    Backend("numba, step by step", _step_refusals, _widened(_run_steps)),
    Backend("triton", _triton_fused_refusals, run_triton, off_the_cpu),
    Backend("triton, recorded", _triton_recorded_refusals, _run_recorded, off_the_cpu),
    Backend("triton, step by step", _triton_step_refusals, _run_triton_steps, off_the_cpu),
    Backend("loop", lambda call: [], _widened(_run_loop)),
)
"""Fastest first; the last always accepts."""

_forced: Scoped[str | None] = Scoped("spikeloom_backend", None, outer=True)


forced = _forced.get
"""The name of the backend that is asked for; None if there is none."""


def families() -> list[str]:
    """The names of backends, fastest first."""
    return [*dict.fromkeys(b.family for b in LADDER)]


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Within this context every neuron runs on the named backend, or raises with that backend's reasons.

    Args:
        name: "loop", the plain PyTorch loop, "numba", the fused kernels of the CPU, or "triton", those of the GPU,
            which are also interpreted on the CPU, slowly, for tests, where the environment has TRITON_INTERPRET=1.

    Raises:
        ValueError: if there is no such backend.

    The backward pass always takes the backend of its forward.

        >>> import torch, spikeloom as snn
        >>> with snn.backend("loop"):
        ...     spk, mem = snn.Leaky(beta=0.9)(torch.ones(2, 3))
    """
    known = families()
    if name not in known:
        raise ValueError(f"there is no backend {name!r}; choose one of {', '.join(known)}")
    with _forced.set(name):
        yield


def choose(call: Any, ladder: Sequence[Backend] = LADDER) -> tuple[Backend, list[str]]:
    """The backend that runs the call, and why each faster one does not; a forced backend raises if it refuses."""
    forced = _forced.get()
    reasons: dict[str, None] = {}  # each once: what refuses a scan may refuse a step too
    for candidate in ladder:
        if not candidate.concern(call) if forced is None else forced != candidate.family:
            continue
        why = [*candidate.refusals(call)]
        if not why:
            return candidate, [*reasons]
        reasons |= dict.fromkeys(f"{candidate.family}: {reason}" for reason in why)
    told = "; ".join(reasons) or f"{forced}: it has no kernel for this kind of scan"
    raise RuntimeError(f"backend {forced!r} was asked for and cannot run {call.layer}: {told}")
