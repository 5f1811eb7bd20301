"""What follows a product as a part of it: pooling behind a convolution, and a BatchNorm in evaluation.

The norm's scale goes into the weight, the rest into the bias:

    (x @ weight.T + bias - mean) * scale + shift  =  x @ (scale * weight).T + (bias - mean) * scale + shift

That saves a pass over all results, forward and backward, and the memory of the results before the norm.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import any_global_hook
from ..engine import tuning
from .convolution import SpikeConv2d
from .pooling import WITH_CONVOLUTION, Pool, SpikeAvgPool2d, SpikeMaxPool2d
from .skipping import SkipsZeros, goes_with, kernels_can, seen_as_one
from .spike_linear import SpikeLinear

Norm = nn.BatchNorm1d | nn.BatchNorm2d

NORMS: dict[type[nn.Module], type[nn.Module]] = {SpikeLinear: nn.BatchNorm1d, SpikeConv2d: nn.BatchNorm2d}
"""Which norm goes into which layer."""

POOLS = SpikeMaxPool2d, SpikeAvgPool2d
"""Which pooling a convolution does."""


class SpikeSequential(nn.Sequential):
    """An nn.Sequential that runs what follows a product as a part of it, as `accelerate` makes it.

    Not constructed by itself. That is pooling behind a convolution, as `SpikeConv2d` tells, and a norm in evaluation:
    the weights are scaled anew at every call, by operations that are differentiated. A norm runs by itself in training
    or without running statistics, for small results, and where the kernels of the product would not do; both do where
    they or the product have hooks. Their `path` tells: that of a norm is "folded" or "torch".
    """

    def forward(self, input: Any) -> Any:
        """What the layers compute, one after the other."""
        if torch.compiler.is_compiling():
            return super().forward(input)
        layers = deque(self)
        while layers:
            layer = layers.popleft()
            input = _product(layer, layers, input) if isinstance(layer, SkipsZeros) else layer(input)
        return input


def _product(layer: SkipsZeros, behind: deque[nn.Module], x: Any) -> Any:
    """What a layer computes, with those behind it that run as parts of it and are taken off."""
    norm = _norm(layer, behind, x)
    pool = _pool(layer, islice(behind, norm is not None, None), x)
    if any_global_hook():  # which is to see all layers; that of `explain` is to see what else would be done
        if pool is not None and seen_as_one(SpikeConv2d.pools_with, layer, x, pool):
            pool.__dict__["told"] = WITH_CONVOLUTION
        return layer(x)
    if norm is None and pool is None:
        return layer(x)
    weight, bias = (layer.weight, layer.bias) if norm is None else _folded(layer, norm)
    pools = [] if pool is None else [pool]
    for _ in range((norm is not None) + len(pools)):
        behind.popleft()
    return seen_as_one(type(layer).product, layer, x, weight, bias, *pools)


def _norm(layer: SkipsZeros, behind: Iterable[nn.Module], x: Any) -> Norm | None:
    """The norm that runs as a part of a layer, as its path tells."""
    norm = next(iter(behind), None)
    if not isinstance(norm, Norm):
        return None
    fits = _fits(layer, norm, x)
    norm.__dict__["path"] = "folded" if fits else "torch"
    return norm if fits else None


def _pool(layer: SkipsZeros, behind: Iterable[nn.Module], x: Any) -> Pool | None:
    """The pooling that a convolution may do."""
    if type(layer) is not SpikeConv2d or type(x) is not Tensor or x.numel() < tuning.limits.fold_least_pixels:
        return None
    pool = next(iter(behind), None)
    if not isinstance(pool, Pool) or type(pool) not in POOLS:
        return None
    fits = not layer.strict and _untouched(layer) and _untouched(pool) and kernels_can(x, layer.weight)
    return pool if fits else None


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
        and len(x) * norm.num_features * x.shape[2:].numel()
        >= max(tuning.limits.fold_least_values, tuning.limits.fold_least_share * layer.weight.numel())
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
