"""Running a cell on a chosen backend, and everything that comes out of it, gradients included."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import spikeloom as snn
from spikeloom import surrogate
from spikeloom.engine.graph.program import program_for
from spikeloom.engine.run.backends import choose
from spikeloom.engine.run.call import Call
from spikeloom.engine.run.reference import Trajectory

from ..cases import CellCase
from ..oracle import Outcome

ATAN = surrogate.atan()
OUTPUTS = ("spk", "traces", "final_states")
NEAR = 1e-4
"""Inputs that bring a threshold closer than this are drawn again where rounding may decide about a spike."""


@dataclass(frozen=True)
class Job:
    """A cell, its inputs, and what is asked of it.

    Args:
        case: the cell.
        steps: T; None is one step without a time dimension.
        shape: of one step.
        static: whether the input is the same at every step.
        learn: which of x, states and params want their gradient; None is all.
        outputs: which outputs the gradient comes from.
        traced: whether the states of every step are wanted.
        device: where all tensors live.
    """

    case: CellCase
    steps: int | None
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    spike: Callable[[Tensor], Tensor] = ATAN
    static: bool = False
    learn: tuple[str, ...] | None = None
    outputs: tuple[str, ...] = OUTPUTS
    traced: bool = True
    seed: int = 0
    device: str = "cpu"


def leaves(job: Job) -> dict[str, Tensor]:
    """The tensors of a job by name: x, then the states, then the parameters; those to be learned require grad."""
    draw = torch.Generator().manual_seed(job.seed)
    lead = () if job.steps is None else (1,) if job.static else (job.steps,)
    tensors = {"x": 2.5 * torch.rand(lead + job.shape, generator=draw, dtype=torch.float64) - 0.75}
    for name in job.case.cell.states:
        tensors[name] = torch.rand(job.shape, generator=draw, dtype=torch.float64) - 0.25
    for name, value in job.case.params.items():
        if isinstance(value, tuple):
            low, high = value
            own = torch.rand(job.shape[-1:], generator=draw, dtype=torch.float64)
            tensors[name] = low + (high - low) * own
        else:
            tensors[name] = torch.tensor(value, dtype=torch.float64)
    learned = tuple(tensors) if job.learn is None else job.learn
    return {name: t.to(job.device, job.dtype).requires_grad_(name in learned) for name, t in tensors.items()}


def call_of(job: Job, tensors: Mapping[str, Tensor]) -> Call:
    """The job as the engine takes it."""
    cell = job.case.cell
    states = tuple(tensors[name] for name in cell.states)
    params = {name: tensors[name] for name in cell.params}
    return Call(program_for(cell, job.spike), tensors["x"], job.steps, states, params, job.traced, "the test")


def run(backend: str, call: Call) -> Trajectory:
    """The call on that backend, which must accept it."""
    with snn.backend(backend):
        machine, _ = choose(call)
        return machine.run(call)


def weights(like: Tensor, index: int) -> Tensor:
    """Fixed numbers, so that every element of every output pulls with its own strength."""
    draw = torch.Generator().manual_seed(100 + index)
    return torch.rand(like.shape, generator=draw, dtype=torch.float64).to(like) - 0.3


def outcome(backend: str, job: Job) -> Outcome:
    """Spikes, states and every gradient of a job."""
    tensors = leaves(job)
    trajectory = run(backend, call_of(job, tensors))
    names = job.case.cell.states
    states = {f"{n} at every step": t for n, t in zip(names, trajectory.traces, strict=False)}
    states |= {f"last {n}": t for n, t in zip(names, trajectory.final_states, strict=True)}
    by_output = {"spk": (trajectory.spk,), "traces": trajectory.traces, "final_states": trajectory.final_states}
    return Outcome(
        {"spk": trajectory.spk.detach()},
        {name: t.detach() for name, t in states.items()},
        gradients([t for name in job.outputs for t in by_output[name]], tensors, backend),
    )


def gradients(
    outputs: Sequence[Tensor], tensors: Mapping[str, Tensor], backend: str = "numba"
) -> dict[str, Tensor | None]:
    """Of the weighted sum of the outputs, for each tensor that wants one. Kernels write zeros where the loop has no
    gradient; one that a kernel leaves out is None, and so differs."""
    total = sum((out * weights(out, i)).sum() for i, out in enumerate(outputs) if out.requires_grad)
    learned = {name: t for name, t in tensors.items() if t.requires_grad}
    if not learned or not isinstance(total, Tensor):
        return {}
    grads = torch.autograd.grad(total, list(learned.values()), allow_unused=True)
    if backend == "loop":
        grads = tuple(torch.zeros_like(t) if g is None else g for t, g in zip(learned.values(), grads, strict=True))
    return dict(zip(learned, grads, strict=True))


def away_from_thresholds(job: Job) -> Job:
    """The job with inputs that no rounding can push over a threshold, where the cell rounds differently in a kernel."""
    if job.case.exact:
        return job
    drawn = (replace(job, seed=job.seed + 1000 * again) for again in range(100))
    return next(drawing for drawing in drawn if _closest(drawing) > NEAR)


def _closest(job: Job) -> float:
    seen = []

    def watching(u: Tensor) -> Tensor:
        seen.append(float(u.detach().abs().min()))
        return job.spike(u)

    with torch.no_grad():
        run("loop", call_of(replace(job, spike=watching), leaves(job)))
    return min(seen)
