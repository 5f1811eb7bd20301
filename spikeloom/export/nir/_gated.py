"""The spiking LSTMs to first order: their NIR nodes.

NIR has no products of two values. With the gates at their values without input, and tanh by its slope there, the
membrane is that of a leaky integrator, which a threshold reads:

    mem' = sigmoid(b_f) * mem + scale * (W_g x + U_g mem) + sigmoid(b_o) * sigmoid(b_i) * tanh(b_g)
    scale = sigmoid(b_o) * sigmoid(b_i) * (1 - tanh(b_g)^2)
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...neurons import SConv2dLSTM
from ._forms import by_methods
from ._layers import Fragment, Place, array, conv_node, linear_node, pool_node
from ._metadata import described, note_of, noted
from ._package import nir_package


def gated(neuron: Any, place: Place) -> Fragment:
    """The nodes of `SLSTM` and `SConv2dLSTM`: a cycle of a LI and its weights, with an input and a threshold."""
    nir = nir_package()
    shape = tuple(neuron._shape_of_states(torch.empty(1, *place.before)))[1:]
    inner = replace(place, before=shape, after=shape)
    layer, recurrent, keep = _linearized(neuron, shape)
    write = conv_node if isinstance(neuron, SConv2dLSTM) else linear_node
    one = np.ones(shape, dtype=np.float32)
    leak = array(1 - keep, shape).clip(2.0**-26)
    nodes = {
        "w_in": write(layer, replace(place, after=shape)),
        "li": nir.LI(tau=np.float32(place.dt) / leak, r=1 / leak, v_leak=0 * one),
        "w_rec": write(recurrent, inner),
    }
    size = getattr(neuron, "max_pool", 0) or getattr(neuron, "avg_pool", 0)
    if size:
        pool = nodes["pool"] = pool_node(nn.AvgPool2d(size), replace(inner, after=place.after))
        pool.input_type, pool.output_type = {"input": np.array(shape)}, {"output": np.array(place.after)}
    nodes["threshold"] = nir.Threshold(array(neuron.threshold, place.after))
    chain = [name for name in nodes if name != "w_rec"]
    edges = [*pairwise(chain), ("li", "w_rec"), ("w_rec", "li")]
    for name, node in nodes.items():
        node.metadata = noted({**note_of(node), "part": name})
    whole = {**note_of(nodes["w_in"]), "parts": list(nodes), "edges": edges, "lost": [*by_methods(neuron)]}
    missing = tuple(_missing(neuron))
    nodes["w_in"].metadata |= described(neuron, whole) or noted({**note_of(nodes["w_in"]), "lost": missing})
    return Fragment(nodes, edges, "w_in", "threshold", missing)


def _missing(neuron: Any) -> Iterator[str]:
    yield f"the equation of {type(neuron).__name__}; the nearest is {neuron.model.nearest.description}"
    if neuron.reset_mechanism != "none":
        yield f"reset_mechanism={neuron.reset_mechanism!r}, here of what it feeds back; the nearest is 'none'"
    if getattr(neuron, "max_pool", 0):
        yield "max_pool; the nearest is avg_pool"
    yield from by_methods(neuron)


def _linearized(neuron: Any, shape: tuple[int, ...]) -> tuple[Any, Any, Tensor]:
    """The layers from the input and from the membrane, and the decay."""
    weight, back, bias = (value.detach().cpu().double() for value in _weights(neuron))
    order = "ifog" if isinstance(neuron, SConv2dLSTM) else "ifgo"
    (i, f, g, o), (_, _, w, _), (_, _, u, _) = (
        [part.chunk(4)[order.index(gate)] for gate in "ifgo"] for part in (bias, weight, back)
    )
    scale = o.sigmoid() * i.sigmoid()
    slope = (scale * (1 - g.tanh() ** 2)).view(-1, *[1] * (w.dim() - 1))
    keep = 0.0 if getattr(neuron, "memoryless", False) else 1.0
    layer, recurrent = _layer(neuron, w * slope, scale * g.tanh()), _layer(neuron, keep * u * slope, None)
    return layer, recurrent, (keep * f.sigmoid()).view(-1, *[1] * (len(shape) - 1))


def _weights(neuron: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of the input and of the membrane, and the bias, with the gates along dimension 0."""
    if isinstance(neuron, SConv2dLSTM):
        weight, size = neuron.conv.weight, neuron.in_channels
        bias: Any = neuron.conv.bias if neuron.bias else weight.new_zeros(len(weight))
        return weight[:, :size], weight[:, size:], bias
    cell = neuron.lstm_cell
    bias = cell.bias_ih + cell.bias_hh if neuron.bias else cell.weight_ih.new_zeros(len(cell.weight_ih))
    return cell.weight_ih, cell.weight_hh, bias


def _layer(neuron: Any, weight: Tensor, bias: Tensor | None) -> Any:
    """A layer with these weights; that of the input has a bias."""
    out, into, *kernel = weight.shape
    if isinstance(neuron, SConv2dLSTM):
        stride: Any = 1 if bias is None else neuron.stride
        size: Any = tuple(kernel)
        layer: Any = nn.Conv2d(into, out, size, stride, neuron.padding, neuron.dilation, bias=bias is not None)
    else:
        layer = nn.Linear(into, out, bias=bias is not None)
    layer.weight = nn.Parameter(weight.float())
    if bias is not None:
        layer.bias = nn.Parameter(bias.float())
    return layer
