"""Multithreading: Leaky on one thread and on all, with PyTorch's threads active and asleep."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

import spikeloom as snn

from .leaky import BETA, current
from .runner import Case, Outcome, Run

PAUSE = 0.005
"""Seconds after which idle OpenMP threads have fallen asleep and must be woken."""


def shared_from(work: int, pause: float = 0.0) -> Callable[[Tensor], Run]:
    """The unrolled neuron, multithreaded from a number of element-steps on, after a pause.

    The gradient is passed in, because PyTorch would parallelize the sum of the spikes by its own rules.
    """

    def prepare(x: Tensor) -> Run:
        lif, ones = snn.Leaky(beta=BETA), torch.ones(()).expand_as(x)

        def run() -> Outcome:
            snn.utils.reset(lif)
            time.sleep(pause)
            with snn.tuning(serial_below=work):
                begun = time.perf_counter()
                spk, _ = snn.unroll(lif, x)
                (grad,) = torch.autograd.grad(spk, x, ones)
                ended = time.perf_counter()
            seconds = torch.tensor(ended - begun, dtype=torch.float64)
            return {"spikes": spk.detach(), "input gradients": grad, "seconds": seconds}

        return run

    return prepare


NEVER = 1 << 62
ALONE = "one thread"

THREADS = Case(
    name="threads",
    title="Leaky over [T, M], forward and backward, on one thread and on all threads of PyTorch",
    axes=("T", "M"),
    shapes=tuple((100, m) for m in (100, 300, 600, 1000, 2000, 3000, 6000, 10_000, 30_000, 100_000)),
    small=(10, 20),
    inputs=current,
    contestants={
        ALONE: shared_from(NEVER),
        "all threads": shared_from(0),
        f"{ALONE}, after a pause": shared_from(NEVER, PAUSE),
        "all threads, after a pause": shared_from(0, PAUSE),
    },
    reference=ALONE,
    ours=ALONE,
)
