"""Profiles of readers: what each ignores, misreads or cannot read, and how a graph is written to be read right.

A rule per primitive rewrites a node in place, to other values of the same neuron that the reader takes as they are
meant; or it says why the reader cannot run it. The facts are measured by `python -m spikeloom conformance`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._graph import Flat, flattened, is_cycle, kind_of, listed, ordered_groups
from ._package import Node, nir_package
from ._target_rules import (
    Misread,
    affine,
    exponential_li,
    flat_order,
    if_as_lif,
    negative_flatten,
    plain_conv,
    plain_if,
    same,
    subtracting,
    uniform,
    uniform_if,
    uniform_threshold,
    unit_li,
    unit_r,
    without_offset,
    without_padding,
)

Rule = Callable[[Node, float], Node]
"""From a node and dt to the node that is written; raises `Misread`."""


@dataclass(frozen=True)
class Target:
    """A reader of NIR.

    Args:
        title: its name and the release that was measured.
        rules: by primitive; it cannot read any other.
        reasons: why it cannot read a primitive, where more is known than that it has none.
        cycles: whether it runs cycles.
        branches: whether it runs more than a chain of nodes.
        pairs: primitives that it reads only together, the second right after the first.
        nested: whether a recurrent neuron must be a subgraph.
        resets: the reset of its neurons, and whether it comes one step after the spike.
        dt: the only length of a step that it knows; None if it can be set.
    """

    title: str
    rules: Mapping[str, Rule]
    reasons: Mapping[str, str]
    cycles: bool = False
    branches: bool = True
    pairs: tuple[str, str] | None = None
    nested: bool = False
    resets: tuple[str, bool] = ("zero", False)
    dt: float | None = None


def adapted(graph: Any, target: str, dt: float) -> Any:
    """The graph for a reader; raises a ValueError that names what it cannot read, and the nearest that it can."""
    reader, flat = TARGETS[target], flattened(graph)
    if reader.dt is not None and not np.isclose(dt, reader.dt):
        raise ValueError(f"dt is {dt}; {reader.title} reads every graph with dt={reader.dt}, so pass that")
    if not reader.branches:
        _check_chain(reader, flat)
    if reader.pairs is not None:
        _check_pairs(reader, flat)
    recurrent = [group for group in ordered_groups(flat) if is_cycle(flat, group)]
    if recurrent and not reader.cycles:
        raise ValueError(f"the node {recurrent[0][0]!r} is part of a cycle; {reader.title} cannot run cycles")
    for group in recurrent:
        if len(group) != 2:
            raise ValueError(
                f"the nodes {listed(group)} form a cycle; {reader.title} is known to run only "
                "those of a neuron and its own weights, as of RLeaky. Export without a target"
            )
    for name, node in graph.nodes.items():
        if kind_of(node) not in ("Input", "Output"):
            graph.nodes[name] = _rewritten(reader, name, node, dt)
    for group in recurrent:
        _move_bias(reader, graph, flat, group)
    return _with_subgraphs(graph, recurrent) if reader.nested else graph


def _rewritten(reader: Target, name: str, node: Node, dt: float) -> Node:
    kind = kind_of(node)
    rule = reader.rules.get(kind)
    if rule is None:
        why = reader.reasons.get(kind, f"has no {kind}")
        raise ValueError(f"the node {name!r} ({kind}) cannot be written for {reader.title}, which {why}")
    try:
        written = rule(node, dt)
    except Misread as error:
        raise ValueError(f"the node {name!r} ({kind}) cannot be written for {reader.title}: {error}") from None
    written.metadata = node.metadata
    return written


def _check_chain(reader: Target, flat: Flat) -> None:
    outs = [a for a, _ in flat.edges]
    for name in flat.nodes:
        if len(flat.sources(name)) > 1 or outs.count(name) > 1:
            raise ValueError(f"the node {name!r} is a branch or a sum; {reader.title} runs chains of nodes only")
    if len(flat.of_kind("Input")) > 1 or len(flat.of_kind("Output")) > 1:
        raise ValueError(f"the network has several inputs or outputs; {reader.title} runs chains of nodes only")


def _check_pairs(reader: Target, flat: Flat) -> None:
    assert reader.pairs is not None
    first, second = reader.pairs
    for name, node in flat.nodes.items():
        after = [kind_of(flat.nodes[b]) for a, b in flat.edges if a == name]
        before = [kind_of(flat.nodes[source]) for source in flat.sources(name)]
        if (kind_of(node) == first and after != [second]) or (kind_of(node) == second and before != [first]):
            raise ValueError(
                f"the node {name!r} ({kind_of(node)}) cannot be written for {reader.title}, which reads {first} and "
                f"{second} only together: a neuron with reset_mechanism='none'"
            )


# -- cycles ------------------------------------------------------------------------------------------------------------


def _move_bias(reader: Target, graph: Any, flat: Flat, group: list[str]) -> None:
    """Move the bias of recurrent weights to the layer before the neuron: readers leave it out at the first step."""
    nir = nir_package()
    for name in group:
        node = graph.nodes[name]
        if kind_of(node) not in ("Affine", "Conv2d") or not np.any(node.bias):
            continue
        targets = [b for a, b in flat.edges if a == name]
        before = [source for source in flat.sources(targets[0]) if source not in group]
        alone = len(before) == len(targets) == 1 and [b for a, b in flat.edges if a == before[0]] == targets
        feeder = graph.nodes[before[0]] if alone else node
        if not alone or kind_of(node) != "Affine" or kind_of(feeder) not in ("Affine", "Linear"):
            raise ValueError(
                f"the node {name!r} ({kind_of(node)}) has a bias, which {reader.title} omits at the first step; "
                "pass recurrent weights without bias"
            )
        own = feeder.bias if kind_of(feeder) == "Affine" else 0
        bias = np.asarray(own + node.bias, dtype=node.bias.dtype)
        graph.nodes[before[0]] = nir.Affine(feeder.weight, bias, metadata=feeder.metadata)
        graph.nodes[name] = nir.Affine(node.weight, np.zeros_like(node.bias), metadata=node.metadata)


def _with_subgraphs(graph: Any, groups: list[list[str]]) -> Any:
    """The graph with each cycle as a subgraph, of the name that its nodes share."""
    nir = nir_package()
    nodes, edges = dict(graph.nodes), list(graph.edges)
    for group in groups:
        neuron = next(name for name in group if kind_of(nodes[name]) in ("IF", "LIF", "CubaLIF"))
        name, shape = neuron.removesuffix(".lif"), nodes[neuron].input_type["input"]
        short = {key: key.removeprefix(f"{name}.") for key in group}
        inner = [(short[a], short[b]) for a, b in edges if a in group and b in group]
        inner += [("input", short[neuron]), (short[neuron], "output")]
        parts = {
            "input": nir.Input(shape),
            **{short[key]: nodes.pop(key) for key in group},
            "output": nir.Output(shape),
        }
        edges = [(name if a in group else a, name if b in group else b) for a, b in edges if not {a, b} <= set(group)]
        nodes[name] = nir.NIRGraph(nodes=parts, edges=inner, type_check=False)
    return nir.NIRGraph(nodes=nodes, edges=[*dict.fromkeys(edges)], type_check=False, metadata=graph.metadata)


SUBTRACTS = "resets by subtraction and emits several spikes in a step"

TARGETS: Mapping[str, Target] = {
    "norse": Target(
        "Norse 1.1.0",
        {
            **dict.fromkeys(("Affine", "Linear", "Conv2d"), same),
            "Flatten": negative_flatten,
            "SumPool2d": without_padding,
            "IF": plain_if,
            "LIF": unit_r,
            "CubaLIF": without_offset,
        },
        {"AvgPool2d": "has no AvgPool2d; the nearest is SumPool2d, AvgPool2d with divisor_override=1"},
        cycles=True,
    ),
    "rockpool": Target(
        "Rockpool 3.1.0",
        dict.fromkeys(("Affine", "Linear"), same),
        {
            "LIF": "expects a tau_mem in LIF and fails",
            "CubaLIF": f"ignores w_in and v_reset of CubaLIF, decays exponentially, {SUBTRACTS}",
            "LI": "rounds the tau of LI to whole seconds",
        },
    ),
    "sinabs": Target(
        "Sinabs 3.1.3",
        {
            **dict.fromkeys(("Affine", "Conv2d", "Flatten"), same),
            "Linear": affine,
            "SumPool2d": without_padding,
            "LI": exponential_li,
        },
        {
            "IF": f"clamps the membrane of IF at minus the threshold, {SUBTRACTS}",
            "LIF": f"reads the tau of LIF as steps, ignores r, {SUBTRACTS}",
            "CubaLIF": "omits the neuron",
            "Conv1d": "fails on Conv1d",
            "AvgPool2d": "omits AvgPool2d; the nearest is SumPool2d, AvgPool2d with divisor_override=1",
        },
    ),
    "snntorch": Target(
        "snnTorch 1.0.0",
        {
            **dict.fromkeys(("Affine", "Linear", "Conv2d", "AvgPool2d"), same),
            "Flatten": negative_flatten,
            "SumPool2d": without_padding,
            "IF": if_as_lif,
            "LIF": uniform_threshold,
            "CubaLIF": uniform_threshold,
        },
        {},
        cycles=True,
        nested=True,
        dt=1e-4,
    ),
    "spikingjelly": Target(
        "SpikingJelly 2.0.0",
        {
            **dict.fromkeys(("Affine", "Linear", "Conv1d", "Conv2d", "AvgPool2d", "Flatten"), same),
            "SumPool2d": without_padding,
            "IF": uniform_if,
            "LIF": uniform,
            "CubaLIF": uniform,
        },
        {},
        cycles=True,
    ),
    "spyx": Target(
        "Spyx 1.0.0",
        {
            **dict.fromkeys(("Affine", "Linear", "Threshold"), same),
            "Conv2d": plain_conv,
            "SumPool2d": without_padding,
            "Flatten": flat_order,
            "LI": unit_li,
            **dict.fromkeys(("IF", "LIF"), subtracting),
        },
        {
            "AvgPool2d": "omits AvgPool2d; the nearest is SumPool2d, AvgPool2d with divisor_override=1",
            "CubaLIF": "subtracts the threshold of CubaLIF before the decay; the nearest is Leaky",
            **dict.fromkeys(("Delay", "Scale", "Conv1d"), "omits it"),
        },
        branches=False,
        pairs=("LI", "Threshold"),
        resets=("subtract", True),
    ),
}
"""By name, in the releases that were measured."""
