"""The shapes in a NIR graph, without the batch: what each node gets and gives, and where two do not fit."""

from typing import Any

import numpy as np

from ._graph import STATEFUL, BadGraph, Flat, Shape, delayed_edges, is_cycle, kind_of, ordered_groups
from ._package import Node

ELEMENTWISE = (*STATEFUL, "Scale", "Threshold")
VALUES = {"Scale": "scale", "Delay": "delay", "Threshold": "threshold"}


def infer_shapes(flat: Flat, dt: float) -> None:
    """Find the shape of each output, and raise `BadGraph` where two do not fit."""
    groups = ordered_groups(flat)
    order = [n for g in groups for n in (delayed_edges(flat, g, dt)[0] if is_cycle(flat, g) else g)]
    for name in order * 2:  # the second time with the outputs that come back in a cycle
        if flat.shapes.get(name) is None:
            flat.shapes[name] = _shape_after(name, flat.nodes[name], _came(flat, name))
    for name, node in flat.nodes.items():
        came, found = _came(flat, name), flat.shapes[name]
        after = found if came is None else _shape_after(name, node, came)
        if came is not None and found is not None and after != found:
            raise BadGraph(
                f"the node {name!r} ({kind_of(node)}) has outputs of shape {found}, and the output of {came[0]!r}, "
                f"{came[1]}, does not fit"
            )


def _came(flat: Flat, name: str) -> tuple[str, Shape] | None:
    """A source of a node with its shape; raises `BadGraph` if the node adds outputs of different shapes."""
    came = [(source, flat.shapes.get(source)) for source in flat.sources(name)]
    known = [(source, shape) for source, shape in came if shape is not None]
    for source, shape in known[1:]:
        if shape != known[0][1]:
            first, other = known[0]
            raise BadGraph(f"the node {name!r} adds the outputs of {first!r}, {other}, and of {source!r}, {shape}")
    return known[0] if known else None


def own_shape(node: Node) -> Shape:
    """The shape of the values of an elementwise node; empty if they are single numbers, or the node is another."""
    if kind_of(node) not in ELEMENTWISE:
        return ()
    return tuple(np.shape(getattr(node, VALUES.get(kind_of(node), "r"))))


def _shape_after(name: str, node: Node, came: tuple[str, Shape] | None) -> Shape | None:
    kind = kind_of(node)
    if kind == "Input":
        given = node.input_type.get("input") if isinstance(node.input_type, dict) else None
        return None if given is None else as_shape(name, given)
    if kind in ELEMENTWISE:
        own = own_shape(node)
        if own and came is not None and came[1] != own:
            raise BadGraph(f"the node {name!r} ({kind}) has shape {own} and gets the output of {came[0]!r}, {came[1]}")
        return own or (came[1] if came else None)
    before = came[1] if came else _declared(name, node)
    try:
        return output_shape(name, node, before)
    except (TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        if isinstance(error, BadGraph):
            raise
        raise BadGraph(f"the node {name!r} ({kind}) has fields that do not fit: {error}") from error


def _declared(name: str, node: Node) -> Shape | None:
    """The input shape that a node declares itself."""
    kind = kind_of(node)
    if kind in ("Conv1d", "Conv2d") and node.input_shape is not None:
        sizes = np.atleast_1d(node.input_shape)
        return (int(node.weight.shape[1] * node.groups), *map(int, sizes))
    if kind == "Flatten" and node.input_type.get("input") is not None:
        return as_shape(name, node.input_type["input"])
    return None


def as_shape(name: str, given: Any) -> Shape:
    """A shape of a file; raises `BadGraph` if it is none."""
    array = np.asarray(given).reshape(-1)
    if array.dtype.kind not in "iuf" or not np.all(np.isfinite(array)) or np.any(array < 1):
        raise BadGraph(f"the node {name!r} declares the shape {array.tolist()[:8]}; sizes are whole numbers above 0")
    return tuple(int(size) for size in array)


def output_shape(name: str, node: Node, before: Shape | None) -> Shape | None:
    """The shape of a node's output from that of its input."""
    kind = kind_of(node)
    if kind in ("Affine", "Linear"):
        return _of_matrix(name, node, before)
    if before is None:
        return None
    if kind in ("Conv1d", "Conv2d"):
        return _of_convolution(name, node, before)
    if kind in ("AvgPool2d", "SumPool2d"):
        if len(before) != 3:
            raise BadGraph(f"the node {name!r} ({kind}) gets {before}; it takes [channels, height, width]")
        padding, stride, kernel = (pair(getattr(node, field)) for field in ("padding", "stride", "kernel_size"))
        return (before[0], *_windows(name, before[1:], kernel, stride, padding, (1, 1)))
    if kind == "Flatten":
        return _of_flatten(name, node, before)
    declared = as_shape(name, node.output_type["output"]) if node.output_type.get("output") is not None else before
    if np.prod(declared, dtype=object) != np.prod(before, dtype=object):
        raise BadGraph(f"the node {name!r} ({kind}) declares {declared} and gets {before}")
    return before


def _of_matrix(name: str, node: Node, before: Shape | None) -> Shape:
    shape = tuple(np.shape(node.weight))
    if len(shape) != 2:
        raise BadGraph(f"the node {name!r} has a weight of shape {shape}; pass a matrix [out, in]")
    if before is not None and before != shape[1:]:
        raise BadGraph(f"the node {name!r} has a weight {shape} and gets {before}; it takes a vector of {shape[1]}")
    if kind_of(node) == "Affine" and tuple(np.shape(node.bias)) not in ((), shape[:1]):
        raise BadGraph(f"the node {name!r} has a weight {shape} and a bias {tuple(np.shape(node.bias))}")
    return shape[:1]


def _of_convolution(name: str, node: Node, before: Shape) -> Shape:
    shape, dims = tuple(np.shape(node.weight)), 1 if kind_of(node) == "Conv1d" else 2
    groups = int(node.groups)
    if len(shape) != dims + 2 or groups < 1 or shape[0] % groups:
        raise BadGraph(f"the node {name!r} has a weight {shape} in {groups} groups; it takes {dims + 2} dimensions")
    if len(before) != dims + 1 or before[0] != shape[1] * groups:
        raise BadGraph(f"the node {name!r} has {shape[1] * groups} input channels, and gets {before}")
    if tuple(np.shape(node.bias)) not in ((), shape[:1]):
        raise BadGraph(f"the node {name!r} has a weight {shape} and a bias {tuple(np.shape(node.bias))}")
    stride, dilation = (pair(getattr(node, field))[:dims] for field in ("stride", "dilation"))
    text = as_text(node.padding)
    if text == "same":
        if any(s != 1 for s in stride):
            raise BadGraph(f"the node {name!r} has padding 'same' and a stride of {stride}; torch pads so at stride 1")
        return (shape[0], *before[1:])
    padding = (0,) * dims if text is not None else pair(node.padding)[:dims]
    return (shape[0], *_windows(name, before[1:], shape[2:], stride, padding, dilation))


def _windows(name: str, sizes: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise BadGraph(
            f"the node {name!r} has kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation}"
        )
    rows = zip(sizes, kernel, stride, padding, dilation, strict=True)
    out = tuple((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in rows)
    if min(out) < 1:
        raise BadGraph(f"the node {name!r} has a kernel {kernel}, larger than its input {sizes} with padding {padding}")
    return out


def _of_flatten(name: str, node: Node, before: Shape) -> Shape:
    start, end = (int(value) + (len(before) if value < 0 else 0) for value in (node.start_dim, node.end_dim))
    if not 0 <= start <= end < len(before):
        raise BadGraph(f"the node {name!r} flattens dimensions {node.start_dim} to {node.end_dim} of {before}")
    return (*before[:start], int(np.prod(before[start : end + 1])), *before[end + 1 :])


def pair(value: Any) -> tuple[int, int]:
    """One or two numbers of a file as two."""
    given = np.atleast_1d(value).reshape(-1).tolist()
    sizes = [int(size) for size in given]
    if len(sizes) not in (1, 2) or sizes != given:
        raise ValueError(f"{given} is not one or two whole numbers")
    return sizes[0], sizes[-1]


def as_text(value: Any) -> str | None:
    """A text of a file; None if it is none."""
    return value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else None
