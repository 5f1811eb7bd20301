"""BatchNorm in evaluation as a part of the product before it: its scale in the weight, the rest in the bias.

    (x @ weight.T + bias - mean) * scale + shift  =  x @ (scale * weight).T + (bias - mean) * scale + shift

That saves a pass over all results, forward and backward, and the memory of the results before the norm.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from .convolution import SpikeConv2d
from .skipping import SkipsZeros, goes_with, kernels_can, seen_as_one
from .spike_linear import SpikeLinear

Norm = nn.BatchNorm1d | nn.BatchNorm2d

NORMS: dict[type[nn.Module], type[nn.Module]] = {SpikeLinear: nn.BatchNorm1d, SpikeConv2d: nn.BatchNorm2d}
"""Which norm goes into which layer."""

LEAST_VALUES = 1 << 18
"""Values of the result below which a norm runs by itself: it is over before the weight is scaled."""

LEAST_SHARE = 2
"""How many times the values of the weight it must have as well."""


class SpikeSequential(nn.Sequential):
    """An nn.Sequential that runs norms in evaluation as parts of the products before them, as `accelerate` makes it.

    Not constructed by itself. The weights are scaled anew at every call, by operations that are differentiated. A norm
    runs by itself in training or without running statistics, where it or the product has hooks, for small results, and
    where the kernels of the product would not do. Its `path` tells: "folded" or "torch".
    """

    def forward(self, input: Any) -> Any:
        """What the layers compute, one after the other."""
        if torch.compiler.is_compiling():
            return super().forward(input)
        layers = iter(self)
        ahead = next(layers, None)
        while ahead is not None:
            layer, ahead = ahead, next(layers, None)
            if isinstance(ahead, Norm) and isinstance(layer, SkipsZeros) and _folds(layer, ahead, input):
                input = seen_as_one(type(layer).product, layer, input, *_folded(layer, ahead))
                ahead = next(layers, None)
            else:
                input = layer(input)
        return input


def _folds(layer: SkipsZeros, norm: Norm, x: Any) -> bool:
    """Whether the norm runs as a part of the layer; noted for `explain`, whose own hook does not count there."""
    fits = _fits(layer, norm, x)
    norm.__dict__["path"] = "folded" if fits else "torch"
    return fits and not _has_any_global_hook()


def _fits(layer: SkipsZeros, norm: Norm, x: Any) -> bool:
    parts = norm.weight, norm.bias, norm.running_mean, norm.running_var
    return (
        type(norm) is NORMS.get(type(layer))
        and not (norm.training or norm.running_mean is None or layer.strict)
        and _untouched(layer)
        and _untouched(norm)
        and kernels_can(x, layer.weight)
        and all(part is None or goes_with(part, x) for part in parts)
        and x.dim() == layer.weight.dim()  # a norm takes the channels of a Linear's [N, T, C] for [N, C, L]
        and len(layer.weight) == norm.num_features
        and len(x) * norm.num_features * x.shape[2:].numel() >= max(LEAST_VALUES, LEAST_SHARE * layer.weight.numel())
    )


def _untouched(module: nn.Module) -> bool:
    """Whether nobody listens to a module or has put another forward in its place."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_compiled_call_impl")
    return "forward" not in vars(module) and not any(getattr(module, name) for name in hooks)


def _folded(layer: SkipsZeros, norm: Norm) -> tuple[Tensor, Tensor]:
    """The weight and the bias of both as one."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None  # or it would not fit
    assert var is not None
    scale = (var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = (-mean if layer.bias is None else layer.bias - mean) * scale
    weight = layer.weight * scale.view(-1, *(1 for _ in layer.weight.shape[1:]))
    return weight, bias if norm.bias is None else bias + norm.bias
