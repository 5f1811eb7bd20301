"""SLSTM and SConv2dLSTM over a sequence, forward and backward, for the input and all weights: compared with snnTorch,
the plain loop with the same hoisted product, and the matrix products or convolutions alone.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import spikeloom as snn

from .device import draw
from .leaky import FLOOR, PEER, STEPPED, TX, UNROLLED
from .neurons import REFERENCE
from .result import Shape
from .runner import Case, Outcome, Run, installed

Make = Callable[[ModuleType, Shape], Any]
"""Creates the layer of a library for inputs of a shape."""


def slstm(library: ModuleType, shape: Shape) -> Any:
    """As many neurons as inputs, the only case in which snnTorch's has a memory."""
    return library.SLSTM(shape[2], shape[2], threshold=0.1, init_hidden=True, output=True)


def sconv2dlstm(library: ModuleType, shape: Shape) -> Any:
    """As many channels as the input."""
    return library.SConv2dLSTM(shape[2], shape[2], 3, threshold=0.1, init_hidden=True, output=True)


def drawn(shape: Shape) -> Tensor:
    """Inputs from a fixed seed; they require their gradient."""
    return torch.randn(shape, generator=draw(1)).requires_grad_()


def outcome(layer: Any, spk: Tensor, x: Tensor) -> Outcome:
    """Run backward from the sum of all spikes, to the input and to every weight."""
    names = [f"gradients of {name}" for name in ("input", *dict(layer.named_parameters()))]
    grads = torch.autograd.grad(spk.sum(), [x, *layer.parameters()])
    return {"spikes": spk.detach(), **dict(zip(names, grads, strict=True))}


def prepared(make: Make, library: str, spikes: Callable[[Any, Tensor], Tensor]) -> Callable[[Tensor], Run]:
    """Prepare one way to run the layer of a library."""

    def prepare(x: Tensor) -> Run:
        package = installed(library)
        torch.manual_seed(1)
        layer = make(package, tuple(x.shape))

        def run() -> Outcome:
            layer.reset_mem()
            return outcome(layer, spikes(layer, x), x)

        return run

    return prepare


def at_once(layer: Any, x: Tensor) -> Tensor:
    """One call over all steps."""
    spk: Tensor = snn.unroll(layer, x)[0]
    return spk


def on_the_loop(layer: Any, x: Tensor) -> Tensor:
    """The same without kernels."""
    with snn.backend("loop"):
        return at_once(layer, x)


def by_steps(layer: Any, x: Tensor) -> Tensor:
    """The usual loop over time of snnTorch code."""
    return torch.stack([layer(x_t)[0] for x_t in x.unbind(0)])


def products(make: Make) -> Callable[[Tensor], Run]:
    """The PyTorch products alone, forward and backward: of the input over all steps, of the membrane at each step, and
    the gradient of both weights over all steps.
    """

    def prepare(x: Tensor) -> Run:
        layer, x = make(snn, tuple(x.shape)), x.detach()
        feedback = layer._mem_feedback(x.dtype)
        linear, weight = feedback.map, feedback.weight.detach()
        with torch.no_grad():
            gates = layer._of_input(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        mem = gates[0].chunk(4, linear.axis)[0].contiguous()
        mems = mem.expand(len(x), *mem.shape).contiguous()

        def run() -> Outcome:
            with torch.enable_grad():
                driven = layer._of_input(x.requires_grad_().flatten(0, 1))
            with torch.no_grad():
                for gate in gates:
                    gate += linear.of(weight, mem)
                for gate in gates:
                    linear.add_mem_gradient(weight, gate, mem)
                linear.weight_gradient(weight, mems, gates)
            torch.autograd.grad(driven, [x, *layer.parameters()], gates.flatten(0, 1), allow_unused=True)
            return {}

        return run

    return prepare


def case(name: str, title: str, axes: tuple[str, ...], shapes: tuple[Shape, ...], small: Shape, make: Make) -> Case:
    """The case of one layer."""
    return Case(
        name=name,
        title=f"{title}, forward and backward, float32",
        axes=axes,
        shapes=shapes,
        small=small,
        inputs=drawn,
        contestants={
            UNROLLED: prepared(make, "spikeloom", at_once),
            REFERENCE: prepared(make, "spikeloom", on_the_loop),
            STEPPED: prepared(make, "spikeloom", by_steps),
            PEER: prepared(make, "snntorch", by_steps),
            FLOOR: products(make),
        },
        reference=STEPPED,
        ours=UNROLLED,
        floor=FLOOR,
        unchecked=(FLOOR,),
    )


SIZES = ((250, 1, 64), (100, 16, 128), (100, 64, 256))

LSTMS = (
    case("slstm", "SLSTM over [T, B, N]", TX, SIZES, (7, 2, 5), slstm),
    case(
        "sconv2dlstm",
        "SConv2dLSTM over [T, B, C, H, W]",
        tuple("TBCHW"),
        ((50, 8, 4, 16, 16),),
        (4, 2, 2, 5, 4),
        sconv2dlstm,
    ),
)
