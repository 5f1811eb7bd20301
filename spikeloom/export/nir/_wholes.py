"""Find the neurons of a graph that are several nodes: a recurrent one, one without a reset, a spiking LSTM."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...caller import warn_caller
from ...layers import SynapticDelay
from ...neurons import Leaky, RLeaky, RSynaptic, Synaptic
from ...neurons.recurrent import Recurrent
from ._graph import BadGraph, Flat, Whole, kind_of
from ._metadata import is_sealed, note_of
from ._nodes import FIRING, SILENT, Settings, by_metadata, module_of

WEIGHTS = ("Affine", "Linear", "Scale", "Conv1d", "Conv2d")


def wholes(flat: Flat, settings: Settings) -> Iterator[Whole]:
    """The neurons that are several nodes, if these are as they were written, or are a neuron and its own weights."""
    taken = set[str]()
    for name, node in flat.nodes.items():
        whole = None
        if kind_of(node) in FIRING:
            whole = _recurrent(flat, name, name, settings)
        elif settings.reset is None and kind_of(node) in SILENT:
            whole = _without_reset(flat, name, settings)
        elif settings.reset is None and "parts" in note_of(node):
            whole = _lstm(flat, name, settings)
        if whole is not None:
            yield replace(whole, name=name) if whole.name in taken else whole
            taken.add(whole.name)


def _short(flat: Flat, name: str, suffix: str) -> str:
    """The name of a layer: "1" for the node "1.lif"."""
    short = name.removesuffix(suffix).removesuffix(".")
    return short if short and short not in flat.nodes else name


# -- spiking LSTMs -----------------------------------------------------------------------------------------------------


def _lstm(flat: Flat, name: str, settings: Settings) -> Whole | None:
    """A spiking LSTM; None, with a warning, if its nodes were changed."""
    note = note_of(flat.nodes[name])
    stem = name.removesuffix("w_in")
    try:
        parts = [stem + part for part in note["parts"]]
        inner = {(stem + a, stem + b) for a, b in note["edges"]}
    except (TypeError, ValueError, KeyError) as error:
        raise BadGraph(f"the node {name!r} has metadata that name no parts; pass reset='zero'") from error
    nodes, leave = {*parts}, stem + "threshold"
    kept = nodes >= {name, leave} and nodes <= {*flat.nodes}
    kept = kept and all(is_sealed(flat.nodes[part], settings.dt) for part in parts)
    kept = kept and _edges_between(flat, parts) == inner and _is_closed(flat, name, leave, parts)
    if kept:
        layer = by_metadata(name, flat.nodes[name], settings)
        return Whole(_short(flat, name, "w_in"), name, leave, parts, layer)
    warn_caller(
        f"the nodes of {stem.removesuffix('.')!r} were changed after spikeloom wrote them, or dt is another; their "
        "fields are read, and not their metadata"
    )
    return None


def _edges_between(flat: Flat, parts: Sequence[str]) -> set[tuple[str, str]]:
    return {(part, target) for part in parts for target in flat.targets(part) if target in parts}


def _is_closed(flat: Flat, entry: str, leave: str, parts: Sequence[str]) -> bool:
    """Whether all edges into some nodes go to their entry, and all out of them come from their exit."""
    into = all(part == entry or {*flat.sources(part)} <= {*parts} for part in parts)
    return into and all(part == leave or {*flat.targets(part)} <= {*parts} for part in parts)


# -- neurons without a reset -------------------------------------------------------------------------------------------


def _without_reset(flat: Flat, name: str, settings: Settings) -> Whole | None:
    """A neuron that was written as its membrane and a Threshold, with its own weights if it is recurrent."""
    node, targets = flat.nodes[name], flat.targets(name)
    if len(targets) != 1 or flat.sources(targets[0]) != [name] or "class" not in note_of(node):
        return None
    threshold = flat.nodes[targets[0]]
    if _part(threshold) != "threshold" or not (is_sealed(node, settings.dt) and is_sealed(threshold, settings.dt)):
        return None
    layer = by_metadata(name, node, settings)
    if isinstance(layer, Recurrent):
        return _recurrent(flat, name, targets[0], settings)
    return Whole(_short(flat, name, "li"), name, targets[0], [name, targets[0]], layer)


# -- recurrent neurons -------------------------------------------------------------------------------------------------


def _recurrent(flat: Flat, name: str, leave: str, settings: Settings) -> Whole | None:
    """A neuron and the weights from its spikes to itself; None if no neuron of the library has its values."""
    node = flat.nodes[name]
    weights = _own_weights(flat, name, leave, node, settings)
    if not weights:
        return None
    layer: Any = module_of(name, node, settings, leave != name)
    if isinstance(layer, Recurrent):
        if _part(flat.nodes[weights[0]]) != "V" or not is_sealed(flat.nodes[weights[0]]):
            _set_recurrent(layer, _through(flat, weights, settings))
            layer.recurrent.requires_grad_(layer.learn_recurrent)
    elif type(layer) in (Leaky, Synaptic):
        layer = _as_recurrent(layer, flat, weights, settings)
    else:
        return None
    return Whole(_short(flat, name, "lif" if name == leave else "li"), name, leave, [name, leave, *weights], layer)


def _own_weights(flat: Flat, name: str, leave: str, node: Any, settings: Settings) -> list[str]:
    """The nodes from a neuron's spikes back to itself: weights, or several layers if they were written so."""
    if name in flat.targets(leave):
        return []
    note = note_of(node).get("recurrent") if settings.reset is None else None
    stem = name.removesuffix("lif" if name == leave else "li")
    chain = [f"{stem}{part}" for part in note] if isinstance(note, list) and note else []
    if chain and all(part in flat.nodes and kind_of(flat.nodes[part]) in (*WEIGHTS, "Delay") for part in chain):
        links = zip([leave, *chain], [*chain, name], strict=True)
        if all(flat.targets(a) == [b] for a, b in [*links][1:]) and all(
            flat.sources(b) == [a] for a, b in zip([leave, *chain], chain, strict=False)
        ):
            return chain
    found = [
        part
        for part in flat.targets(leave)
        if kind_of(flat.nodes[part]) in WEIGHTS and flat.sources(part) == [leave] and flat.targets(part) == [name]
    ]
    return found if len(found) == 1 else []


def _through(flat: Flat, names: Sequence[str], settings: Settings) -> nn.Module:
    """The layer that the spikes pass on their way back. Of a Delay, one step is that of the way back."""
    layers = [module_of(name, flat.nodes[name], settings) for name in names]
    first = next((i for i, layer in enumerate(layers) if isinstance(layer, SynapticDelay)), None)
    if first is not None:
        layers[first] = a_step_less(layers[first])
    return layers[0] if len(layers) == 1 and names[0].endswith("w_rec") else nn.Sequential(*layers)


def a_step_less(layer: Any) -> SynapticDelay:
    """A delay for inputs that come one step late."""
    delay = (layer.delay.detach() - 1).clamp(min=0)
    learned = isinstance(layer.delay, nn.Parameter)
    return SynapticDelay(tuple(delay.shape), max(0, layer.max_delay - 1), delay, learned, layer.sigma)


def _as_recurrent(layer: Any, flat: Flat, weights: Sequence[str], settings: Settings) -> Recurrent:
    """The recurrent neuron of the same equation."""
    options = {name: getattr(layer, name) for name in ("reset_mechanism", "reset_delay", "init_hidden")}
    values = {name: getattr(layer, name) for name in ("alpha", "beta", "threshold") if hasattr(layer, name)}
    V = _diagonal(flat.nodes[weights[0]]) if len(weights) == 1 else None
    made = (RLeaky if type(layer) is Leaky else RSynaptic)(
        **values, **options, V=1.0 if V is None else V, all_to_all=False
    )
    if V is None:
        _set_recurrent(made, _through(flat, weights, settings))
    return made


def _set_recurrent(layer: Any, through: nn.Module) -> None:
    """Set the layer of the recurrence, and the attributes of a neuron that has it."""
    layer.recurrent = through
    layer._parameters.pop("V", None)
    layer._buffers.pop("V", None)
    layer.all_to_all = True
    if isinstance(through, nn.Linear):
        layer.linear_features = through.out_features
    if isinstance(through, nn.Conv2d):
        height, width = through.kernel_size
        layer.conv2d_channels, layer.kernel_size = through.out_channels, height if height == width else (height, width)


def _part(node: Any) -> str:
    return str(note_of(node).get("part", ""))


def _diagonal(node: Any) -> Tensor | None:
    """The weights of a one-to-one recurrence; None if it is another."""
    if kind_of(node) == "Scale":
        return torch.tensor(np.asarray(node.scale, dtype=np.float64))
    weight = np.asarray(node.weight, dtype=np.float64) if kind_of(node) == "Linear" else None
    if weight is None or not np.array_equal(weight, np.diag(np.diag(weight))):
        return None
    return torch.tensor(np.diag(weight).copy())
