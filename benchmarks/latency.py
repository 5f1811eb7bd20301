"""Latency of a network: batch size 1, one step at a time."""

import time
from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
from torch import Tensor, nn

import spikeloom as snn

from .feedforward import CURRENT
from .leaky import PEER, STEPPED
from .networks import exact, spikes
from .peers import Neurons, by_library
from .result import Shape
from .runner import Case, Outcome, Run, installed

DENSITY = 0.05
PRODUCT = "Linear alone"


def trains(shape: Shape) -> Tensor:
    """Spikes [T, 1, N]."""
    steps, size = shape
    return spikes((steps, 1, size), DENSITY)


def linear(x: Tensor) -> nn.Linear:
    """The weights, from a fixed seed."""
    size = x.shape[-1]
    layer = nn.Linear(size, size)
    exact(nn.Sequential(layer), (CURRENT / DENSITY**0.5,))
    return layer


def by_the_step(step: Callable[[Tensor], Tensor], restart: Callable[[], object], x: Tensor) -> Run:
    """Mean time of a step over a sequence, in seconds."""

    def run() -> Outcome:
        restart()
        with torch.no_grad():
            begun = time.perf_counter()
            spk = [step(x_t) for x_t in x.unbind(0)]
            seconds = (time.perf_counter() - begun) / len(x)
        return {"spikes": torch.stack(spk), "seconds": torch.tensor(seconds, dtype=torch.float64)}

    return run


def stepped_by(library: ModuleType, x: Tensor) -> Run:
    """spikeloom or snnTorch."""
    lif = library.Leaky(beta=0.5, init_hidden=True)
    return by_the_step(nn.Sequential(linear(x), lif), lif.reset_mem, x)


def another(make: Callable[[float], Neurons], x: Tensor) -> Run:
    """Another library's neurons."""
    layer, neurons = linear(x), make(0.5)
    return by_the_step(lambda x_t: neurons.step(layer(x_t)), neurons.restart, x)


def product(x: Tensor) -> Run:
    """The Linear layer of each step."""
    return by_the_step(linear(x), lambda: None, x)


LATENCY = Case(
    name="latency",
    title="Linear + Leaky at batch size 1, one step of T with N inputs, inference",
    label="Linear + Leaky [1, 1, {N}], one step, inference",
    axes=("T", "N"),
    shapes=((500, 128), (500, 512)),
    small=(12, 33),
    inputs=trains,
    contestants={
        STEPPED: partial(stepped_by, snn),
        PEER: lambda x: stepped_by(installed("snntorch"), x),
        PRODUCT: product,
    },
    reference=PEER,
    ours=STEPPED,
    floor=PRODUCT,
    unchecked=(PRODUCT,),
    peers=by_library(lambda make: partial(another, make)),
)
