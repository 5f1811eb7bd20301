"""How much an approximate graph differs: the network itself beside a reader of its graph that follows NIR."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..._torch import tree_leaves
from ._import import import_from_nir
from ._metadata import note_of
from ._network import clear

STEPS = 100


@dataclass(frozen=True)
class Report:
    """The outputs of a network and of a reader of its graph on the same input.

    Args:
        values: how many values of spikes were compared.
        differing: how many of them differ.
        spikes_here, spikes_there: the spikes of the network, and those of the reader.
        steps: how many steps were compared.
    """

    values: int
    differing: int
    spikes_here: int
    spikes_there: int
    steps: int

    def __str__(self) -> str:
        return (
            f"For a reader that follows NIR, {self.differing} of {self.values} output values differ over {self.steps} "
            f"steps of the validation input: {self.spikes_there} spikes instead of {self.spikes_here}"
        )


def compare(
    run: Callable[..., Any],
    net: nn.Module,
    graph: Any,
    samples: Sequence[Tensor],
    validation: Tensor | Sequence[Tensor] | None,
    read_out: Sequence[int],
) -> Report:
    """Run the network, and its graph by NIR's equations, on the validation inputs.

    Args:
        run: one step of the network, from its inputs.
        net: the network.
        graph: its graph.
        samples: the inputs of one step.
        validation: the inputs of all steps; the samples at each of them if None.
        read_out: the places of the outputs of the graph among the tensors that the network returns.
    """
    reader = import_from_nir(graph, dt=note_of(graph)["dt"], reset="zero").eval()
    clear(net)
    values = differing = here = there = 0
    series = _series(samples, validation)
    with torch.no_grad():
        for inputs in series:
            leaves, outs = tree_leaves(run(*inputs)), tree_leaves(reader(*inputs)[0])
            for a, b in zip([leaves[i] for i in read_out], outs, strict=True):
                values, differing = values + a.numel(), differing + int((a != b).sum())
                here, there = here + int((a != 0).sum()), there + int((b != 0).sum())
    return Report(values, differing, here, there, len(series))


def _series(samples: Sequence[Tensor], validation: Tensor | Sequence[Tensor] | None) -> list[tuple[Tensor, ...]]:
    """The inputs of each step."""
    if validation is None:
        return [tuple(samples)] * STEPS
    inputs = (validation,) if isinstance(validation, Tensor) else tuple(validation)
    fit = len(inputs) == len(samples) and all(x.shape[2:] == s.shape[1:] for x, s in zip(inputs, samples, strict=True))
    if not fit or len({x.shape[:1] for x in inputs}) != 1:
        shapes = " and ".join(str(tuple(x.shape)) for x in inputs)
        wanted = " and ".join(f"[T, {', '.join(map(str, s.shape))}]" for s in samples)
        raise ValueError(f"validation has shape {shapes}; pass {wanted}, a sequence of steps like the sample")
    return list(zip(*(x.unbind(0) for x in inputs), strict=True))
