"""A neuron alone: Leaky over a sequence, forward and backward, compared with other libraries and memory bandwidth."""

import time
from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

import spikeloom as snn

from . import on_jax
from .device import draw
from .peers import OURS, Neurons, by_library
from .result import Shape
from .runner import Case, Outcome, Peer, Prepare, Run, installed

BETA = 0.9
UNROLLED, STEPPED, PEER, FLOOR = "spikeloom, unrolled", "spikeloom, step by step", "snnTorch", "floor"
ALONE = "spikeloom, spikes only"
TX = ("T", "B", "N")


def current(shape: Shape) -> Tensor:
    """An input, from a fixed seed, at which some percent of the neurons fire at each step; it requires its gradient."""
    x = torch.rand(shape, generator=draw(1)) * 0.4 - 0.05
    return x.requires_grad_()


def outcome(spk: Tensor, x: Tensor) -> Outcome:
    """Run backward from the sum of all spikes: the work of every contestant."""
    (grad,) = torch.autograd.grad(spk.sum(), x)
    return {"spikes": spk.detach(), "input gradients": grad}


def unrolled(x: Tensor) -> Run:
    """One call over all steps."""
    lif = snn.Leaky(beta=BETA)

    def run() -> Outcome:
        snn.utils.reset(lif)
        spk, _ = snn.unroll(lif, x)
        return outcome(spk, x)

    return run


def spikes_alone(x: Tensor) -> Run:
    """The same without requesting the membranes, as in the middle of a network."""
    lif = snn.Leaky(beta=BETA, init_hidden=True)

    def run() -> Outcome:
        snn.utils.reset(lif)
        return outcome(snn.unroll(lif, x), x)

    return run


def stepped_by(library: ModuleType, x: Tensor) -> Run:
    """The loop over time of snnTorch's tutorials, for either library."""
    lif = library.Leaky(beta=BETA)

    def run() -> Outcome:
        mem, spikes = lif.reset_mem(), []
        for x_t in x.unbind(0):
            spk, mem = lif(x_t, mem)
            spikes.append(spk)
        return outcome(torch.stack(spikes), x)

    return run


def stepped(x: Tensor) -> Run:
    """spikeloom, called once per step."""
    return stepped_by(snn, x)


def peer(x: Tensor) -> Run:
    """snnTorch, called once per step."""
    return stepped_by(installed("snntorch"), x)


def over_time(make: Callable[[float], Neurons], x: Tensor) -> Run:
    """Neurons of any library over all steps, in its own way."""
    neurons = make(BETA)
    return lambda: outcome(neurons(x), x)


def by_steps(make: Callable[[float], Neurons], x: Tensor) -> Run:
    """The same in a loop over steps."""
    neurons = make(BETA)
    return lambda: outcome(neurons.by_steps(x), x)


def floor(x: Tensor) -> Run:
    """The minimum memory traffic: membranes from the input, spikes from them, the gradient from them.

    Three PyTorch operations, each of which reads one sequence and writes another into preallocated memory.
    """
    x = x.detach()
    mem, spk, grad = (torch.empty_like(x) for _ in range(3))

    def run() -> Outcome:
        torch.mul(x, BETA, out=mem)
        torch.sub(mem, 1, out=spk)
        torch.mul(mem, BETA, out=grad)
        return {}

    return run


def floor_by_steps(x: Tensor) -> Run:
    """The same three operations per step."""
    floors = [floor(x_t) for x_t in x.detach()]

    def run() -> Outcome:
        for each in floors:
            each()
        return {}

    return run


def layers(x: Tensor) -> str:
    """The backend that runs the unrolled neuron."""
    return f"{UNROLLED}:\n{snn.explain(snn.Leaky(beta=BETA), x)}"


LEAKY = Case(
    name="leaky",
    title="Leaky over [T, B, N], forward and backward, float32",
    label="Leaky [{T}, {B}, {N}], training",
    axes=TX,
    shapes=((500, 16, 512), (500, 1, 128)),
    small=(12, 2, 3),
    inputs=current,
    contestants={UNROLLED: unrolled, STEPPED: stepped, PEER: peer, FLOOR: floor},
    reference=STEPPED,
    ours=UNROLLED,
    floor=FLOOR,
    unchecked=(FLOOR,),
    peers={
        "spikeloom, their equation": Peer(partial(over_time, OURS.neurons), partial(over_time, OURS.twin), OURS.note)
    }
    | by_library(lambda make: partial(over_time, make))
    | on_jax.where_installed(partial(on_jax.bare, beta=BETA), partial(over_time, on_jax.twin)),
    sweeps={
        "T": tuple((steps, 16, 512) for steps in (10, 33, 100, 250, 500, 1000, 2000)),
        "N": tuple((500, 16, size) for size in (31, 64, 127, 256, 500, 512, 1000, 2048)),
    },
    remarks=layers,
    standard=True,
    memory=True,
)

SPIKES = Case(
    name="spikes",
    title="Leaky without its membranes, over [T, B, N], forward and backward, float32",
    axes=TX,
    shapes=((500, 16, 512),),
    small=(12, 2, 3),
    inputs=current,
    contestants={ALONE: spikes_alone, UNROLLED: unrolled, STEPPED: stepped, FLOOR: floor},
    reference=STEPPED,
    ours=ALONE,
    floor=FLOOR,
    unchecked=(FLOOR,),
)

STEP = Case(
    name="step",
    title="Leaky in a loop over steps, [T, B, N], forward and backward, float32",
    label="Leaky [{T}, {B}, {N}], loop over steps, training",
    axes=TX,
    shapes=((100, 16, 512),),
    small=(12, 2, 3),
    inputs=current,
    contestants={STEPPED: stepped, PEER: peer, FLOOR: floor_by_steps},
    reference=PEER,
    ours=STEPPED,
    floor=FLOOR,
    unchecked=(FLOOR,),
    peers=by_library(lambda make: partial(by_steps, make)),
)


# -- the cost of a step in a long sequence -----------------------------------------------------------------------------

PARTS = 8
WHOLE, SHORT = "spikeloom, one call", f"spikeloom, {PARTS} chunks"


def in_parts(parts: int) -> Prepare:
    """The sequence in chunks, each from the last state of the one before, with gradients inside a chunk.

    Each chunk is timed separately and released before the next, to measure the cost per step.
    """

    def prepare(x: Tensor) -> Run:
        lif = snn.Leaky(beta=BETA, init_hidden=True)
        chunks = [chunk.requires_grad_() for chunk in x.detach().chunk(parts)]

        def run() -> Outcome:
            snn.utils.reset(lif)
            counts, seconds = [], 0.0
            for chunk in chunks:
                snn.utils.detach(lif)
                begun = time.perf_counter()
                found = outcome(snn.unroll(lif, chunk), chunk)
                seconds += time.perf_counter() - begun
                counts.append(found["spikes"].sum((1, 2)))
                del found
            return {"spikes": torch.cat(counts), "seconds": torch.tensor(seconds, dtype=torch.float64)}

        return run

    return prepare


LONG = Case(
    name="long",
    title=f"Leaky over a long sequence [T, B, N], in one call and in {PARTS} chunks, forward and backward, float32",
    label="Leaky [{T}, {B}, {N}], training",
    axes=TX,
    shapes=((4000, 16, 512),),
    small=(16, 2, 3),
    inputs=current,
    contestants={WHOLE: in_parts(1), SHORT: in_parts(PARTS), FLOOR: floor},
    reference=WHOLE,
    ours=WHOLE,
    floor=FLOOR,
    unchecked=(FLOOR,),
)
