"""Functions of torch that compute what a module does, as that module."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .errors import refuse
from .layers import Array

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
    "layer_norm": (nn.LayerNorm, ("normalized_shape", "weight", "bias", "eps")),
    "adaptive_avg_pool1d": (nn.AdaptiveAvgPool1d, ("output_size",)),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
}
"""The module of a function, and the arguments of the function after its input."""


REDUCED = ("mean", "sum", "amax")
"""Functions that reduce the places of an image to one."""


def functional_module(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], title: str) -> nn.Module | None:
    """The module that computes what a call does; None for another function.

    Args:
        name: of the function.
        args, kwargs: of the call, with arrays, constant tensors and numbers.
        title: of the network.
    """
    named = {key: value for key, value in kwargs.items() if key != "input"}
    rest = args if "input" in kwargs else args[1:]
    if name in REDUCED:
        return _reduced(name, rest, named, title, kwargs["input"] if "input" in kwargs else args[0])
    if name in ("matmul", "mm") and len(rest) == 1 and isinstance(rest[0], Tensor) and rest[0].dim() == 2:
        return _linear(rest[0].t(), None)
    if name not in FUNCTIONAL:
        return None
    kind, order = FUNCTIONAL[name]
    given = {**dict(zip(order, rest, strict=False)), **named}
    if kind is nn.LayerNorm:
        return _layer_norm(**given)
    if "weight" not in given:
        return kind(**given)
    weight, bias = given.pop("weight"), given.pop("bias", None)
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor | None):
        refuse(title, f"its forward calls {name} with weights that are no parameters of the network")
    if kind is nn.Linear:
        return _linear(weight, bias)
    groups, (outputs, inputs, *sizes) = int(given.get("groups") or 1), weight.shape
    module = kind(inputs * groups, outputs, tuple(sizes), bias=bias is not None, **given)
    return _with(module, weight, bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    return _with(nn.Linear(weight.shape[1], len(weight), bias=bias is not None), weight, bias)


def _layer_norm(
    normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> nn.Module:
    norm = nn.LayerNorm(normalized_shape, eps, elementwise_affine=False)
    return _with(norm, weight, bias)


def _with(module: Any, weight: Tensor | None, bias: Tensor | None) -> nn.Module:
    """The module with these weights."""
    out: nn.Module = module
    module.weight = None if weight is None else nn.Parameter(weight.detach(), requires_grad=False)
    module.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return out


def _reduced(name: str, rest: tuple[Any, ...], named: Mapping[str, Any], title: str, x: Array) -> nn.Module:
    """The mean, sum or maximum over all places of an image [C, H, W] or a sequence [C, L]."""
    dims = named.get("dim", rest[0] if rest else None)
    given, rank = dims if isinstance(dims, (tuple, list)) else [dims], 1 + len(x.shape)
    at = {dim % rank for dim in given if isinstance(dim, int)}
    if rank not in (3, 4) or at != set(range(2, rank)):
        refuse(title, f"its forward calls {name} over {dims}; only the places of images, (2, 3), can be reduced")
    places = x.shape[1:]
    if name == "amax":
        return nn.MaxPool2d(places) if rank == 4 else nn.MaxPool1d(places[0])
    if name == "mean":
        return nn.AdaptiveAvgPool2d(1) if rank == 4 else nn.AdaptiveAvgPool1d(1)
    return Sum(places)


class Sum(nn.Module):
    """The sum over all places of an image or a sequence."""

    def __init__(self, places: tuple[int, ...]):
        super().__init__()
        self.places = places

    def extra_repr(self) -> str:
        """The number of places."""
        return " x ".join(map(str, self.places))
