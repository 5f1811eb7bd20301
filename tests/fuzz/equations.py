"""Random equations on a backend against the plain loop: spikes equal, states and gradients close."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import spikeloom as snn
from spikeloom import ops, surrogate
from spikeloom.engine.cpu import launch, single_step

from ..oracle import TOLERANCE
from .interpreted import Interpreted
from .program import Program, drawn, smaller

NEAR = 1e-3
"""Of a program whose operations are not exact, spikes are compared where no threshold is closer than this."""

SPACE = {
    "snn": snn,
    "ops": ops,
    "surrogate": surrogate,
    "torch": torch,
    "inf": math.inf,
    "nan": math.nan,
    "__name__": __name__,
}

HEADER = """\
import torch, spikeloom as snn
from math import inf, nan
from spikeloom import ops, surrogate

"""

CALLS = {
    "unroll": "snn.unroll(lif, x)",
    "static": "snn.unroll(lif, x, steps={steps})",
    "steps": "lif(x[0])  # and so on, each step from the states of the one before, the first from 0.5",
    "hidden": "snn.unroll(lif, x)",
    "checkpoint": "snn.unroll(lif, x, checkpoint=2)",
}


def neuron_of(program: Program, **options: Any) -> Any:
    """A neuron of the program's equation."""
    space = dict(SPACE)
    exec(program.equation, space)
    keys = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return eval(f"neuron({program.options}, {keys})", space)


def input_of(program: Program) -> Tensor:
    """Numbers, of which many are equal to others or to those that equations have."""
    draw = np.random.default_rng(program.seed)
    lead = () if program.mode == "static" else (program.steps,)
    shape = (*lead, *program.shape)
    grid = draw.choice([-2.0, -1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 1.0, 2.0], shape)
    free = draw.normal(size=shape)
    return torch.from_numpy(np.where(draw.random(shape) < 0.6, grid, free)).to(getattr(torch, program.dtype))


def outcome(program: Program, near: list[float] | None = None) -> dict[str, Tensor | None]:
    """All that a run gives, by name, on the backend in force.

    Args:
        near: if given, is filled with how close to zero the spike function's arguments come.
    """
    hidden = program.mode in ("hidden", "checkpoint")
    neuron, x = neuron_of(program, init_hidden=hidden), input_of(program).requires_grad_()
    if near is not None:
        own = neuron.spike_grad

        def watched(u: Tensor) -> Tensor:
            near.append(float(u.detach().abs().min()))
            return own(u)

        neuron.spike_grad = watched
    with torch.random.fork_rng():
        if program.mode == "steps":
            outs, given = [], []
            states = [torch.full(program.shape, 0.5, dtype=x.dtype, requires_grad=True) for _ in program.states]
            given = list(states)
            for each in x:
                spk, *states = neuron(each, *states)
                outs.append((spk, *states))
            results = [torch.stack(each) for each in zip(*outs, strict=True)]
        else:
            steps = {"steps": program.steps} if program.mode == "static" else {}
            chunk = {"checkpoint": 2} if program.mode == "checkpoint" else {}
            outs, given = snn.unroll(neuron, x, **steps, **chunk), []
            results = [outs] if hidden else list(outs)
    message = dict(zip(("spk", *program.states), results, strict=False))
    total = sum((_weight(out, k) * out).sum() for k, out in enumerate(message.values()))
    leaves = {"x": x, **dict(neuron.named_parameters()), **{f"first {k}": s for k, s in enumerate(given)}}
    grads = [None] * len(leaves)
    if isinstance(total, Tensor) and total.requires_grad:
        grads = torch.autograd.grad(total, [*leaves.values()], allow_unused=True)
    found: dict[str, Tensor | None] = {name: out.detach() for name, out in message.items()}
    for (name, leaf), g in zip(leaves.items(), grads, strict=True):
        found[f"grad {name}"] = torch.zeros_like(leaf) if g is None else g
    return found


def _weight(like: Tensor, k: int) -> Tensor:
    draw = np.random.default_rng(k)
    return torch.from_numpy(draw.integers(1, 5, like.shape) / 4).to(like.dtype)


def difference(program: Program, backend: str) -> str:
    """What differs between a backend and the loop, or nothing."""
    near: list[float] = []
    with np.errstate(all="ignore"):
        with snn.backend("loop"):
            wanted = outcome(program)
            if not program.exact:
                outcome(program, near)
        if near and not min(near) > NEAR:
            return ""
        with backend_of(backend):
            got = outcome(program)
    finite = all(bool(out.isfinite().all()) for name, out in wanted.items() if not name.startswith("grad"))
    for name, theirs in wanted.items():
        ours, gradient = got[name], name.startswith("grad")
        if gradient and (program.wild or not finite):
            continue
        if not _alike(ours, theirs, exact=program.exact and not gradient):
            if gradient and _infinite(program):
                return ""
            return f"{name}: {ours.flatten().tolist()[:12]} for {theirs.flatten().tolist()[:12]}"
    return ""


class _Watch(TorchDispatchMode):
    """Looks whether anything infinite, or no number, comes up."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.is_floating_point() and not bool(out.isfinite().all()):
            self.found = True
        return out


def _infinite(program: Program) -> bool:
    """Whether infinities come up on the way: a zero times one of them is NaN, if anybody multiplies it."""
    with snn.backend("loop"), _Watch() as watch:
        outcome(program)
    return watch.found


def _alike(ours: Tensor, theirs: Tensor, exact: bool) -> bool:
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    if exact:
        return bool(((ours == theirs) | (ours.isnan() & theirs.isnan())).all())
    whole = theirs[theirs.isfinite()].abs()
    scale = float(whole.max()) if whole.numel() else 0.0
    tolerance = TOLERANCE[theirs.dtype]
    atol = tolerance["atol"] + tolerance["rtol"] * scale
    return torch.allclose(ours, theirs, rtol=tolerance["rtol"], atol=atol, equal_nan=True)


@contextmanager
def backend_of(name: str) -> Iterator[None]:
    """A backend; "source" is Numba's, whose kernels Python runs as they are written."""
    if name != "source":
        with snn.backend(name):
            yield
        return
    launch.kernel.cache_clear()
    try:
        with (
            patch.object(launch, "compiled", Interpreted),
            patch.object(single_step, "plan_of", single_step.Plan),
            snn.backend("numba"),
        ):
            yield
    finally:
        launch.kernel.cache_clear()


def shrunk(program: Program, differs: Callable[[Program], bool]) -> Program:
    """The smallest program found that still differs."""
    found = True
    while found:
        found = False
        for simpler in smaller(program):
            try:
                found = differs(simpler)
            except Exception:
                continue
            if found:
                program = simpler
                break
    return program


def report(program: Program, backend: str) -> str:
    """A program as source to paste."""
    return "\n".join(
        (
            f"# seed {program.seed}, on {backend}: {difference(program, backend)}",
            f"# {program.mode}, {program.dtype}, T = {program.steps}, a step of {program.shape}",
            HEADER + program.equation,
            f"x = torch.tensor({input_of(program).tolist()}, dtype=torch.{program.dtype}, requires_grad=True)",
            'for name in ("numba", "loop"):',
            "    with snn.backend(name):",
            f"        lif = neuron({program.options}, init_hidden={program.mode in ('hidden', 'checkpoint')})",
            f"        print({CALLS[program.mode].format(steps=program.steps)})",
            f"# {program!r}",
        )
    )


def run(count: int, seed: int, backend: str = "source", progress: Callable[[str], Any] | None = None) -> list[str]:
    """That many programs from a seed on; what differs, each as the smallest program found, as source."""
    found = []
    for k in range(seed, seed + count):
        program = drawn(k)
        try:
            message = difference(program, backend)
        except Exception as error:
            found.append(f"# seed {k}: {type(error).__name__}: {error}\n{program.equation}\n# {program!r}")
            message = ""
        if message:
            found.append(report(shrunk(program, lambda p: bool(difference(p, backend))), backend))
        if progress is not None and (message or (k - seed) % 500 == 499):
            progress(f"{k - seed + 1} of {count} programs, {len(found)} differ\n" + (found[-1] if message else ""))
    return found
