"""Functions of torch that compute what a module does, as that module."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn

from .errors import refuse

CONVOLUTION = ("weight", "bias", "stride", "padding", "dilation", "groups")
MAXIMUM = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
MEAN = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")

FUNCTIONAL: Mapping[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "linear": (nn.Linear, ("weight", "bias")),
    "conv1d": (nn.Conv1d, CONVOLUTION),
    "conv2d": (nn.Conv2d, CONVOLUTION),
    "max_pool1d": (nn.MaxPool1d, MAXIMUM),
    "max_pool2d": (nn.MaxPool2d, MAXIMUM),
    "avg_pool1d": (nn.AvgPool1d, MEAN),
    "avg_pool2d": (nn.AvgPool2d, (*MEAN, "divisor_override")),
    "adaptive_avg_pool1d": (nn.AdaptiveAvgPool1d, ("output_size",)),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
}
"""The module of a function, and the arguments of the function after its input."""


def functional_module(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], values: Mapping[fx.Node, Any], title: str
) -> nn.Module | None:
    """The module that computes what a call does; None for another function.

    Args:
        name: of the function.
        args, kwargs: of the call.
        values: of the nodes before; weights are tensors.
        title: of the network.
    """
    named = {key: value for key, value in kwargs.items() if key != "input"}
    rest = args if "input" in kwargs else args[1:]
    if name == "mean":
        x = values.get(kwargs["input"] if "input" in kwargs else args[0])
        return _mean(rest, named, title, 1 + len(getattr(x, "shape", ())))
    if name not in FUNCTIONAL:
        return None
    kind, order = FUNCTIONAL[name]
    options = {**dict(zip(order, rest, strict=False)), **named}
    given = {key: values.get(value) if isinstance(value, fx.Node) else value for key, value in options.items()}
    if "weight" not in given:
        return kind(**given)
    weight, bias = given.pop("weight"), given.pop("bias", None)
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor | None):
        refuse(title, f"its forward calls {name} with weights that are no parameters of the network")
    groups, (outputs, inputs, *sizes) = int(given.get("groups") or 1), weight.shape
    shape = (tuple(sizes),) if sizes else ()
    module = kind(inputs * groups, outputs, *shape, bias=bias is not None, **given)
    module.weight = nn.Parameter(weight.detach())
    if bias is not None:
        module.bias = nn.Parameter(bias.detach())
    return module


def _mean(rest: tuple[Any, ...], named: Mapping[str, Any], title: str, rank: int) -> nn.Module:
    """The mean over all places of an image, of rank 4, or a sequence, of rank 3."""
    dims = named.get("dim", rest[0] if rest else None)
    given = dims if isinstance(dims, (tuple, list)) else [dims]
    at = {dim % rank for dim in given if isinstance(dim, int)}
    if rank == 4 and at == {2, 3}:
        return nn.AdaptiveAvgPool2d(1)
    if rank == 3 and at == {2}:
        return nn.AdaptiveAvgPool1d(1)
    return refuse(title, f"its forward calls mean over {dims}; only the places of images, (2, 3), can be averaged")
