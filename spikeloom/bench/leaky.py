"""The bare neuron: Leaky over a sequence, forward and backward, against snnTorch and against the speed of memory."""

import importlib
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

import spikeloom as snn

from .case import Case, Contestant, NotInstalled, Outcome, Ratio, Run, Shape, equal_spikes_close_gradients

BETA = 0.9
UNROLLED, STEPS, PEER, FLOOR = (
    "spikeloom, unrolled",
    "spikeloom, step by step",
    "snnTorch, step by step",
    "floor: three tensor operations",
)


@dataclass(frozen=True)
class Inputs:
    """A current [T, B, N] that makes some percent of the neurons fire at each step; a leaf that wants its gradient."""

    x: Tensor


def make_inputs(shape: Shape) -> Inputs:
    """The same current each time it is asked for."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 0.4 - 0.05
    return Inputs(x.requires_grad_())


def outcome(spk: Tensor, x: Tensor) -> Outcome:
    """The backward pass of the sum of all spikes: the work that every contestant does."""
    (grad,) = torch.autograd.grad(spk.sum(), x)
    return {"spikes": spk.detach(), "input gradient": grad}


def unrolled(inputs: Inputs) -> Run:
    """One call over all time."""
    lif = snn.Leaky(beta=BETA)

    def run() -> Outcome:
        snn.utils.reset(lif)
        spk, _ = snn.unroll(lif, inputs.x)
        return outcome(spk, inputs.x)

    return run


def stepped_by(library: ModuleType, inputs: Inputs) -> Run:
    """The loop over time that snnTorch's tutorials write; both libraries read it alike."""
    lif = library.Leaky(beta=BETA)

    def run() -> Outcome:
        mem, spikes = lif.reset_mem(), []
        for x_t in inputs.x.unbind(0):
            spk, mem = lif(x_t, mem)
            spikes.append(spk)
        return outcome(torch.stack(spikes), inputs.x)

    return run


def stepped(inputs: Inputs) -> Run:
    """spikeloom called once per step."""
    return stepped_by(snn, inputs)


def peer(inputs: Inputs) -> Run:
    """snnTorch called once per step."""
    try:
        snntorch = importlib.import_module("snntorch")
    except ImportError as error:
        raise NotInstalled(f"not installed ({error}); pip install snntorch==1.0.0") from error
    return stepped_by(snntorch, inputs)


def floor(inputs: Inputs) -> Run:
    """Three operations that read and write as many bytes as a scan must, into memory that exists already."""
    x = inputs.x.detach()
    a, b, c = (torch.empty_like(x) for _ in range(3))

    def run() -> Outcome:
        torch.mul(x, BETA, out=a)
        torch.add(a, x, out=b)
        torch.add(b, x, out=c)
        return {}

    return run


def backends(inputs: Inputs) -> list[str]:
    """Which backend runs the unrolled neuron, so that a slow result explains itself."""
    lif = snn.Leaky(beta=BETA)
    return [f"spikeloom, unrolled:\n{snn.explain(lif, inputs.x)}"]


LEAKY = Case(
    name="leaky",
    title="Leaky over [T, B, N], forward and backward, float32",
    axes=("T", "B", "N"),
    shapes=((500, 16, 512), (500, 1, 128)),
    inputs=make_inputs,
    contestants={
        UNROLLED: Contestant(unrolled),
        STEPS: Contestant(stepped),
        PEER: Contestant(peer),
        FLOOR: Contestant(floor, agrees=False),
    },
    reference=STEPS,
    compare=equal_spikes_close_gradients,
    ratios=(Ratio(PEER, "speed-up over snnTorch", gain=True), Ratio(FLOOR, "times the floor", gain=False)),
    remarks=backends,
)
