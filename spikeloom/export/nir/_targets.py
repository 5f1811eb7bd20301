"""Profiles of readers: what each drops, misreads or cannot read, and how a graph is written so that it reads it right.

A rule per primitive rewrites a node in place, to other values of the same neuron that the reader takes as they are
meant; or it says why the reader cannot run it. The facts are measured by `python -m spikeloom conformance`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._graph import Flat, flattened, is_cycle, kind_of, ordered_groups
from ._package import nir_package

Node = Any
Rule = Callable[[Node, float], Node]
"""From a node and dt to the node that is written; raises `Misread`."""


class Misread(ValueError):
    """What a reader makes of a node, and what it would read right."""


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
        dt: the only length of a step that it knows; None if it can be told.
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
                f"the node {name!r} ({kind_of(node)}) has a bias, which {reader.title} leaves out at the first step; "
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


# -- rules -------------------------------------------------------------------------------------------------------------


def same(node: Node, dt: float) -> Node:
    """As it is."""
    return node


def negative_flatten(node: Node, dt: float) -> Node:
    """Dimensions counted from the end, for readers that count the batch."""
    dims = len(node.input_type["input"])
    start, end = (int(dim) - dims if dim >= 0 else int(dim) for dim in (node.start_dim, node.end_dim))
    return nir_package().Flatten(input_type=node.input_type, start_dim=start, end_dim=end)


def without_padding(node: Node, dt: float) -> Node:
    """A pool whose padding the reader drops."""
    if np.any(node.padding):
        raise Misread(f"it drops the padding {np.atleast_1d(node.padding).tolist()}; pass padding=0")
    return node


def affine(node: Node, dt: float) -> Node:
    """A Linear as an Affine with a bias of zero."""
    return nir_package().Affine(node.weight, np.zeros(node.weight.shape[0], node.weight.dtype))


def _scaled(node: Node, factor: Any, **fields: Any) -> Node:
    """The same neuron with a membrane that is `factor` times as large."""
    changed = {
        name: getattr(node, name) * factor for name in ("v_leak", "v_threshold", "v_reset") if hasattr(node, name)
    }
    kept = {name: getattr(node, name) for name in ("tau", "tau_syn", "tau_mem", "r", "w_in") if hasattr(node, name)}
    typed = {name: np.asarray(value, dtype=node.r.dtype) for name, value in {**kept, **changed, **fields}.items()}
    return type(node)(**typed)


def _unit(value: Any) -> Any:
    """1 where a factor is 1 but for rounding, so that nothing is scaled by almost nothing."""
    return np.where(np.isclose(value, 1, rtol=1e-5), 1.0, value)


def unit_r(node: Node, dt: float) -> Node:
    """r = 1, with the threshold divided by r: for a reader that drops r."""
    _no_offset(node)
    return _scaled(node, 1 / node.r, r=np.ones_like(node.r))


def unit_gain(node: Node, dt: float) -> Node:
    """A gain of 1 per step, r = tau / dt, with the threshold divided by the gain."""
    _no_offset(node)
    if kind_of(node) == "CubaLIF":
        gain = _unit(node.w_in * dt / node.tau_syn) * _unit(node.r * dt / node.tau_mem)
        return _scaled(node, 1 / gain, r=node.tau_mem / dt, w_in=node.tau_syn / dt)
    return _scaled(node, 1 / _unit(node.r * dt / node.tau), r=node.tau / dt)


def uniform(node: Node, dt: float) -> Node:
    """A gain of 1, for a reader with one value for all neurons of a layer."""
    written = unit_gain(node, dt)
    _check_uniform(written, "tau", "tau_syn", "tau_mem", "v_threshold", "v_reset")
    return written


def uniform_threshold(node: Node, dt: float) -> Node:
    """A gain of 1, for a reader with one threshold for all neurons of a layer."""
    written = unit_gain(node, dt)
    _check_uniform(written, "v_threshold")
    return written


def _check_uniform(node: Node, *names: str) -> None:
    for name in names:
        value = getattr(node, name, None)
        if value is not None and np.unique(value).size > 1:
            raise Misread(f"it takes one {name} for all neurons of a layer; pass one number")


def without_offset(node: Node, dt: float) -> Node:
    """A neuron whose v_leak and v_reset the reader drops or misreads."""
    _no_offset(node)
    return node


def _no_offset(node: Node) -> None:
    for name in ("v_leak", "v_reset"):
        if hasattr(node, name) and np.any(getattr(node, name)):
            raise Misread(f"it drops or misreads {name}; the nearest has {name}=0")


def plain_if(node: Node, dt: float) -> Node:
    """An IF of a reader that adds its input as it is: a gain of 1, with the threshold divided by the gain."""
    _no_offset(node)
    return _scaled(node, 1 / _unit(node.r * dt), r=np.ones_like(node.r))


def uniform_if(node: Node, dt: float) -> Node:
    """An IF with r = 1 / dt and one threshold."""
    _no_offset(node)
    written = _scaled(node, 1 / _unit(node.r * dt), r=np.full_like(node.r, 1 / dt))
    _check_uniform(written, "v_threshold")
    return written


LONG = 2.0**26
"""Steps of a time constant after which, in single precision, nothing has decayed: 1 - 1 / LONG is 1."""


def if_as_lif(node: Node, dt: float) -> Node:
    """An IF as a LIF without decay in single precision."""
    _no_offset(node)
    threshold = node.v_threshold / _unit(node.r * dt)
    tau = np.full_like(node.r, dt * LONG)
    fields = {"tau": tau, "r": tau / dt, "v_leak": np.zeros_like(tau), "v_threshold": threshold}
    written = nir_package().LIF(**{name: np.asarray(value, dtype=node.r.dtype) for name, value in fields.items()})
    _check_uniform(written, "v_threshold")
    return written


def exponential_li(node: Node, dt: float) -> Node:
    """A LI of a reader that decays by exp(-1 / tau), with tau in steps, and adds its input as it is."""
    beta = 1 - dt / node.tau
    if not np.allclose(node.r * dt / node.tau, 1, rtol=1e-5) or np.any(node.v_leak):
        raise Misread("it takes only r=1 and v_leak=0, which is the membrane beta * mem + x of snn.LI")
    if np.any(beta <= 0):
        raise Misread("its decay is exp(-1 / tau), which is never 0; pass a beta above 0")
    tau = np.asarray(-1 / np.log(beta.astype(np.float64)), dtype=node.tau.dtype)
    return nir_package().LI(tau=tau, r=np.ones_like(tau), v_leak=np.zeros_like(tau))


def unit_li(node: Node, dt: float) -> Node:
    """A LI of a reader that drops r and v_leak."""
    if not np.allclose(node.r * dt / node.tau, 1, rtol=1e-5) or np.any(node.v_leak):
        raise Misread("it drops r and v_leak; the nearest has a gain of 1 and no leak potential")
    return node


def subtracting(node: Node, dt: float) -> Node:
    """A neuron of a reader that drops r."""
    _no_offset(node)
    gain = node.r * dt if kind_of(node) == "IF" else node.r * dt / node.tau
    if not np.allclose(gain, 1, rtol=1e-5):
        return _scaled(node, 1 / gain)
    return node


def flat_order(node: Node, dt: float) -> Node:
    """A Flatten of a reader with the channels last."""
    shape = [int(size) for size in node.input_type["input"]]
    if len(shape) > 1 and shape[0] > 1 and int(np.prod(shape[1:])) > 1:
        raise Misread(f"it flattens {tuple(shape)} with the channels last; pool or convolve to one channel before")
    return node


def plain_conv(node: Node, dt: float) -> Node:
    """A convolution of a reader that drops dilation."""
    if np.any(np.asarray(node.dilation) != 1):
        raise Misread("it drops the dilation; pass dilation=1")
    return node


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
            "LIF": "looks for a tau_mem in LIF, and fails",
            "CubaLIF": f"drops w_in and v_reset of CubaLIF, decays exponentially, {SUBTRACTS}",
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
            "IF": f"keeps the membrane of IF above minus the threshold, {SUBTRACTS}",
            "LIF": f"reads the tau of LIF as steps, drops r, {SUBTRACTS}",
            "CubaLIF": "leaves the neuron out",
            "Conv1d": "fails on Conv1d",
            "AvgPool2d": "leaves AvgPool2d out; the nearest is SumPool2d, AvgPool2d with divisor_override=1",
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
            "AvgPool2d": "leaves AvgPool2d out; the nearest is SumPool2d, AvgPool2d with divisor_override=1",
            "CubaLIF": "subtracts the threshold of CubaLIF before the decay; the nearest is Leaky",
            **dict.fromkeys(("Delay", "Scale", "Conv1d"), "leaves it out"),
        },
        branches=False,
        pairs=("LI", "Threshold"),
        resets=("subtract", True),
    ),
}
"""By name, in the releases that were measured."""
