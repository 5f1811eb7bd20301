"""Checks of a network that every exporter makes."""

from collections.abc import Iterable
from itertools import chain

from torch import Tensor, nn


def check_has_values(caller: str, net: nn.Module, example: Iterable[Tensor]) -> None:
    """Refuse a network on the device "meta", whose tensors have shapes alone.

    Raises:
        ValueError: if there is such a tensor.
    """
    named = chain(net.named_parameters(), net.named_buffers(), (("the example", x) for x in example))
    for name, tensor in named:
        if tensor.is_meta:
            raise ValueError(f'{caller}: {name} is on the device "meta" and has no values; load them first')
