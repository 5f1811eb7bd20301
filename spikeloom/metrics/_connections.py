"""The connections of a network, and its metrics that need no run: parameters, memory, sparsity of the weights."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..layers import DelayedLinear
from ..neurons import LeakyParallel, SpikingNeuron
from ..neurons.leaky_parallel import Weights

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase, Weights)
CONNECTIONS = (nn.Linear, *CONVOLUTIONS, *RECURRENT, DelayedLinear)
"""The layers whose weights are connections, as in NeuroBench; and the two of this package."""

ACTIVATIONS = (SpikingNeuron, nn.ReLU, nn.Sigmoid)
"""The layers whose outputs are activations, as in NeuroBench."""

Kinds = tuple[type[nn.Module], ...]


def outermost(module: nn.Module, kinds: Kinds, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules of some kinds, each once, with their paths; what is inside of one is left out."""
    yield from _outermost(module, kinds, path, set())


def _outermost(module: nn.Module, kinds: Kinds, path: str, seen: set[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    if module in seen:
        return
    seen.add(module)
    if isinstance(module, kinds):
        yield path, module
        return
    for name, child in module.named_children():
        yield from _outermost(child, kinds, f"{path}.{name}" if path else name, seen)


def inside_of_neurons(net: nn.Module) -> dict[nn.Module, nn.Module]:
    """For each module inside of a neuron, the innermost such neuron."""
    return {part: n for n in net.modules() if isinstance(n, SpikingNeuron) for part in n.modules() if part is not n}


def weights_of(layer: nn.Module) -> list[Tensor]:
    """The weights that are counted as connections; of recurrent layers also the biases, as in NeuroBench."""
    if isinstance(layer, RECURRENT):
        return list(layer.parameters(recurse=False))
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return [weight]


def unseen(net: nn.Module) -> list[str]:
    """Sentences on the layers that have a matrix of weights, whose operations are not counted."""
    counted = {layer for _, layer in outermost(net, CONNECTIONS) if not isinstance(layer, nn.RNNBase)}
    known = {part for layer in counted for part in layer.modules()}
    sentences = []
    for path, module in net.named_modules():
        own = [p for p in module.parameters(recurse=False) if not nn.parameter.is_lazy(p) and p.dim() > 1]
        if own and module not in known:
            sentences.append(
                f"The synaptic operations of {path or 'the network'!r} ({type(module).__name__}) are not counted."
            )
        if isinstance(module, LeakyParallel) and module.weight_hh_enable:
            sentences.append(f"The recurrent operations of {path!r} (LeakyParallel) are not counted.")
    return sentences


def _checked(net: nn.Module, name: str) -> None:
    if not isinstance(net, nn.Module):
        raise TypeError(f"{name} got {type(net).__name__}; pass a network, an nn.Module")


def parameter_count(net: nn.Module) -> int:
    """The number of parameters of a network, each counted once.

    Args:
        net: the network.

    Returns:
        the number of elements of its nn.Parameters; values that are not learned are buffers and do not count.

        >>> import torch, spikeloom as snn
        >>> snn.metrics.parameter_count(torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9)))
        16
    """
    _checked(net, "parameter_count")
    return sum(p.numel() for p in net.parameters())


def footprint(net: nn.Module) -> int:
    """The memory of a network in bytes: its parameters and its buffers, without states and activations.

    Args:
        net: the network.

    Returns:
        the number of bytes, in the dtypes in which the values are stored.

        >>> import torch, spikeloom as snn
        >>> snn.metrics.footprint(torch.nn.Linear(3, 4)), snn.metrics.footprint(torch.nn.Linear(3, 4).half())
        (64, 32)
    """
    _checked(net, "footprint")
    return sum(t.numel() * t.element_size() for t in (*net.parameters(), *net.buffers()))


def connection_sparsity(net: nn.Module) -> float | None:
    """The share of zeros among the weights of a network, rounded to 4 decimals.

    The weights are those of nn.Linear, nn.Conv1d to nn.Conv3d, `DelayedLinear` and the recurrent layers of torch and
    of this package, of the latter with their biases, as in NeuroBench.

    Args:
        net: the network.

    Returns:
        the share, in [0, 1]; None if the network has no such layer.

        >>> import torch, spikeloom as snn
        >>> layer = torch.nn.Linear(4, 2)
        >>> with torch.no_grad():
        ...     _ = layer.weight[0].zero_()
        >>> snn.metrics.connection_sparsity(layer)
        0.5
    """
    _checked(net, "connection_sparsity")
    weights = [w.detach() for _, layer in outermost(net, CONNECTIONS) for w in weights_of(layer)]
    total = sum(w.numel() for w in weights)
    if not total:
        return None
    zeros = sum(w.numel() - int(w.count_nonzero()) for w in weights)
    return round((torch.tensor(zeros) / total).item(), 4)  # in float32, as NeuroBench divides
