"""From a network to a NIR graph."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..._torch import uncompiled
from ...alias import stands_in
from ...caller import warn_caller
from ...engine.run import backend
from ._forms import NoForm
from ._fragments import fragment_of
from ._graph import kind_of, listed
from ._layers import Fragment, Place, factor_node, flatten_node
from ._metadata import checked_dt, noted, seal
from ._network import clear
from ._package import Node, nir_package
from ._recording import Recording, Step
from ._report import Report, compare
from ._targets import TARGETS, adapted
from ._tracing import record


def export_to_nir(
    module: nn.Module,
    sample_data: Tensor | Sequence[Tensor],
    model_name: str = "spikeloom",
    model_fwd: Callable[..., Any] | Sequence[Any] | None = None,
    ignore_dims: Sequence[int] | int | None = (),
    dt: float = 1e-4,
    target: str | None = None,
    allow_approximate: bool | None = None,
    *,
    validation: Tensor | Sequence[Tensor] | None = None,
) -> Any:
    """Convert a network to a NIR graph, which other frameworks and neuromorphic hardware read.

    A node of the graph is a differential equation, with a spike where v > v_threshold and then v = v_reset at once. A
    reader that takes Euler steps of `dt` computes the same spikes. A layer that NIR cannot express raises an error that
    names the layer and the nearest that NIR can express. Scalar parameters get the shape that the sample has at their
    layer. The graph also holds metadata from which `import_from_nir` makes the same network again, bit for bit.

    A copy of the network is traced: it runs once on the sample. Layers may be nested and called in any order. Between
    them, the forward may add outputs, flatten them, and multiply them by constants. `module` is not changed.

    Args:
        module: the network; its forward runs one step.
        sample_data: the input of one step, [B, *N] or [N]; a tuple of them for a network with several inputs.
        model_name: name of the network, stored in the metadata of the graph.
        model_fwd: a function (module, *inputs) that runs one step, if the forward does not; or a list of further
            arguments of the forward.
        ignore_dims: the dimensions of the sample that are the batch, [0] or none. Default: dimension 0, if the sample
            has two or more dimensions and is not an image [C, H, W] that a convolution gets.
        dt: length of a step, in seconds.
        target: the framework that is to read the graph: "norse", "rockpool", "sinabs", "snntorch", "spikingjelly" or
            "spyx". The graph is then written so that this framework computes the same spikes, and what it would ignore
            or misread raises an error. Default: any reader that follows NIR.
        allow_approximate: if True, neurons that NIR cannot express are written as the nearest that it can, with a
            warning that states how many output values differ for a reader that follows NIR. None: False, but True under
            `as_snntorch`, as snnTorch writes its default neurons without an error.
        validation: inputs [T, B, *N], or a tuple of them, for that warning. Default: the sample over 100 steps.

    Returns:
        a nir.NIRGraph; ``nir.write("net.nir", graph)`` stores it.

    Raises:
        ValueError: if NIR or the target cannot express a layer, or the forward is not a graph of layers.
        TypeError: if `module` is not a module, or the sample is not a tensor.
        ImportError: if the package nir is not installed.

    Source: Pedersen et al., "Neuromorphic intermediate representation: a unified instruction set for interoperable
    brain-inspired computing", 2024.

        >>> import torch, spikeloom as snn
        >>> lif = snn.Leaky(beta=0.9, reset_mechanism="zero", reset_delay=False, init_hidden=True)
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), lif)
        >>> graph = snn.export_to_nir(net, torch.rand(2, 3))
        >>> list(graph.nodes), graph.nodes["1"].tau.shape
        (['input', '0', '1', 'output'], (4,))
    """
    nir = nir_package()
    samples, dt = _checked(module, sample_data, target), checked_dt(dt)
    approximate = stands_in() if allow_approximate is None else bool(allow_approximate)
    module = uncompiled(module)
    _check_run(model_fwd, validation)
    net = _copied(module)
    run = model_fwd if callable(model_fwd) else lambda net, *inputs: net(*inputs, *(model_fwd or ()))
    lead = _lead(net, samples, ignore_dims)
    with backend("loop"):  # one step is not worth a kernel
        recording = record(net, samples, run, lead)
    missing: dict[str, tuple[str, ...]] = {}
    resets = ("zero", False) if target is None else TARGETS[target].resets
    nodes, edges = _built(recording, Settings(lead, dt, resets, approximate, target is None), missing)
    graph = nir.NIRGraph(nodes=nodes, edges=edges, type_check=False)
    note = {"name": model_name, "dt": dt, "target": target, "dtype": _dtype(module)}
    graph.metadata = noted(note)
    if target is not None:
        graph = adapted(graph, target, dt)
    graph.infer_types()
    seal(graph, dt)
    if missing:
        read_out = [leaf for _, _, leaf in recording.outputs]
        with backend("loop"):
            report = compare(partial(run, net), net, graph, samples, validation, read_out)
        graph.metadata = noted({**note, "report": vars(report)})
        warn_caller(_message(report, missing))
    return graph


# -- the arguments -----------------------------------------------------------------------------------------------------


def _checked(module: Any, sample_data: Any, target: str | None) -> tuple[Tensor, ...]:
    if not isinstance(module, nn.Module):
        raise TypeError(f"export_to_nir requires a network, an nn.Module; got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            "export_to_nir got a ScriptModule, whose forward is not traced; pass the module it was made from"
        )
    samples = tuple(sample_data) if isinstance(sample_data, (tuple, list)) else (sample_data,)
    for sample in samples:
        if not isinstance(sample, Tensor):
            raise TypeError(
                f"sample_data is {type(sample).__name__}; pass the input of one step, a tensor [B, *N], or a tuple of "
                "tensors for a network with several inputs"
            )
        if not sample.numel() or not sample.dim():
            raise ValueError(f"sample_data has shape {tuple(sample.shape)}; pass the input of one step, [B, *N] or [N]")
    if not samples:
        raise TypeError("sample_data is empty; pass the input of one step, a tensor [B, *N]")
    if target is not None and target not in TARGETS:
        raise ValueError(f"target is {target!r}; choose one of {', '.join(map(repr, sorted(TARGETS)))}, or None")
    lazy = [name for name, parameter in module.named_parameters() if is_lazy(parameter) or parameter.is_meta]
    if lazy:
        raise ValueError(f"the parameter {lazy[0]!r} has no values yet; run or load the network, then export it")
    return samples


def _check_run(model_fwd: Any, validation: Any) -> None:
    if not (model_fwd is None or callable(model_fwd) or isinstance(model_fwd, (list, tuple))):
        raise TypeError(
            f"model_fwd is {model_fwd!r}; pass a function (module, *inputs) that runs one step, or a list of further "
            "arguments of the forward"
        )
    inputs = validation if isinstance(validation, (tuple, list)) else [validation]
    if validation is None:
        return
    if not inputs or not all(isinstance(x, Tensor) for x in inputs):
        kinds = ", ".join(type(x).__name__ for x in inputs) or "empty"
        raise TypeError(f"validation is {kinds}; pass inputs [T, B, *N], a tensor or a tuple of tensors")
    if not all(x.numel() for x in inputs):
        shapes = " and ".join(str(tuple(x.shape)) for x in inputs)
        raise ValueError(f"validation has shape {shapes}; pass at least one step")


def _copied(module: nn.Module) -> nn.Module:
    """A copy of the network in evaluation mode, with its states cleared."""
    try:
        net = copy.deepcopy(module).eval()
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"the network cannot be copied, and export traces a copy: {error}. Does it store tensors of an earlier "
            "step? Detach or delete them"
        ) from error
    clear(net)
    return net


def _dtype(module: nn.Module) -> str:
    """The dtype of the network that is imported from the graph: of its parameters, or else of its buffers."""
    held: list[Tensor] = [*module.parameters()]
    held = held or [value for value in module.buffers() if value.is_floating_point()]
    dtypes = {value.dtype for value in held}
    half = next((dtype for dtype in (torch.float16, torch.bfloat16) if dtypes == {dtype}), torch.float32)
    return str(torch.float64 if torch.float64 in dtypes else half).removeprefix("torch.")


def _lead(net: nn.Module, samples: tuple[Tensor, ...], given: Sequence[int] | int | None) -> int:
    """The number of leading dimensions of the sample that are the batch."""
    dims = samples[0].dim()
    ignore_dims = () if given is None else (given,) if isinstance(given, int) else given
    if not isinstance(ignore_dims, Sequence) or not all(hasattr(dim, "__index__") for dim in ignore_dims):
        raise TypeError(f"ignore_dims is {given!r}; pass the dimensions of the sample that are the batch, as in [0]")
    if len(ignore_dims):
        ignored = sorted(dim % max(1, dims) for dim in ignore_dims)
        if ignored != list(range(len(ignored))) or len(ignored) >= max(1, dims):
            raise ValueError(
                f"ignore_dims is {list(ignore_dims)} for a sample of shape {tuple(samples[0].shape)}; the dimensions "
                "of the batch come first, as in ignore_dims=[0], and leave some for the step"
            )
        return len(ignored)
    first = next((layer for layer in net.modules() if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear))), None)
    if isinstance(first, (nn.Conv1d, nn.Conv2d)) and dims == len(first.kernel_size) + 1:
        return 0
    return int(dims > 1)


# -- the nodes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What holds for all of a graph: the dimensions of the batch, dt, the reset of its reader, approximations.

    In an `ordered` graph, sums are computed in the order of the forward, so that they are rounded equally.
    """

    lead: int
    dt: float
    resets: tuple[str, bool]
    approximate: bool
    ordered: bool


def _built(
    recording: Recording, settings: Settings, missing: dict[str, tuple[str, ...]]
) -> tuple[dict[str, Node], list[tuple[str, str]]]:
    nir, lead = nir_package(), settings.lead
    nodes: dict[str, Node] = {}
    edges: list[tuple[str, str]] = []
    exits: dict[str, tuple[str, ...]] = {}  # by key of a step: the nodes whose sum is its output
    back: list[tuple[str, str, Place]] = []  # in a cycle: keys of later steps, and the nodes that they feed
    for name, shape in recording.inputs:
        nodes[name] = nir.Input(input_type=np.array(shape[lead:] or (1,)))
        exits[name] = (name,)
    for step in recording.steps:
        place = Place(step.before[lead:], step.after[lead:], lead, settings.dt, settings.resets, step.late)
        fragment = _fragment(step, place, settings.ordered)
        ran = [key for key in step.sources if key in exits]
        sources = _sources(ran, exits, nodes, edges, place, settings.ordered)
        if fragment is None:
            exits[step.key] = sources
            continue
        for node in fragment.nodes.values():
            if node.output_type is None or node.output_type["output"] is None:  # nir types pools by their neighbors
                node.input_type, node.output_type = {"input": np.array(place.before)}, {"output": np.array(place.after)}
        if fragment.missing:
            if not settings.approximate:
                raise ValueError(f"{step.label} has {_list(fragment.missing)}. {CURE}")
            missing[step.label] = fragment.missing
        full = {suffix: f"{step.key}.{suffix}" if suffix else step.key for suffix in fragment.nodes}
        nodes |= {full[suffix]: node for suffix, node in fragment.nodes.items()}
        edges += [(source, full[fragment.entry]) for source in sources]
        edges += [(full[a], full[b]) for a, b in fragment.edges]
        back += [(key, full[fragment.entry], place) for key in step.sources if key not in exits]
        exits[step.key] = (full[fragment.exit],)
    for key, entry, place in back:
        edges += [(source, entry) for source in _sources([key], exits, nodes, edges, place, settings.ordered)]
    for i, (keys, shape, _) in enumerate(recording.outputs):
        name = "output" if len(recording.outputs) == 1 else f"output_{i}"
        place = Place(shape[lead:], shape[lead:], lead, settings.dt)
        sources = _sources(keys, exits, nodes, edges, place, settings.ordered)
        nodes[name] = nir.Output(output_type=np.array(shape[lead:] or (1,)))
        edges += [(source, name) for source in sources]
    return _used(nodes, edges)


def _used(nodes: dict[str, Node], edges: list[tuple[str, str]]) -> tuple[dict[str, Node], list[tuple[str, str]]]:
    """The nodes that an output depends on; raises ValueError if an input is not among them."""
    before: dict[str, list[str]] = {name: [] for name in nodes}
    for a, b in edges:
        before[b].append(a)
    used, ahead = set[str](), [name for name, node in nodes.items() if kind_of(node) == "Output"]
    while ahead:
        name = ahead.pop()
        if name not in used:
            used.add(name)
            ahead += before[name]
    unread = [name for name, node in nodes.items() if kind_of(node) == "Input" and name not in used]
    if unread:
        raise ValueError(
            f"no output depends on {listed(unread)}, and NIR has no input that nothing reads; pass the other inputs as "
            "the sample, and model_fwd, a function that runs one step with these"
        )
    return {name: node for name, node in nodes.items() if name in used}, [(a, b) for a, b in edges if b in used]


CURE = "Pass allow_approximate=True to write the nearest, with a report of how many spikes differ"


def _list(sentences: Sequence[str]) -> str:
    return "; and ".join(sentences)


def _fragment(step: Step, place: Place, ordered: bool) -> Fragment | None:
    try:
        if step.layer is not None:
            return fragment_of(step.layer, place)
        if step.operation == "flatten":
            return Fragment({"": flatten_node(place.before, place.after)})
        if step.operation == "sum":
            return Fragment({"": factor_node(torch.ones(()), False, place)}) if ordered else None
        return Fragment({"": factor_node(step.factor, step.operation == "divide", place)})
    except NoForm as error:
        raise ValueError(f"{step.label} cannot be written to NIR: {error}") from None


def _sources(
    keys: Sequence[str],
    exits: dict[str, tuple[str, ...]],
    nodes: dict[str, Node],
    edges: list[tuple[str, str]],
    place: Place,
    ordered: bool,
) -> tuple[str, ...]:
    """The nodes of a sum. NIR has one edge from a node to another, so what is added n times passes a Scale of n.

    In an ordered graph it passes n - 1 of 1, unless the sum has no other part.
    """
    found = [node for key in keys for node in exits[key]]
    counted, sources = Counter(found), list[str]()
    one_by_one = ordered and (len(counted) > 1 or len(found) > 3)  # x + x and 2 * x are rounded equally

    def scaled(node: str, name: str, factor: int) -> str:
        if name not in nodes:
            nodes[name] = factor_node(torch.tensor(float(factor)), False, place)
            edges.append((node, name))
        return name

    if not one_by_one:
        return tuple(scaled(node, f"{node}.times_{n}", n) if n > 1 else node for node, n in counted.items())
    for i, node in enumerate(found):
        times = found[:i].count(node)
        sources.append(scaled(node, f"{node}.again_{times}", 1) if times else node)
    return tuple(sources)


def _message(report: Report, missing: dict[str, tuple[str, ...]]) -> str:
    return f"the graph is approximate. {_list(list(_sentences(missing)))}. {report}"


def _sentences(missing: dict[str, tuple[str, ...]]) -> Iterator[str]:
    for label, sentences in missing.items():
        yield f"{label} has {_list(sentences)}"
