"""Running the Leaky of snnTorch and ours with the same arguments and inputs: spikes, membranes, every gradient."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeloom as snn

from ..oracle import Outcome

snntorch = pytest.importorskip("snntorch")
pytest.importorskip("snntorch.surrogate")


@dataclass(frozen=True)
class Case:
    """One layer and how it is run.

    Args:
        options: the arguments of Leaky; `spike_grad` is a name in `surrogate` with its arguments.
        shape: of one step.
        steps: T.
        detach: whether the membrane is detached between the steps.
        scale: the inputs are drawn between -0.4 and 1 times this.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (3, 4)
    steps: int = 6
    detach: bool = False
    scale: float = 1.2


def inputs(case: Case) -> Tensor:
    """The sequence, [T, *S]; the same at every call."""
    drawn = torch.rand(case.steps, *case.shape, generator=torch.Generator().manual_seed(7))
    return ((1.4 * drawn - 0.4) * case.scale).requires_grad_()


def layer(library: ModuleType, case: Case) -> Any:
    """The layer of either library; tensors among the arguments are copied, since both would learn the same one."""
    options = {key: value.clone() if isinstance(value, Tensor) else value for key, value in case.options.items()}
    if "spike_grad" in options:
        name, *constants = options["spike_grad"]
        options["spike_grad"] = getattr(library.surrogate, name)(*constants)
    return library.Leaky(**{"beta": 0.8, **options})


def by_steps(neuron: Any, xs: Tensor, detach: bool) -> tuple[Tensor, Tensor]:
    """Spikes and membranes of a loop over time, whichever of the two the layer returns."""
    hidden = neuron.init_hidden
    mem, spikes, membranes = neuron.init_leaky(), [], []
    for x in xs.unbind(0):
        out = neuron(x) if hidden else neuron(x, mem)
        spk, mem = out if isinstance(out, tuple) else (out, neuron.mem)
        spikes.append(spk)
        membranes.append(mem)
        if detach:
            mem = mem.detach()
            neuron.mem = mem
    return torch.stack(spikes), torch.stack(membranes)


def at_once(neuron: Any, xs: Tensor, detach: bool) -> tuple[Tensor, Tensor]:
    """The same of the sequence mode of ours."""
    assert not detach
    spk, mem = snn.unroll(neuron, xs)
    return spk, mem


def outcome(neuron: Any, case: Case, run: Callable[..., tuple[Tensor, Tensor]] = by_steps) -> Outcome:
    """What a layer makes of the inputs of a case; the gradients are those of a weighted sum of all that it returns."""
    xs = inputs(case)
    spk, mem = run(neuron, xs, case.detach)
    learned = {"x": xs, **dict(neuron.named_parameters())}
    grads = torch.autograd.grad((spk * cotangent(spk, 1) + mem * cotangent(mem, 2)).sum(), list(learned.values()))
    return Outcome({"spk": spk.detach()}, {"mem": mem.detach()}, dict(zip(learned, grads, strict=True)))


def cotangent(like: Tensor, seed: int) -> Tensor:
    """Fixed numbers in the shape of an output, so that each of its elements has a gradient of its own."""
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)).to(like.dtype) - 0.3


def spread(low: float, high: float, *shape: int) -> Tensor:
    """Different numbers between two bounds, for a parameter with a value per neuron."""
    return torch.linspace(low, high, torch.Size(shape).numel()).reshape(shape)
