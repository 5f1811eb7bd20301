"""Read a NIR file: raise errors for damaged, hostile and newer files, and correct older ones."""

from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from ...caller import warn_caller
from ._graph import BadGraph
from ._package import Node, nir_package

LARGEST = 4 * 2**30
"""Bytes of arrays that a file may declare; compressed, a small file could declare any number."""

MOST = 500_000
"""Groups and values that a file may have."""

DEEPEST = 60


def read_graph(path: str | PathLike[str]) -> Any:
    """The graph of a file; raises `BadGraph` with a sentence if it has none."""
    nir = nir_package()
    import h5py  # which nir needs itself

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {fspath(path)!r}")
    try:
        with h5py.File(path, "r") as file:
            version = _text(file["version"][()]) if isinstance(file.get("version"), h5py.Dataset) else "unknown"
            if not isinstance(file.get("node"), h5py.Group):
                raise BadGraph("has no graph in it; a NIR file has a group named node")
            data = _as_dict(file["node"], h5py, 0, Read())
        return _node(nir, data, "", version)
    except BadGraph as error:
        raise BadGraph(f"{fspath(path)!r} {error}") from None
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise BadGraph(f"{fspath(path)!r} cannot be read as a NIR file; is it damaged? ({error})") from error


@dataclass
class Read:
    """What was read so far. A file may link to one group many times, so that each visit counts."""

    size: int = 0
    items: int = 0

    def add(self, item: Any) -> None:
        """Count a dataset or a group before it is read; raises `BadGraph` above the limits."""
        self.items += 1
        if self.items > MOST:
            raise BadGraph(f"has more than {MOST} groups and values; do its links repeat them?")
        if hasattr(item, "dtype"):
            self.size += int(np.prod(item.shape or (), dtype=object)) * item.dtype.itemsize
        if self.size > LARGEST:
            raise BadGraph(
                f"declares {self.size / 2**30:.1f} GiB of values, more than {LARGEST / 2**30:.0f} GiB; if that is "
                "right, read it with nir.read and pass the graph"
            )


def _as_dict(group: Any, h5py: Any, depth: int, read: Read) -> dict[str, Any]:
    if depth > DEEPEST:
        raise BadGraph(f"is nested more than {DEEPEST} deep")
    found: dict[str, Any] = {}
    for name in group:
        if group.get(name, getlink=True).__class__.__name__ == "ExternalLink":
            raise BadGraph(f"has a link to another file, {name!r}; it is not followed")
        item = group[name]
        read.add(item)
        found[name] = _as_dict(item, h5py, depth + 1, read) if isinstance(item, h5py.Group) else _value(item[()])
    return found


def _value(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _node(nir: Any, data: dict[str, Any], path: str, version: str) -> Node:
    label = f"the node {path!r}" if path else "the graph"
    if "type" not in data:
        raise BadGraph(f"has no type for {label}; was its name written with a '/', at which files split names?")
    kind = _text(data["type"])
    known = getattr(nir, kind, None)
    if not (isinstance(known, type) and issubclass(known, nir.NIRNode)):
        raise BadGraph(
            f"has a {kind} ({label}), which nir {nir.version} does not know; nir {version} wrote the file. A newer nir "
            "may read it"
        )
    if kind == "NIRGraph":
        return _subgraph(nir, data, path, version)
    fields = {name: value for name, value in data.items() if name != "type"}
    try:
        return _made(known, {"type": kind, **fields})
    except (TypeError, KeyError) as error:
        raise BadGraph(
            f"has a {kind} ({label}) with the fields {', '.join(sorted(fields))}, which nir {nir.version} does not "
            f"take ({error}); nir {version} wrote the file"
        ) from error
    except (AssertionError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise BadGraph(f"has a {kind} ({label}) whose fields do not fit: {error}") from error


def _subgraph(nir: Any, data: dict[str, Any], path: str, version: str) -> Any:
    parts, edges = data.get("nodes"), data.get("edges")
    if not isinstance(parts, dict) or edges is None:
        raise BadGraph("has no nodes or no edges")
    nodes = {name: _node(nir, part, f"{path}.{name}" if path else name, version) for name, part in parts.items()}
    pairs = [(_text(a), _text(b)) for a, b in np.asarray(edges).reshape(-1, 2)]
    graph = nir.NIRGraph(nodes=nodes, edges=_corrected(nodes, pairs, path), type_check=False)
    graph.metadata = data.get("metadata", {})
    return graph


def _corrected(nodes: dict[str, Node], edges: list[tuple[str, str]], path: str) -> list[tuple[str, str]]:
    """The edges of old files, which may name a node by another name: if it is clear which, it is renamed."""
    named = {name for edge in edges for name in edge}
    missing, free = named - set(nodes), set(nodes) - named
    if len(missing) != 1 or len(free) != 1:
        return edges
    (old,), (new,) = missing, free
    where = f"the subgraph {path!r}" if path else "the graph"
    warn_caller(f"the edges of {where} name a node {old!r}, which must be {new!r}; they are read so")
    return [(new if a == old else a, new if b == old else b) for a, b in edges]


def _made(kind: Any, fields: dict[str, Any]) -> Node:
    return kind.from_dict(fields)
