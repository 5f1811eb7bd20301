"""Layers that are driven by spikes: `accelerate` puts them in place of torch's, and takes them back."""

from torch import nn

from ..neurons import SpikingNeuron
from .batch_norm import SpikeSequential
from .conv import SpikeAvgPool2d, SpikeConv2d, SpikeMaxPool2d
from .linear import SpikeLinear
from .plan import Plan as Plan
from .plan import SkipsZeros
from .plan import reported as reported

ACCELERATED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: SpikeLinear,
    nn.Conv2d: SpikeConv2d,
    nn.MaxPool2d: SpikeMaxPool2d,
    nn.AvgPool2d: SpikeAvgPool2d,
    nn.Sequential: SpikeSequential,
}
"""Which class a layer becomes."""

PLAIN: dict[type[nn.Module], type[nn.Module]] = {new: old for old, new in ACCELERATED.items()}
"""Which class it was."""


def accelerate(net: nn.Module, on: bool = True, *, strict: bool = False) -> nn.Module:
    """Let the nn.Linear and nn.Conv2d layers of a network skip the zeros of spikes, in place, and pool by kernels.

    Each decides at every call by the share of active inputs, and `explain` shows how and why. A BatchNorm in evaluation
    that follows one of them in an nn.Sequential runs as a part of it. The layers stay what they are, with their names,
    parameters and hooks; subclasses of these, and layers inside of neurons, are left alone.

    While it is on, a layer has a subclass of its class, which `explain` names. Tools that compare ``type(layer)`` with
    ``nn.Linear``, such as thop, ptflops and torch.ao's quantization, pass over it: call ``accelerate(net, False)``
    before them, and ``accelerate(net)`` after. ``isinstance`` holds.

    Outputs and gradients of products are those of torch to the order of summation, of pooling bit for bit.

    Args:
        net: the network.
        on: if False, the layers become plain again.
        strict: if True, products are torch's own too, so that all bits are those of the plain network.

    Returns:
        net.

    Raises:
        TypeError: if `net` is no module.

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


def _become(module: nn.Module, kind: type[nn.Module], strict: bool) -> None:
    module.__class__ = kind
    vars(module).pop("strict", None)
    if strict and issubclass(kind, SkipsZeros):
        vars(module)["strict"] = True
