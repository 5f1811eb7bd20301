"""Helpers around whole networks: reset and detach the state of their neurons."""

from torch import nn

from .neurons import SpikingNeuron


def reset(net: nn.Module) -> None:
    """Set every state of every neuron in a network to zeros, so that the next input starts afresh.

    Args:
        net: the network, or one neuron; its neurons may be nested and wrapped to any depth. Other networks are left
            alone.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(snn.Leaky(beta=0.5, init_hidden=True))
        >>> _ = net(torch.full((1, 2), 0.75))
        >>> snn.utils.reset(net)
        >>> net[0].mem
        tensor([[0., 0.]])
    """
    for neuron in _neurons(net):
        neuron.reset_mem()


def detach(net: nn.Module) -> None:
    """Cut every state of every neuron in a network from the graph that made it; the values stay.

    For truncated backpropagation through time: between two chunks of one sequence.

    Args:
        net: the network, or one neuron; its neurons may be nested and wrapped to any depth.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), snn.Leaky(beta=0.5, init_hidden=True))
        >>> for chunk in torch.rand(100, 1, 2).split(25):
        ...     snn.unroll(net, chunk).sum().backward()
        ...     snn.utils.detach(net)
        >>> net[1].mem.requires_grad
        False
    """
    for neuron in _neurons(net):
        neuron.detach_mem()


def _neurons(net: nn.Module) -> list[SpikingNeuron]:
    if not isinstance(net, nn.Module):
        raise TypeError(f"pass a network, an nn.Module; got {type(net).__name__}")
    return [module for module in net.modules() if isinstance(module, SpikingNeuron)]
