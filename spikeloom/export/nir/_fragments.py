"""From a layer to the nodes of its fragment; a neuron may be several."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from ...neurons import SpikingNeuron
from ...neurons.lstm import Gated
from ...neurons.recurrent import OneToOne, Recurrent
from ._forms import NoForm, by_methods, form_of, nodes_of
from ._gated import gated
from ._layers import HINTS, ROWS, Fragment, Place, array, check_forward
from ._metadata import described, noted
from ._package import nir_package


def fragment_of(layer: nn.Module, place: Place) -> Fragment | None:
    """The nodes of a layer; None if it changes nothing. Raises `NoForm` if NIR has none."""
    if isinstance(layer, Gated):
        return gated(layer, place)
    if isinstance(layer, SpikingNeuron):
        return _neuron(layer, place)
    for kind, row in ROWS:
        if isinstance(layer, kind):
            check_forward(layer, kind)
            node = row(layer, place)
            return None if node is None else Fragment({"": node})
    raise NoForm(f"NIR has no primitive for it{HINTS.get(type(layer).__name__, '')}")


def _neuron(neuron: Any, place: Place) -> Fragment:
    form = form_of(neuron, place.before, place.resets)
    values = [value for value in neuron._values(copied=False).values() if value.is_floating_point()]
    dtype = np.float64 if any(value.dtype is torch.float64 for value in values) else np.float32
    parts = nodes_of(form, place.dt, dtype)
    parts[0][1].metadata = described(neuron, {"lost": [*by_methods(neuron)]}) or noted({"lost": form.missing})
    if isinstance(neuron, Recurrent):
        return _recurrent(neuron, parts, form.missing, place)
    if len(parts) == 2:
        parts[1][1].metadata = noted({"part": "threshold"})
    names = [suffix for suffix, _ in parts]
    return Fragment(dict(parts), [*pairwise(names)], names[0], names[-1], form.missing)


def _recurrent(neuron: Any, parts: list[tuple[str, Any]], missing: tuple[str, ...], place: Place) -> Fragment:
    """A cycle: from the spikes through the weights back to the neuron."""
    inside = Place(place.before, place.before, place.lead, place.dt)
    layer = neuron.recurrent
    if isinstance(layer, OneToOne):
        V = layer.V.detach().cpu().expand(place.before)
        nir = nir_package()
        weights = nir.Linear(weight=array(torch.diag(V))) if V.dim() == 1 else nir.Scale(scale=array(V))
        weights.metadata = noted({"part": "V"})
    else:
        inner = fragment_of(layer, inside) if type(layer) in (nn.Linear, nn.Conv2d) else None
        if inner is None:
            raise NoForm(f"its recurrent layer is a {type(layer).__name__}; the nearest is one nn.Linear or nn.Conv2d")
        if layer._forward_hooks or layer._forward_pre_hooks:
            raise NoForm("its recurrent layer has a hook, which may change its output; remove it")
        weights = inner.nodes[""]
    nodes = {suffix or "lif": node for suffix, node in parts}
    names = list(nodes)
    first, last = names[0], names[-1]
    edges = [*pairwise(names), (last, "w_rec"), ("w_rec", first)]
    return Fragment({**nodes, "w_rec": weights}, edges, first, last, missing)
