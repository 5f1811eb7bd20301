"""The layers of the tests, and the ways of running one over a sequence: step by step, unrolled, in chunks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import spikeloom as snn

from ..oracle import Outcome


@dataclass(frozen=True)
class Kind:
    """A layer.

    Args:
        make: how it is made.
        shape: of one step.
        kept: the attributes in which it keeps something.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    kept: tuple[str, ...] = ()


def drawn(*shape: int) -> Tensor:
    """Different delays between 0 and 4."""
    return 4 * torch.rand(shape, generator=torch.Generator().manual_seed(2))


LAYERS: Mapping[str, Kind] = {
    "BatchNormTT1d": Kind(lambda: snn.BatchNormTT1d(5, 12), (3, 5), ("step",)),
    "BatchNormTT2d": Kind(lambda: snn.BatchNormTT2d(2, 12), (3, 2, 4, 4), ("step",)),
    "BatchNormTT1d without weights": Kind(lambda: snn.BatchNormTT1d(5, 12, affine=False), (3, 5), ("step",)),
    "GradedSpikes": Kind(lambda: snn.GradedSpikes(5, 0, dim=1), (3, 5)),
    "GradedSpikes along dimension 0": Kind(lambda: snn.GradedSpikes(3, 0), (3, 5)),
    "GradedSpikes of images": Kind(lambda: snn.GradedSpikes(2, 0, dim=-3), (3, 2, 4, 4)),
    "SynapticDelay": Kind(lambda: snn.SynapticDelay(5, 4, drawn(5)), (3, 5), ("past",)),
    "SynapticDelay learned": Kind(lambda: snn.SynapticDelay(5, 4, drawn(5), learn_delay=True), (3, 5), ("past",)),
    "SynapticDelay per channel": Kind(
        lambda: snn.SynapticDelay((2, 1, 1), 4, drawn(2, 1, 1), learn_delay=True), (3, 2, 4, 4), ("past",)
    ),
    "SynapticDelay of one row": Kind(lambda: snn.SynapticDelay(5, 4, drawn(5), learn_delay=True), (5,), ("past",)),
    "SynapticDelay of no steps": Kind(lambda: snn.SynapticDelay(5, 0, learn_delay=True), (3, 5), ("past",)),
    "DelayedLinear": Kind(lambda: snn.DelayedLinear(5, 2, 4, drawn(2, 5)), (3, 5), ("past",)),
    "DelayedLinear learned": Kind(
        lambda: snn.DelayedLinear(5, 2, 4, drawn(2, 5), learn_delay=True, bias=False), (3, 5), ("past",)
    ),
    "DelayedLinear of sentences": Kind(
        lambda: snn.DelayedLinear(5, 2, 4, drawn(2, 5), learn_delay=True), (3, 2, 5), ("past",)
    ),
}


def made(name: str) -> nn.Module:
    """The layer of the table; the same numbers at every call."""
    torch.manual_seed(4)
    return LAYERS[name].make().double()


def inputs(name: str, steps: int = 9) -> Tensor:
    """[T, *S]."""
    draw = torch.Generator().manual_seed(3)
    return torch.randn(steps, *LAYERS[name].shape, generator=draw, dtype=torch.float64).requires_grad_()


def by_steps(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([layer(x_t) for x_t in x.unbind(0)])


def unrolled(layer: nn.Module, x: Tensor) -> Tensor:
    return snn.unroll(layer, x)


def in_chunks(layer: nn.Module, x: Tensor) -> Tensor:
    """Unrolled chunks, one of a single step and one shorter than the delays, with plain steps between them."""
    parts = x.split([1, 2, 1, 1, 4])
    return torch.cat([by_steps(layer, part) if i % 2 else snn.unroll(layer, part) for i, part in enumerate(parts)])


WAYS = {"unrolled": unrolled, "in chunks": in_chunks}


def outcome(name: str, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor | None = None) -> Outcome:
    """What a new layer of the table makes of its inputs: outputs, what it keeps, statistics, every gradient."""
    layer, xs = made(name), inputs(name) if x is None else x
    out = run(layer, xs)
    learned = {"x": xs, **dict(layer.named_parameters())}
    cotangent = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
    grads = torch.autograd.grad((out * cotangent).sum(), list(learned.values()), allow_unused=True)
    kept = {key: torch.as_tensor(getattr(layer, key)).detach() for key in LAYERS[name].kept}
    values = {"out": out.detach(), **kept, **dict(layer.named_buffers())}
    counts = {key: value for key, value in values.items() if not value.is_floating_point()}
    states = {key: value for key, value in values.items() if key not in counts}
    return Outcome(counts, states, dict(zip(learned, grads, strict=True)))
