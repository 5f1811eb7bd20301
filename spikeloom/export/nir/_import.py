"""From a NIR graph to a network."""

import copy
from os import PathLike
from typing import Any

import torch
from torch import nn

from ...caller import warn_caller
from ...layers import SynapticDelay
from ...neurons.recurrent import Recurrent
from ._graph import BadGraph, Flat, delayed_edges, flattened, is_cycle, kind_of, ordered_groups
from ._metadata import BadMetadata, check_metadata, checked_dt, note_of
from ._network import Cycle, Link, NIRNetwork, free_name
from ._nodes import Settings, module_of
from ._package import nir_package
from ._reading import read_graph
from ._shapes import infer_shapes
from ._wholes import a_step_less, wholes

RESETS = ("zero", "subtract")
DTYPES = {"float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


def import_from_nir(graph: Any, dt: float | None = None, reset: str | None = None) -> nn.Module:
    """Make a network from a NIR graph.

    From a graph that `export_to_nir` wrote, it makes the same network, bit for bit, by the metadata. It reads any other
    graph by NIR's equations, with Euler steps of `dt`: v = v + dt / tau * ((v_leak - v) + r * x), a spike where
    v > v_threshold, then v = v_reset at once. In a cycle, spikes reach their own neuron one step later. States start
    at zero, or at v_reset if that is not zero. IF and I with r = 1 add their input without the factor dt, because most
    files mean this.

    Args:
        graph: a nir.NIRGraph, or the path of a file. Files that older versions of nir wrote are corrected where it is
            clear how.
        dt: length of a step, in seconds. Default: that of the metadata, else 1e-4.
        reset: "zero", or "subtract" for graphs that were trained with a reset by subtraction, which NIR cannot
            express. If given, the metadata are not read. Default: the metadata, and "zero" where there are none.

    Returns:
        a network whose call takes one step: ``out, state = net(x)`` for x [B, *N]. Its neurons store their states;
        ``snn.unroll(net, x)`` runs all steps at once. Weights are parameters, and the values of neurons are buffers,
        unless the metadata list them as learned.

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
    settings = Settings(dt, reset)
    flat.fold(list(wholes(flat, settings)))
    net = _network(flat, settings)
    return net.to(DTYPES.get(str(note.get("dtype")), torch.get_default_dtype()))


def _note(graph: Any) -> dict[str, Any]:
    try:
        return note_of(graph)
    except BadMetadata as error:
        raise BadGraph(f"the graph cannot be read: {error}") from error


def _check_metadata(flat: Flat, reset: str | None) -> None:
    """Raise where the metadata of a node are damaged; leave them out if they are not to be read."""
    for name, node in flat.nodes.items():
        try:
            if reset is None:
                check_metadata(node)
            lost = note_of(node).get("lost") if reset is None else None
            if isinstance(lost, list) and lost:
                kind = kind_of(node)
                missing = "; and ".join(map(str, lost))
                warn_caller(f"the node {name!r} ({kind}) was a neuron of which the file omits {missing}")
        except BadMetadata as error:
            if reset is None:
                raise BadGraph(
                    f"the node {name!r} ({kind_of(node)}) cannot be rebuilt: {error}. Pass reset='zero' to read it "
                    "by NIR's equations"
                ) from error
            flat.nodes[name] = copy.copy(node)
            flat.nodes[name].metadata = {}


def _network(flat: Flat, settings: Settings) -> NIRNetwork:
    inputs = {name: flat.shapes[name] for name in flat.of_kind("Input")}
    net = NIRNetwork(inputs, [flat.sources(name) for name in flat.of_kind("Output")])
    for group in ordered_groups(flat):
        name = group[0]
        if is_cycle(flat, group):
            _append_cycle(net, flat, group, settings)
        elif kind_of(flat.nodes[name]) not in ("Input", "Output"):
            net.append(name, _layer(flat, name, settings), flat.sources(name))
    return net


def _layer(flat: Flat, name: str, settings: Settings) -> nn.Module:
    if name in flat.wholes:
        neuron: nn.Module = flat.wholes[name].layer
        return neuron
    layer = module_of(name, flat.nodes[name], settings)
    if isinstance(layer, Recurrent):
        raise BadGraph(f"the node {name!r} is a {type(layer).__name__} by its metadata, without the cycle that it had")
    return layer


# -- cycles ------------------------------------------------------------------------------------------------------------


def _append_cycle(net: NIRNetwork, flat: Flat, group: list[str], settings: Settings) -> None:
    order, late = delayed_edges(flat, group, settings.dt)
    holder = nn.Module()
    links, layers, delayed = [], {}, {}
    for name in order:
        child = free_name(holder, name)
        layer = _layer_in_cycle(flat, name, settings)
        delayed[name] = [source for source in flat.sources(name) if (source, name) in late]
        at_once = [source for source in flat.sources(name) if (source, name) not in late]
        layers[child] = layer if at_once or not isinstance(layer, SynapticDelay) else a_step_less(layer)
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


def _layer_in_cycle(flat: Flat, name: str, settings: Settings) -> nn.Module:
    """The layer of a node in a cycle, where a recurrent neuron is one without its own recurrence."""
    if name in flat.wholes:
        return _layer(flat, name, settings)
    layer = module_of(name, flat.nodes[name], settings)
    if isinstance(layer, Recurrent):
        layer = module_of(name, flat.nodes[name], Settings(settings.dt, settings.reset or layer.reset_mechanism))
    return layer
