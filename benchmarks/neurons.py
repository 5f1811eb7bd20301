"""Every elementwise neuron over a sequence, forward and backward, compared with snnTorch's neuron of that name, or
with the plain loop over the equation.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import spikeloom as snn

from .device import fused
from .leaky import PEER, STEPPED, UNROLLED, current, outcome
from .runner import Case, Outcome, Run, installed

REFERENCE = "the plain loop"
SIZES = (500, 16, 512)

Make = Callable[[ModuleType], Any]
"""Creates the neuron of a library."""

SHARED: dict[str, Make] = {
    "synaptic": lambda library: library.Synaptic(alpha=0.8, beta=0.7, init_hidden=True),
    "rleaky": lambda library: library.RLeaky(beta=0.9, V=-0.2, all_to_all=False, init_hidden=True),
    "rsynaptic": lambda library: library.RSynaptic(alpha=0.8, beta=0.7, V=-0.2, all_to_all=False, init_hidden=True),
    "lapicque": lambda library: library.Lapicque(R=8.0, C=1.0, init_hidden=True),
    "alpha": lambda library: library.Alpha(alpha=0.9, beta=0.8, threshold=0.3, init_hidden=True),
    "delta-leaky": lambda library: library.DeltaLeaky(0.3, beta=0.9, init_hidden=True),
}
"""Neurons that snnTorch has too."""

FURTHER: dict[str, Make] = {
    "integrate-and-fire": lambda library: library.IF(init_hidden=True),
    "leaky-integrator": lambda library: library.LI(init_hidden=True),
    "parametric": lambda library: library.ParametricLIF(threshold=0.2, init_hidden=True),
    "adaptive-threshold": lambda library: library.ALIF(init_hidden=True),
    "adaptive-current": lambda library: library.AdLIF(beta=0.5, threshold=0.1, init_hidden=True),
    "quadratic": lambda library: library.QIF(threshold=0.2, v_critical=0.1, init_hidden=True),
    "exponential": lambda library: library.EIF(threshold=0.3, rheobase=0.1, init_hidden=True),
    "izhikevich": lambda library: library.Izhikevich(init_hidden=True),
    "resonate-and-fire": lambda library: library.ResonateFire(threshold=0.5, init_hidden=True),
    "refractory": lambda library: library.CuBaLIF(init_hidden=True),
}
"""Neurons that only spikeloom has."""


def first(outs: Any) -> Tensor:
    """The spikes in the outputs of a call."""
    spk: Tensor = outs[0] if isinstance(outs, tuple) else outs
    return spk


def unrolled(make: Make, backend: str | None = None) -> Callable[[Tensor], Run]:
    """One call over all steps."""

    def prepare(x: Tensor) -> Run:
        neuron, name = make(snn), backend or fused()

        def run() -> Outcome:
            neuron.reset_mem()
            with snn.backend(name):
                return outcome(first(snn.unroll(neuron, x)), x)

        return run

    return prepare


def stepped(make: Make, library: str = "spikeloom") -> Callable[[Tensor], Run]:
    """The usual loop over time of snnTorch code."""

    def prepare(x: Tensor) -> Run:
        neuron = make(installed(library))

        def run() -> Outcome:
            neuron.reset_mem()
            return outcome(torch.stack([first(neuron(x_t)) for x_t in x.unbind(0)]), x)

        return run

    return prepare


def case(name: str, make: Make) -> Case:
    """The case of one neuron."""
    kind, there = type(make(snn)).__name__, name in SHARED
    slow = {PEER: stepped(make, "snntorch")} if there else {REFERENCE: unrolled(make, "loop")}
    return Case(
        name=name,
        title=f"{kind} over [T, B, N], forward and backward, float32",
        axes=("T", "B", "N"),
        shapes=(SIZES,),
        small=(12, 2, 3),
        inputs=current,
        contestants={UNROLLED: unrolled(make), STEPPED: stepped(make), **slow},
        reference=STEPPED,
        ours=UNROLLED,
    )


NEURONS = tuple(case(name, make) for name, make in {**SHARED, **FURTHER}.items())
