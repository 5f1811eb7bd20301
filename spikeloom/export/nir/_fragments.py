"""From a layer to the nodes of its fragment; a neuron may be several."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...layers import GradedSpikes, SynapticDelay
from ...neurons import SpikingNeuron
from ...neurons.lstm import Gated
from ...neurons.recurrent import OneToOne, Recurrent
from ._forms import NoForm, by_methods, form_of, nodes_of
from ._gated import gated
from ._graph import kind_of
from ._layers import DROPOUT, HINTS, ROWS, Fragment, Place, array, check_forward
from ._metadata import described, note_of, noted
from ._modules import Factor, Scale
from ._network import clear
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
    nodes = {suffix or "lif": node for suffix, node in parts}
    first, last = next(iter(nodes)), [*nodes][-1]
    if len(parts) == 2:
        nodes[last].metadata = noted({"part": "threshold"})
    weights = _weights(neuron, place)
    several = [*weights] != ["w_rec"] or kind_of(weights["w_rec"]) == "Delay"
    if several and (note := note_of(nodes[first])):
        nodes[first].metadata |= noted({**note, "recurrent": [*weights]})
    if _has_bias_before_delay(weights):
        sentence = "a bias before a delay in its recurrent layer, which NIR applies one step later"
        missing = (*missing, f"{sentence}; the nearest is a bias after the delay")
    chain = [*nodes, *weights, first]
    return Fragment({**nodes, **weights}, [*pairwise(chain)], first, last, missing)


def _weights(neuron: Any, place: Place) -> dict[str, Any]:
    """The nodes of the recurrent layer, by name."""
    layer, nir = neuron.recurrent, nir_package()
    if isinstance(layer, OneToOne):
        V = layer.V.detach().cpu().expand(place.before)
        node = nir.Linear(weight=array(torch.diag(V))) if V.dim() == 1 else nir.Scale(scale=array(V))
        node.metadata = noted({"part": "V"})
        return {"w_rec": node}
    nodes, x, late = dict[str, Any](), torch.zeros(*[1] * place.lead, *place.before), 1
    layers = [(name, part) for name, part in layer.named_modules() if type(part) is not nn.Sequential]
    for name, part in layers:
        if not isinstance(part, IN_A_CYCLE):
            raise NoForm(f"its recurrent layer has a {type(part).__name__}; {RECURRENCES}")
        if part._forward_hooks or part._forward_pre_hooks:
            raise NoForm("its recurrent layer has a hook, which may change its output; remove it")
        x, before = _after(part, x), tuple(x.shape[place.lead :])
        delays = isinstance(part, SynapticDelay)
        inside = Place(before, tuple(x.shape[place.lead :]), place.lead, place.dt, late=late if delays else 0)
        fragment = fragment_of(part, inside)
        if fragment is not None:
            nodes[f"w_rec.{name}" if name else "w_rec"] = fragment.nodes[""]
            late = 0 if delays else late
    if not nodes:
        raise NoForm("its recurrent layer is an identity; the nearest is V=1 and all_to_all=False")
    if tuple(x.shape[place.lead :]) != place.before:
        raise NoForm(f"its recurrent layer returns {tuple(x.shape[place.lead :])} for spikes of {place.before}")
    return nodes


IN_A_CYCLE = (nn.Linear, nn.Conv1d, nn.Conv2d, SynapticDelay, GradedSpikes, Scale, Factor, nn.Identity, *DROPOUT)
RECURRENCES = "the nearest is nn.Linear, nn.Conv2d, SynapticDelay, or an nn.Sequential of them"


def _after(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        clear(layer)
        out: Tensor = layer(x.to(next(layer.parameters(), x).dtype))
        clear(layer)
    return out


def _has_bias_before_delay(weights: Mapping[str, Any]) -> bool:
    biased = False
    for node in weights.values():
        if kind_of(node) == "Delay" and biased:
            return True
        biased = biased or bool(np.any(getattr(node, "bias", 0)))
    return False
