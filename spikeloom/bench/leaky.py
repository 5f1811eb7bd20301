"""The bare neuron: Leaky over a sequence, forward and backward, against snnTorch and the speed of memory; and the
sharing of that work among threads.
"""

import time
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

import spikeloom as snn

from ..scan import threads
from .runner import Case, Outcome, Run, Shape, installed

BETA = 0.9
UNROLLED, STEPPED, PEER, FLOOR = "spikeloom, unrolled", "spikeloom, step by step", "snnTorch", "floor"


def current(shape: Shape) -> Tensor:
    """An input that makes some percent of the neurons fire at each step: the same each time; it wants its gradient."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 0.4 - 0.05
    return x.requires_grad_()


def outcome(spk: Tensor, x: Tensor) -> Outcome:
    """The backward pass of the sum of all spikes: the work that every contestant does."""
    (grad,) = torch.autograd.grad(spk.sum(), x)
    return {"spikes": spk.detach(), "input gradients": grad}


def unrolled(x: Tensor) -> Run:
    """One call over all time."""
    lif = snn.Leaky(beta=BETA)

    def run() -> Outcome:
        snn.utils.reset(lif)
        spk, _ = snn.unroll(lif, x)
        return outcome(spk, x)

    return run


def stepped_by(library: ModuleType, x: Tensor) -> Run:
    """The loop over time that snnTorch's tutorials write; both libraries read it alike."""
    lif = library.Leaky(beta=BETA)

    def run() -> Outcome:
        mem, spikes = lif.reset_mem(), []
        for x_t in x.unbind(0):
            spk, mem = lif(x_t, mem)
            spikes.append(spk)
        return outcome(torch.stack(spikes), x)

    return run


def peer(x: Tensor) -> Run:
    """snnTorch called once per step."""
    return stepped_by(installed("snntorch"), x)


def floor(x: Tensor) -> Run:
    """Membranes from the input, spikes from them, the gradient from them: these bytes must move, whatever is computed.

    Three torch operations, each reading one sequence and writing another into memory that exists already.
    """
    x = x.detach()
    mem, spk, grad = (torch.empty_like(x) for _ in range(3))

    def run() -> Outcome:
        torch.mul(x, BETA, out=mem)
        torch.sub(mem, 1, out=spk)
        torch.mul(mem, BETA, out=grad)
        return {}

    return run


def layers(x: Tensor) -> str:
    """Which backend runs the unrolled neuron, so that a slow result explains itself."""
    return f"{UNROLLED}:\n{snn.explain(snn.Leaky(beta=BETA), x)}"


LEAKY = Case(
    name="leaky",
    title="Leaky over [T, B, N], forward and backward, float32",
    axes=("T", "B", "N"),
    shapes=((500, 16, 512), (500, 1, 128)),
    inputs=current,
    contestants={
        UNROLLED: unrolled,
        STEPPED: lambda x: stepped_by(snn, x),
        PEER: peer,
        FLOOR: floor,
    },
    reference=STEPPED,
    peer=PEER,
    floor=FLOOR,
    unchecked=(FLOOR,),
    remarks=layers,
)


# -- one thread or all -------------------------------------------------------------------------------------------------

PAUSE = 0.005
"""Seconds after which idle OpenMP threads have fallen asleep and must be woken."""


def shared_from(work: int, pause: float = 0.0) -> Callable[[Tensor], Run]:
    """The unrolled neuron, shared among torch's threads from so many element-steps on, after a pause.

    The gradient comes in ready made: torch would share the sum of the spikes by rules of its own.
    """

    def prepare(x: Tensor) -> Run:
        lif, ones = snn.Leaky(beta=BETA), torch.ones(()).expand_as(x)

        def run() -> Outcome:
            snn.utils.reset(lif)
            time.sleep(pause)
            usual, threads.SERIAL_BELOW = threads.SERIAL_BELOW, work
            begun = time.perf_counter()
            try:
                spk, _ = snn.unroll(lif, x)
                (grad,) = torch.autograd.grad(spk, x, ones)
            finally:
                threads.SERIAL_BELOW = usual
            seconds = torch.tensor(time.perf_counter() - begun, dtype=torch.float64)
            return {"spikes": spk.detach(), "input gradients": grad, "seconds": seconds}

        return run

    return prepare


NEVER = 1 << 62
ALONE = "one thread"

THREADS = Case(
    name="threads",
    title="Leaky over [T, M], forward and backward, on one thread and on all that torch has",
    axes=("T", "M"),
    shapes=tuple((100, m) for m in (100, 300, 600, 1000, 2000, 3000, 6000, 10_000, 30_000, 100_000)),
    inputs=current,
    contestants={
        ALONE: shared_from(NEVER),
        "all threads": shared_from(0),
        f"{ALONE}, after a pause": shared_from(NEVER, PAUSE),
        "all threads, after a pause": shared_from(0, PAUSE),
    },
    reference=ALONE,
    peer=ALONE,
    standard=False,
)
