"""Neurons over whole sequences, forward and backward, compared with snnTorch's: one call of the same layer, with the
same weights. The membranes round differently, so the sum of the spikes is compared, not each spike.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import spikeloom as snn

from .leaky import PEER, current
from .result import Shape
from .runner import Case, Outcome, Run, installed

OURS = "spikeloom"

Make = Callable[[ModuleType, int], Any]
"""Creates the layer of a library for a number of input features."""

WINDOW, NEURONS, SIDE = 64, 256, 16


def memory(library: ModuleType, features: int) -> Any:
    """An associative memory with gates close to one, because snnTorch divides by their product."""
    layer = library.AssociativeLeaky(features, SIDE, SIDE, SIDE * SIDE)
    with torch.no_grad():
        layer.to_alpha.bias.add_(8.0)
    return layer


LAYERS: dict[str, tuple[Make, tuple[Shape, ...]]] = {
    "state-leaky": (lambda library, n: library.StateLeaky(0.9, n), ((500, 4, 64), (4000, 4, 64))),
    "state-leaky-window": (
        lambda library, n: library.StateLeaky(0.9, n, kernel_truncation_steps=WINDOW),
        ((500, 4, 64), (4000, 4, 64)),
    ),
    "linear-leaky": (lambda library, n: library.LinearLeaky(0.9, n, NEURONS), ((500, 4, 64),)),
    "leaky-parallel": (lambda library, n: library.LeakyParallel(n, NEURONS, 0.9), ((500, 16, 64),)),
    "associative-leaky": (memory, ((500, 4, 64),)),
}
"""Each layer and the sizes at which it is timed."""


def called(make: Make, library: str) -> Callable[[Tensor], Run]:
    """One call over all steps, and backward from the sum of its first output, to the input and all weights."""

    def prepare(x: Tensor) -> Run:
        package = installed(library)
        torch.manual_seed(1)
        layer = make(package, x.shape[-1])
        wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]

        def run() -> Outcome:
            outs = layer(x)
            spk, *rest = outs if isinstance(outs, tuple) else (outs,)
            total = spk.sum()
            grads = torch.autograd.grad(total, wanted)
            found = {"sum of spikes": total.detach()}
            found |= {f"membranes {i}": mem.detach() for i, mem in enumerate(rest)}
            return found | {f"gradient {i}": grad for i, grad in enumerate(grads)}

        return run

    return prepare


def case(name: str, make: Make, shapes: tuple[Shape, ...]) -> Case:
    """The case of one layer."""
    return Case(
        name=name,
        title=f"{type(make(snn, 4)).__name__}{f', last {WINDOW} steps' if 'window' in name else ''} over [T, B, N], "
        "forward and backward, float32",
        axes=("T", "B", "N"),
        shapes=shapes,
        small=(100, 2, 8),
        inputs=current,
        contestants={OURS: called(make, "spikeloom"), PEER: called(make, "snntorch")},
        reference=OURS,
        ours=OURS,
    )


PARALLEL = tuple(case(name, *layer) for name, layer in LAYERS.items())
