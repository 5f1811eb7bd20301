"""A BatchNorm in evaluation as a part of the product before it in an nn.Sequential.

The norm's scale goes into the weight, the rest into the bias:

    (x @ weight.T + bias - mean) * scale + shift  =  x @ (scale * weight).T + (bias - mean) * scale + shift

That saves a pass over all results, forward and backward, and the memory of the results before the norm.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import any_global_hook
from ..engine import tuning
from .conv import SpikeConv2d
from .linear import SpikeLinear
from .plan import Plan, SkipsZeros, goes_with, kernel_refusals, report, seen_as_one, untouched

Norm = nn.BatchNorm1d | nn.BatchNorm2d

NORMS: dict[type[nn.Module], type[nn.Module]] = {SpikeLinear: nn.BatchNorm1d, SpikeConv2d: nn.BatchNorm2d}
"""Which norm goes into which layer."""


class SpikeSequential(nn.Sequential):
    """An nn.Sequential that runs a norm in evaluation as a part of the product before it, as `accelerate` makes it.

    Not constructed by itself. A norm runs by itself in training or without running statistics, for small results,
    where the kernels of the product would not do, and where it or the product has hooks.
    """

    def forward(self, input: Any) -> Any:
        """What the layers compute, one after the other."""
        if torch.compiler.is_compiling():
            return super().forward(input)
        layers = deque(self)
        while layers:
            layer = layers.popleft()
            if isinstance(layer, SkipsZeros) and layers and isinstance(layers[0], Norm):
                reason = next(_norm_refusals(layer, layers[0], input), "")
                report(layers[0], Plan("torch", reason) if reason else Plan("folded"))
                if not (reason or any_global_hook()):  # which is to see both, one after the other
                    input = seen_as_one(_product, layer, input, layers.popleft())
                    continue
            input = layer(input)
        return input


def _product(layer: Any, x: Tensor, norm: Norm) -> Tensor:
    """A product and the norm behind it as one."""
    weight, bias = folded(layer, norm)
    out: Tensor = layer.run(x, layer.plan(x, weight), weight, bias)
    return out


def folded(layer: SkipsZeros, norm: Norm) -> tuple[Tensor, Tensor]:
    """The weight and the bias of a product and the norm behind it as one.

    They are computed anew at every call, by operations that are differentiated: a checkpoint or a step of an optimizer
    counts at once.
    """
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None  # or the norm would have refused
    assert var is not None
    scale = (var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = (-mean if layer.bias is None else layer.bias - mean) * scale
    weight = layer.weight * scale.view(-1, *(1 for _ in layer.weight.shape[1:]))
    return weight, bias if norm.bias is None else bias + norm.bias


def _norm_refusals(layer: SkipsZeros, norm: Norm, x: Any) -> Iterator[str]:
    """Why a norm runs by itself."""
    if norm.training or norm.running_mean is None:
        yield "it is in training, or has no running statistics"
    if layer.strict:
        yield "the layer before it is strict"
    if type(norm) is not NORMS.get(type(layer)) or len(layer.weight) != norm.num_features:
        yield "it does not belong to the layer before it"
    if not (untouched(layer) and untouched(norm)):
        yield "it or the layer before it has hooks or a forward of its own"
    yield from kernel_refusals(x, layer.weight)
    parts = norm.weight, norm.bias, norm.running_mean, norm.running_var
    if not all(part is None or goes_with(part, x) for part in parts):
        yield "its values are not plain tensors of the input's dtype and device"
    if x.dim() != layer.weight.dim():  # a norm takes the channels of a Linear's [N, T, C] for [N, C, L]
        yield "its channels are not those of the layer before it"
    least = max(tuning.limits.fold_least_values, tuning.limits.fold_least_share * layer.weight.numel())
    if len(x) * norm.num_features * x.shape[2:].numel() < least:
        yield "it has fewer values than fold_least_values, or than fold_least_share times the weight"
