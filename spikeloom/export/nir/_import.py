"""From a NIR graph to a network."""

import copy
import warnings
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...layers import SynapticDelay
from ...neurons import Leaky, RLeaky, RSynaptic, Synaptic
from ...neurons.recurrent import Recurrent
from ._graph import BadGraph, Flat, delayed_edges, flattened, is_cycle, kind_of, ordered_groups
from ._metadata import BadMetadata, checked_dt, is_sealed, note_of
from ._network import Cycle, Link, NIRNetwork, free_name
from ._nodes import Settings, by_metadata, module_of
from ._package import nir_package
from ._reading import read_graph
from ._shapes import infer_shapes

RESETS = ("zero", "subtract")


def import_from_nir(graph: Any, dt: float | None = None, reset: str | None = None) -> nn.Module:
    """Make a network from a NIR graph.

    A graph that `export_to_nir` wrote becomes the same network again, bit for bit, by its metadata. Any other is read
    as NIR says, by Euler steps of `dt`: v = v + dt / tau * ((v_leak - v) + r * x), a spike where v > v_threshold, then
    v = v_reset at once. A cycle takes one step: spikes come back to their neuron at the next one. States start at zero,
    or at v_reset where that is not zero. An IF or I with r = 1 adds its input itself, as the files of the field do.

    Args:
        graph: a nir.NIRGraph, or the path of a file. Files that older versions of nir wrote are corrected where it is
            clear how.
        dt: length of a step, in seconds. Default: that of the metadata, else 1e-4.
        reset: "zero", or "subtract" for graphs that were trained with a reset by subtraction, which NIR cannot say. If
            given, the metadata are not read. Default: the metadata, and "zero" where there are none.

    Returns:
        a network whose call takes one step: ``out, state = net(x)`` for x [B, *N]. Its neurons store their states;
        ``snn.unroll(net, x)`` runs all steps at once. Weights are parameters, and the values of neurons are buffers,
        unless the metadata say that they were learned.

    Raises:
        ValueError: if the graph cannot be read, with the name of the node and the reason: damaged files, unknown
            primitives, shapes that do not fit, cycles without a neuron, time constants shorter than dt.
        TypeError: if `graph` is neither a graph nor a path.
        ImportError: if the package nir is not installed.

    Source: Pedersen et al., "Neuromorphic intermediate representation: a unified instruction set for interoperable
    brain-inspired computing", 2024.

        >>> import nir, numpy as np, torch, spikeloom as snn
        >>> one = np.ones(2)
        >>> lif = nir.LIF(tau=1e-3 * one, r=10 * one, v_leak=0 * one, v_threshold=one)
        >>> net = snn.import_from_nir(nir.NIRGraph.from_list(nir.Linear(np.eye(2)), lif))
        >>> net.lif
        Leaky(beta=0.9, init_hidden=True, reset_mechanism='zero', reset_delay=False)
        >>> spk, state = net(torch.tensor([[0.5, 2.0]]))
        >>> spk.detach()
        tensor([[0., 1.]])
    """
    nir = nir_package()
    if isinstance(graph, (str, PathLike)):
        graph = read_graph(graph)
    if not isinstance(graph, nir.NIRGraph):
        if isinstance(graph, nir.NIRNode):
            raise TypeError(f"import_from_nir got a single {kind_of(graph)} node; pass nir.NIRGraph.from_list(node)")
        raise TypeError(f"import_from_nir got a {type(graph).__name__}; pass a nir.NIRGraph, or the path of a file")
    if reset is not None and reset not in RESETS:
        raise ValueError(f"reset is {reset!r}; choose one of {', '.join(map(repr, RESETS))}, or None for the metadata")
    note = _note(graph)
    dt = checked_dt(dt if dt is not None else note.get("dt", 1e-4))
    flat = flattened(graph)
    infer_shapes(flat, dt)
    _check_metadata(flat, reset)
    if reset is None:
        _fold(flat, dt)
    net = _network(flat, Settings(dt, reset))
    return net.to(torch.float64 if note.get("dtype") == "float64" else torch.get_default_dtype())


def _note(graph: Any) -> dict[str, Any]:
    try:
        return note_of(graph)
    except BadMetadata as error:
        raise BadGraph(f"the graph cannot be read: {error}") from error


def _check_metadata(flat: Flat, reset: str | None) -> None:
    """Raise where the metadata of a node are damaged; leave them out if they are not to be read."""
    for name, node in flat.nodes.items():
        try:
            lost = note_of(node).get("lost") if reset is None else None
            if isinstance(lost, list) and lost:
                told = f"the node {name!r} ({kind_of(node)}) was a neuron of which the file leaves out"
                warnings.warn(f"{told} {'; and '.join(map(str, lost))}", stacklevel=3)
        except BadMetadata as error:
            if reset is None:
                raise BadGraph(
                    f"the node {name!r} ({kind_of(node)}) cannot be rebuilt: {error}. Pass reset='zero' to read it "
                    "as NIR says"
                ) from error
            flat.nodes[name] = copy.copy(node)
            flat.nodes[name].metadata = {}


def _fold(flat: Flat, dt: float) -> None:
    """Make one node of the nodes that a spiking LSTM was written as, if they are as they were written."""
    for name in [name for name, node in flat.nodes.items() if "parts" in note_of(node)]:
        note = note_of(flat.nodes[name])
        stem = name.removesuffix("w_in")
        try:
            parts = [stem + part for part in note["parts"]]
            inner = {(stem + a, stem + b) for a, b in note["edges"]}
        except (TypeError, ValueError, KeyError) as error:
            raise BadGraph(f"the node {name!r} has metadata that name no parts; pass reset='zero'") from error
        nodes, ends = {*parts}, (name, stem + "threshold")
        crossing = [(a, b) for a, b in flat.edges if (a in nodes) != (b in nodes)]
        kept = all(part in flat.nodes and is_sealed(flat.nodes[part], dt) for part in parts)
        kept = kept and {(a, b) for a, b in flat.edges if a in nodes and b in nodes} == inner
        if kept and all(b == ends[0] or a == ends[1] for a, b in crossing) and nodes >= {*ends}:
            flat.fold(*ends, parts)
            continue
        warnings.warn(
            f"the nodes of {stem.removesuffix('.')!r} were changed after spikeloom wrote them, or dt is another; their "
            "fields are read, and not their metadata",
            stacklevel=3,
        )


def _network(flat: Flat, settings: Settings) -> NIRNetwork:
    inputs = {name: flat.shapes[name] for name in flat.of_kind("Input")}
    net = NIRNetwork(inputs, [flat.sources(name) for name in flat.of_kind("Output")])
    for group in ordered_groups(flat):
        name = group[0]
        if is_cycle(flat, group):
            _append_cycle(net, flat, group, settings)
        elif kind_of(flat.nodes[name]) not in ("Input", "Output"):
            net.append(name, _layer(flat, name, settings), flat.sources(name))
            if name in flat.wholes:
                _renamed(net, name.removesuffix("w_in").removesuffix("."))
    return net


def _layer(flat: Flat, name: str, settings: Settings) -> nn.Module:
    node, sources = flat.nodes[name], flat.sources(name)
    if name in flat.wholes:
        neuron: nn.Module = by_metadata(name, node, settings)
        return neuron
    if kind_of(node) == "Threshold" and len(sources) == 1 and _is_one_neuron(flat, sources[0], name, settings):
        return nn.Identity()
    targets = [b for a, b in flat.edges if a == name]
    whole = len(targets) == 1 and _is_one_neuron(flat, name, targets[0], settings)
    layer = module_of(name, node, settings, whole)
    if isinstance(layer, Recurrent):
        raise BadGraph(f"the node {name!r} is a {type(layer).__name__} by its metadata, without the cycle that it had")
    return layer


def _is_one_neuron(flat: Flat, name: str, threshold: str, settings: Settings) -> bool:
    """Whether two nodes were written for one neuron without a reset, and are as they were written."""
    neuron, after = flat.nodes[name], flat.nodes[threshold]
    if settings.reset is not None or _note_part(after) != "threshold" or "class" not in note_of(neuron):
        return False
    alone = [b for a, b in flat.edges if a == name] == [threshold] and flat.sources(threshold) == [name]
    return alone and is_sealed(neuron, settings.dt) and is_sealed(after, settings.dt)


# -- cycles ------------------------------------------------------------------------------------------------------------


def _append_cycle(net: NIRNetwork, flat: Flat, group: list[str], settings: Settings) -> None:
    neuron, weights = _pair(flat, group)
    if neuron:
        layer = _recurrent(flat, neuron, weights, settings)
        if layer is not None:
            outer = [source for source in flat.sources(neuron) if source != weights]
            net.append(neuron, layer, outer)
            _renamed(net, neuron.removesuffix(".lif"))
            return
    order, late = delayed_edges(flat, group, settings.dt)
    holder = nn.Module()
    links, layers, delayed = [], {}, {}
    for name in order:
        child = free_name(holder, name)
        layer = _layer_in_cycle(flat, name, settings)
        delayed[name] = [source for source in flat.sources(name) if (source, name) in late]
        at_once = [source for source in flat.sources(name) if (source, name) not in late]
        layers[child] = layer if at_once or not isinstance(layer, SynapticDelay) else _a_step_less(layer)
        holder.add_module(child, layers[child])
        links.append(Link(child, name, tuple(at_once)))
    shapes = {}
    for source in dict.fromkeys(source for name in order for source in delayed[name]):
        shape = flat.shapes[source]
        if shape is None:
            raise BadGraph(f"the node {source!r} feeds a cycle and its shape is not known; give the Input a shape")
        shapes[source] = shape
    cycle = Cycle(links, layers, delayed, shapes)
    net.append("cycle_of_" + order[0], cycle, [])


def _a_step_less(layer: SynapticDelay) -> SynapticDelay:
    """A delay for inputs that come one step late."""
    delay = (layer.delay.detach() - 1).clamp(min=0)
    learned = isinstance(layer.delay, nn.Parameter)
    return SynapticDelay(tuple(delay.shape), max(0, layer.max_delay - 1), delay, learned, layer.sigma)


def _renamed(net: NIRNetwork, short: str) -> None:
    """Give the last layer its short name: "1" for the neuron "1.lif" and its weights "1.w_rec"."""
    if not short or hasattr(net, short.replace(".", "_")):
        return
    link = net._links.pop()
    layer = net._modules.pop(link.child)
    child = free_name(net, short)
    net.add_module(child, layer)
    net._links.append(Link(child, link.name, link.sources))


def _layer_in_cycle(flat: Flat, name: str, settings: Settings) -> nn.Module:
    """The layer of a node in a cycle, where a recurrent neuron is one without its own recurrence."""
    layer = module_of(name, flat.nodes[name], settings)
    if isinstance(layer, Recurrent):
        layer = module_of(name, flat.nodes[name], Settings(settings.dt, settings.reset or layer.reset_mechanism))
    return layer


def _pair(flat: Flat, group: Sequence[str]) -> tuple[str, str]:
    """A neuron and the weights from it to itself, if the group is that."""
    neurons = [name for name in group if kind_of(flat.nodes[name]) in ("LIF", "CubaLIF", "IF")]
    weights = [name for name in group if kind_of(flat.nodes[name]) in ("Affine", "Linear", "Scale", "Conv2d")]
    if len(group) != 2 or len(neurons) != 1 or len(weights) != 1:
        return "", ""
    neuron, weight = neurons[0], weights[0]
    elsewhere = [edge for edge in flat.edges if edge[0] == weight and edge[1] != neuron]
    if flat.sources(weight) != [neuron] or elsewhere or (neuron, neuron) in flat.edges:
        return "", ""
    return neuron, weight


def _recurrent(flat: Flat, neuron: str, weights: str, settings: Settings) -> Any:
    """A recurrent neuron of the library; None if none has the values of the node."""
    layer: Any = module_of(neuron, flat.nodes[neuron], settings)
    through = module_of(weights, flat.nodes[weights], settings)
    if isinstance(layer, Recurrent):
        if _note_part(flat.nodes[weights]) != "V" or not is_sealed(flat.nodes[weights]):
            layer.recurrent = through.requires_grad_(layer.learn_recurrent)
            _describe(layer, through)
        return layer
    if type(layer) not in (Leaky, Synaptic):
        return None
    options = {name: getattr(layer, name) for name in ("reset_mechanism", "reset_delay", "init_hidden")}
    values = {name: getattr(layer, name) for name in ("alpha", "beta", "threshold") if hasattr(layer, name)}
    V = _diagonal(flat.nodes[weights])
    made = (RLeaky if type(layer) is Leaky else RSynaptic)(
        **values, **options, V=1.0 if V is None else V, all_to_all=False
    )
    if V is None:
        made.recurrent = through
        _describe(made, through)
    return made


def _note_part(node: Any) -> str:
    return str(note_of(node).get("part", ""))


def _describe(layer: Any, through: nn.Module) -> None:
    """Set the attributes that a neuron with this recurrent layer has."""
    layer._parameters.pop("V", None)
    layer._buffers.pop("V", None)
    layer.all_to_all = True
    if isinstance(through, nn.Linear):
        layer.linear_features = through.out_features
    if isinstance(through, nn.Conv2d):
        height, width = through.kernel_size
        layer.conv2d_channels, layer.kernel_size = through.out_channels, height if height == width else (height, width)


def _diagonal(node: Any) -> Tensor | None:
    """The weights of a one-to-one recurrence; None if it is another."""
    if kind_of(node) == "Scale":
        return torch.tensor(np.asarray(node.scale, dtype=np.float64))
    weight = np.asarray(node.weight, dtype=np.float64) if kind_of(node) == "Linear" else None
    if weight is None or not np.array_equal(weight, np.diag(np.diag(weight))):
        return None
    return torch.tensor(np.diag(weight).copy())
