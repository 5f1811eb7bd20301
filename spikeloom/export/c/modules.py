"""Layers of torch, and those of the library that are no neurons."""

from typing import Any

import torch
from torch import Tensor, nn

from ...accelerated import PLAIN
from ...layers import BatchNormTT1d, BatchNormTT2d, DelayedLinear, GradedSpikes, SynapticDelay
from . import elementwise, layers, moves
from .errors import label, refuse
from .functions import Sum
from .layers import Array, Conv, Delay, Layer, Linear, Pool, Scale, StepScale, pair, planes
from .neurons import conv, linear
from .norms import norm_layer

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)

Written = tuple[Layer | None, list[str]]
"""A layer, or None if it was folded into the one before; and what was lost."""


def module_layers(
    path: str,
    name: str,
    module: nn.Module,
    x: Array,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    producer: Layer | None,
) -> Written:
    """The layer of a module.

    Args:
        shape: of its output.
        producer: the layer that computes x, if nothing else reads x.
    """
    kind: Any = PLAIN.get(type(module), type(module))
    title, y = f"{label(path, module)}: {module.extra_repr()}", Array(name, shape)
    own = next((k for k in (nn.Linear, nn.Conv1d, nn.Conv2d, *NORMS, *POOLS) if isinstance(module, k)), None)
    if own is not None and kind.forward is not own.forward:
        refuse(label(path, module), f"{type(module).__name__} overrides forward")
    if isinstance(module, nn.Linear):
        return linear(name, title, module.weight, module.bias, x, y, dtype), []
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        if module.padding_mode != "zeros":
            refuse(label(path, module), f"padding_mode is {module.padding_mode!r}; only zeros can be padded")
        return conv(name, title, module, x, y, dtype), []
    if isinstance(module, POOLS):
        return _pool(path, name, module, x, y), []
    if isinstance(module, NORMS):
        return _norm(path, name, module, x, y, dtype, producer)
    if isinstance(module, GradedSpikes):
        if module.dim != 1:
            refuse(label(path, module), f"dim={module.dim} is not the first dimension after the batch; pass dim=1")
        return Scale(name, title, (x,), y, module.weights.detach().cpu().to(dtype).flatten(), None), []
    if isinstance(module, (SynapticDelay, DelayedLinear)):
        return _delayed(path, name, title, module, x, y, dtype)
    if isinstance(module, (BatchNormTT1d, BatchNormTT2d)):
        return _step_norm(path, name, f"{label(path, module)}: {len(module)} norms, one per step", module, x, y, dtype)
    if type(module) in elementwise.MODULES:
        function, attributes = elementwise.MODULES[type(module)]
        call = elementwise.elementwise_call(function, (x, *(getattr(module, key) for key in attributes)), {}, title)
        assert call is not None
        return elementwise.elementwise_layer(name, title, call, (x,), shape, dtype), []
    if type(module) in moves.MODULES:
        options = {key: getattr(module, key) for key in ("mode", "value") if hasattr(module, key)}
        what, kind_name = label(path, module), "interpolate" if "mode" in options else "pad"
        moves.check_move(what, kind_name, (), options)
        places = moves.moved(what, type(module).__name__, module, x, batch=1)
        return moves.pick(name, title, x, places), []
    if type(module) is nn.LayerNorm:
        return norm_layer(name, title, module, x, y, dtype), []
    if isinstance(module, Sum):
        return _summed(name, title, module, x, y), []
    return refuse(label(path, module), "this layer has no form in C; docs/c.md lists those that have")


def _delayed(path: str, name: str, title: str, module: Any, x: Array, y: Array, dtype: torch.dtype) -> Written:
    learned = isinstance(module.delay, nn.Parameter)
    lost = [f"{label(path, module)}: its delays were learned, and are constant"] * learned
    lag = module.lags.cpu()
    if isinstance(module, SynapticDelay):
        return Delay(name, title, (x,), y, lag.expand(x.shape).contiguous()), lost
    if len(x.shape) != 1:
        refuse(label(path, module), f"its input is {x.shape}; only features, [I], can have a delay per connection")
    plain = linear(name, title, module.weight, module.bias, x, y, dtype)
    return layers.DelayedLinear(name, title, (x,), y, lag, plain.weight, plain.bias), lost


def _step_norm(path: str, name: str, title: str, module: Any, x: Array, y: Array, dtype: torch.dtype) -> Written:
    if any(norm.running_mean is None for norm in module):
        refuse(label(path, module), "it has no running statistics and normalizes by those of the batch")
    scales = [(n.running_var.double() + n.eps).rsqrt() * (1 if n.weight is None else n.weight.double()) for n in module]
    shifts = [
        (0.0 if norm.bias is None else norm.bias.double()) - norm.running_mean.double() * scale
        for norm, scale in zip(module, scales, strict=True)
    ]
    scale, shift = (torch.stack(rows).detach().cpu().to(dtype) for rows in (scales, shifts))
    if len(scale) == 1:
        return Scale(name, title, (x,), y, scale[0], shift[0]), []
    note = f"{label(path, module)}: it normalizes by its running statistics; after its last norm, by the last one"
    return StepScale(name, title, (x,), y, scale, shift), [note]


def _pool(path: str, name: str, module: Any, x: Array, y: Array) -> Pool:
    images, title = len(x.shape) == 3, f"{label(path, module)}: {module.extra_repr()}"
    (_, height, width), (_, rows, columns) = planes(x.shape), planes(y.shape)
    if isinstance(module, (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)):
        if height % rows or width % columns:
            refuse(
                label(path, module), f"its windows of {x.shape} differ in size; choose a size that divides the input"
            )
        kernel = stride = (height // rows, width // columns)
        return Pool(
            name,
            title,
            (x,),
            y,
            "avg",
            kernel,
            stride,
            (0, 0),
            (1, 1),
            torch.full((rows, columns), kernel[0] * kernel[1]),
        )
    kernel, stride = pair(module.kernel_size, images), pair(module.stride, images)
    padding = pair(module.padding, images, first=0)
    mean = isinstance(module, (nn.AvgPool1d, nn.AvgPool2d))
    if not mean and module.return_indices:
        refuse(label(path, module), "return_indices=True returns a second output")
    dilation = (1, 1) if mean else pair(module.dilation, images)
    divisors = torch.ones(rows, columns)
    if mean:
        include, fixed = module.count_include_pad, getattr(module, "divisor_override", None)
        sides = [
            _lengths(n, size, k, s, p, include)
            for n, size, k, s, p in zip((rows, columns), (height, width), kernel, stride, padding, strict=True)
        ]
        divisors = torch.full((rows, columns), fixed) if fixed else sides[0][:, None] * sides[1]
    return Pool(name, title, (x,), y, "avg" if mean else "max", kernel, stride, padding, dilation, divisors)


def _summed(name: str, title: str, module: Sum, x: Array, y: Array) -> Pool:
    _, *kernel = planes(x.shape)
    windows = (kernel[0], kernel[1])
    return Pool(name, title, (x,), y, "avg", windows, windows, (0, 0), (1, 1), torch.ones(1, 1))


def _lengths(outputs: int, size: int, kernel: int, stride: int, padding: int, include: bool) -> Tensor:
    """How many values each window counts in one dimension."""
    first = torch.arange(outputs) * stride - padding
    last = (first + kernel).clamp(max=size + padding)
    return last - first if include else last.clamp(max=size) - first.clamp(min=0)


def _norm(path: str, name: str, module: Any, x: Array, y: Array, dtype: torch.dtype, producer: Layer | None) -> Written:
    if module.running_mean is None:
        refuse(label(path, module), "it has no running statistics and normalizes by those of the batch")
    mean, var = module.running_mean.double(), module.running_var.double()
    scale = (var + module.eps).rsqrt()
    shift = torch.zeros_like(scale)
    if module.affine:
        scale, shift = scale * module.weight.detach().double(), module.bias.detach().double()
    scale, shift = scale.cpu(), (shift - mean * scale).cpu()
    notes = [f"{label(path, module)}: it normalizes by its running statistics"]
    one_row = producer is not None and len(producer.y.shape) == 1
    if isinstance(producer, (Conv, layers.DelayedLinear)) or (isinstance(producer, Linear) and one_row):
        per_row = scale.view(-1, *[1] * (producer.weight.dim() - 1))
        producer.weight = (producer.weight.double() * per_row).to(dtype)
        producer.bias = (producer.bias.double() * scale + shift).to(dtype)
        producer.title += f"; with {label(path, module)} folded into it"
        return None, notes
    title = f"{label(path, module)}: {module.extra_repr()}"
    return Scale(name, title, (x,), y, scale.to(dtype), shift.to(dtype)), notes
