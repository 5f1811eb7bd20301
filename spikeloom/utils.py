"""Helpers around whole networks: reset and detach the state of their neurons."""

from torch import nn

from .neurons import SpikingNeuron


def reset(net: nn.Module) -> None:
    """Set every state of every neuron in `net` to zeros, however deeply nested; other networks are left alone."""
    for neuron in _neurons(net):
        neuron.reset_mem()


def detach(net: nn.Module) -> None:
    """Cut the state of every neuron in `net` from the graph that made it; the values stay."""
    for neuron in _neurons(net):
        neuron.detach_mem()


def _neurons(net: nn.Module) -> list[SpikingNeuron]:
    return [module for module in net.modules() if isinstance(module, SpikingNeuron)]
