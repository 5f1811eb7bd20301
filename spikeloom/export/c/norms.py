"""Layer normalization: over each row, by its mean and its standard deviation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .fixed_point import FUNCTIONS, root, saturated
from .form import loop
from .kernels import Types, over_rows
from .layers import Array, Layer


@dataclass
class Norm(Layer):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over rows of the last dimensions; weight and bias [N]."""

    weight: Tensor
    bias: Tensor
    eps: float

    def run(self, *x: Tensor) -> Tensor:
        """The output for an input [B, ...]."""
        rows = x[0].reshape(-1, len(self.weight))
        out = nn.functional.layer_norm(rows, (len(self.weight),), self.weight, self.bias, self.eps)
        return out.reshape(x[0].shape)


def norm_layer(name: str, title: str, module: nn.LayerNorm, x: Array, y: Array, dtype: torch.dtype) -> Norm:
    """The layer of a module."""
    size = torch.Size(module.normalized_shape).numel()
    weight = torch.ones(size) if module.weight is None else module.weight.detach().cpu().flatten()
    bias = torch.zeros(size) if module.bias is None else module.bias.detach().cpu().flatten()
    return Norm(name, title, (x,), y, weight.to(dtype), bias.to(dtype), module.eps)


def _rows(layer: Norm, types: Types, each: list[str]) -> list[str]:
    size = len(layer.weight)
    return over_rows(layer, types, layer.y.size // size, size, size, each)


def in_floats(layer: Norm, types: Types, root: str, eps: str) -> list[str]:
    """The function in floating point; `root` is the square root, `eps` a number."""
    size, real = len(layer.weight), types.y
    bias = f" + {layer.name}_bias[n]" if bool(layer.bias.any()) else ""
    each = [
        f"{real} sum = 0, squares = 0;",
        *loop("n", size, ["sum += x[n];"]),
        f"const {real} mean = sum / {size};",
        *loop("n", size, ["squares += (x[n] - mean) * (x[n] - mean);"]),
        f"const {real} size = {root}(squares / {size} + {eps});",
        *loop("n", size, [f"y[n] = (x[n] - mean) / size * {layer.name}_weight[n]{bias};"]),
    ]
    return _rows(layer, types, each)


@dataclass
class WholeNorm:
    """A normalization in integers.

    Args:
        weight: factors with `shift` fractional bits.
        bias: with `fraction` fractional bits.
        dropped: the bits of a difference that its square leaves out, so that sums of squares fit 64 bits.
        eps: with twice the fractional bits of such a difference, at least 1.
        fraction: the fractional bits of inputs and outputs.
    """

    weight: Tensor
    shift: int
    bias: Tensor
    dropped: int
    eps: int
    fraction: int


def quantized_norm(layer: Norm, weight: Tensor, shift: int, bias: Tensor, fraction: int) -> WholeNorm:
    """The normalization in integers, with its weights as factors and its bias in the format of the output."""
    dropped = max(0, 32 - (62 - (len(layer.weight) - 1).bit_length()) // 2)
    eps = max(1, round(layer.eps * 4.0 ** (fraction - dropped)))
    return WholeNorm(weight, shift, bias, dropped, eps, fraction)


def in_integers(layer: Norm, own: WholeNorm, types: Types) -> list[str]:
    """The function in integers."""
    size = len(layer.weight)
    bias = f"{layer.name}_bias[n] + " if bool(own.bias.any()) else ""
    scaled = f"fixed_div(x[n] - mean, size, {own.fraction - own.dropped})"
    each = [
        "int64_t sum = 0, squares = 0;",
        *loop("n", size, ["sum += x[n];"]),
        f"const int64_t mean = sum / {size};",
        *loop("n", size, [f"const int64_t d = saturate(x[n] - mean) >> {own.dropped};", "squares += d * d;"]),
        f"const int64_t size = root(squares / {size} + {own.eps});",
        *loop("n", size, [f"y[n] = saturate({bias}times({layer.name}_weight[n], {scaled}, {own.shift}));"]),
    ]
    return _rows(layer, types, each)


def simulated_norm(layer: Norm, own: WholeNorm, x: Tensor) -> Tensor:
    """The output for integers [B, ...], with the bits of the C."""
    rows = x.reshape(-1, len(layer.weight))
    mean = torch.div(rows.sum(1, keepdim=True), rows.shape[1], rounding_mode="trunc")
    d = saturated(rows - mean) >> own.dropped
    size = root((d * d).sum(1, keepdim=True) // rows.shape[1] + own.eps)
    scaled = FUNCTIONS["div"](rows - mean, size.expand_as(rows), own.fraction - own.dropped)
    product = (own.weight * scaled + (1 << (own.shift - 1))) >> own.shift
    return saturated(own.bias + product).reshape(x.shape)
