"""Quantized weights in ONNX: torch's fake quantization as QuantizeLinear and DequantizeLinear, weights as integers."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from .file import graphs_of

Translation = Callable[..., Any]

INT8, UINT8 = 3, 2
"""ONNX's numbers of the types."""


def translations() -> dict[Any, Translation]:
    """How operations of fake quantization are written in ONNX, by operation.

    Raises:
        ValueError: where one is recorded whose range does not fit 8 bits.
    """
    from onnxscript import opset18

    op: Any = opset18

    def quantized(x: Any, scale: Any, zero: Any, low: int, high: int, axis: int | None) -> Any:
        signed, at = low < 0, {} if axis is None else {"axis": axis}
        full = (-128, 127) if signed else (0, 255)
        if low < full[0] or high > full[1]:
            raise ValueError(f"weights are quantized to {low} to {high}; ONNX has 8 bits, -128 to 127 or 0 to 255")
        zero = op.Cast(zero, to=INT8 if signed else UINT8)
        whole = op.QuantizeLinear(x, scale, zero, **at)
        if (low, high) != full:
            whole = op.Clip(whole, op.CastLike(low, whole), op.CastLike(high, whole))
        return op.DequantizeLinear(whole, scale, zero, **at)

    def by_numbers(x: Any, scale: float, zero_point: int, quant_min: int, quant_max: int) -> Any:
        numbers = op.Constant(value_float=scale), op.Constant(value_int=zero_point)
        return quantized(x, *numbers, quant_min, quant_max, None)

    def per_tensor(x: Any, scale: Any, zero_point: Any, fake: Any, quant_min: int, quant_max: int) -> Any:
        return quantized(x, op.Squeeze(scale), op.Squeeze(zero_point), quant_min, quant_max, None)

    def per_channel(x: Any, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int) -> Any:
        return quantized(x, scale, zero_point, quant_min, quant_max, axis)

    aten = torch.ops.aten
    return {
        aten.fake_quantize_per_tensor_affine.default: by_numbers,
        aten.fake_quantize_per_tensor_affine.tensor_qparams: per_tensor,
        aten.fake_quantize_per_channel_affine.default: per_channel,
    }


def fold_weights(model: Any) -> None:
    """Store quantized weights as integers: the nodes that compute them from constants become constants."""
    from onnx import numpy_helper

    graph = model.graph
    known = {constant.name: constant for constant in graph.initializer}
    used, before = set[str](), len(known)
    for inner in graphs_of(graph):  # the weights of a recurrent layer are in the body of its Scan
        for node in [*inner.node]:
            if node.op_type in FOLDED and all(name in known for name in node.input):
                axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
                arrays = [numpy_helper.to_array(known[name]) for name in node.input]
                constant = numpy_helper.from_array(FOLDED[node.op_type](axis, *arrays), node.output[0])
                graph.initializer.append(constant)
                known[node.output[0]] = constant
                inner.node.remove(node)
    if len(known) == before:
        return
    for inner in graphs_of(graph):
        used |= {name for node in inner.node for name in node.input} | {value.name for value in inner.output}
    for constant in [c for c in graph.initializer if c.name not in used]:
        graph.initializer.remove(constant)


Array = Any
"""A NumPy array."""


def _quantize(axis: int, x: Array, scale: Array, zero: Array) -> Array:
    if scale.ndim:
        shape = [-1 if i == axis else 1 for i in range(x.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    limits = np.iinfo(zero.dtype)
    return np.clip(np.rint(x / scale) + zero, limits.min, limits.max).astype(zero.dtype)


def _clip(axis: int, x: Array, low: Array, high: Array) -> Array:
    return np.clip(x, low, high)


FOLDED: Mapping[str, Callable[..., Any]] = {"QuantizeLinear": _quantize, "Clip": _clip}
"""Operators that are computed at the export, if their inputs are constants."""
