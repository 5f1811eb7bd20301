"""Layers with spike inputs: `accelerate` replaces torch's layers by layers that skip zeros, and reverts them."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..neurons import SpikingNeuron
from .conv import SpikeAvgPool2d, SpikeConv2d, SpikeMaxPool2d
from .linear import SpikeLinear
from .plan import Plan as Plan
from .plan import SkipsZeros
from .plan import kernel_refusals as kernel_refusals
from .plan import reported as reported

ACCELERATED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: SpikeLinear,
    nn.Conv2d: SpikeConv2d,
    nn.MaxPool2d: SpikeMaxPool2d,
    nn.AvgPool2d: SpikeAvgPool2d,
}
"""The accelerated class of each torch class."""

PLAIN: dict[type[nn.Module], type[nn.Module]] = {new: old for old, new in ACCELERATED.items()}
"""The torch class of each accelerated class."""


def accelerate(net: nn.Module, on: bool = True, *, strict: bool = False) -> nn.Module:
    """Make the nn.Linear and nn.Conv2d layers of a network skip zero inputs, and its pooling run on kernels, in place.

    Each layer chooses its method at every call by the share of nonzero inputs; `explain` shows the choice and why.
    Names, parameters and hooks are preserved. Subclasses, and layers inside neurons, are not changed.

    While accelerated, a layer's class is a subclass of its torch class, so ``isinstance`` holds. Tools that compare
    ``type(layer)`` with ``nn.Linear``, such as thop, ptflops and torch.ao's quantization, ignore such a layer: call
    ``accelerate(net, False)`` before them and ``accelerate(net)`` after.

    Outputs and gradients equal torch's: of Linear and Conv2d up to the order of summation, of pooling bit for bit.

    Args:
        net: the network.
        on: if False, restore the torch classes. Default: True.
        strict: if True, Linear and Conv2d use torch's own products, so that all results are bit-identical to those of
            the plain network. Default: False.

    Returns:
        net.

    Raises:
        TypeError: if `net` is not a module.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
        >>> type(snn.accelerate(net)[0]).__name__, isinstance(net[0], torch.nn.Linear)
        ('SpikeLinear', True)
        >>> type(snn.accelerate(net, False)[0]).__name__
        'Linear'
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"accelerate got a {type(net).__name__}; pass a network, an nn.Module")
    neurons = [module for module in net.modules() if isinstance(module, SpikingNeuron)]
    inside = {part for neuron in neurons for part in neuron.modules()}
    kinds = {*ACCELERATED, *PLAIN}
    chosen = [module for module in net.modules() if module not in inside and type(module) in kinds]
    before = [(module, type(module), "strict" in vars(module)) for module in chosen]
    table = ACCELERATED if on else PLAIN
    try:
        for module in chosen:
            _become(module, table.get(type(module), type(module)), on and strict)
    except BaseException:  # Ctrl-C, after which all layers are as they were
        for was in before:
            _become(*was)
        raise
    return net


@contextmanager
def accelerating(net: nn.Module, *, strict: bool) -> Iterator[None]:
    """A context in which a network is accelerated; at its end, every layer is as it was."""
    before = [(m, type(m), "strict" in vars(m)) for m in net.modules() if type(m) in {*ACCELERATED, *PLAIN}]
    try:
        accelerate(net, strict=strict)
        yield
    finally:
        for was in before:
            _become(*was)


def _become(module: nn.Module, kind: type[nn.Module], strict: bool) -> None:
    module.__class__ = kind
    vars(module).pop("strict", None)
    if strict and issubclass(kind, SkipsZeros):
        vars(module)["strict"] = True
