"""An ONNX model as a file: the names of its dimensions, writing it in one piece, and running it in onnxruntime."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import torch
from torch import Tensor

from .._files import replacing

Target = str | os.PathLike[str] | IO[bytes]

EXTERNAL_FROM = 1_500_000_000
"""Bytes of weights from which they are written to a file of their own: a protocol buffer holds 2 GB."""


@contextmanager
def staged(target: Path | IO[bytes]) -> Iterator[Path]:
    """A temporary path; its file, and those next to it, replace the target at the end if no error was raised.

    Raises:
        The errors of `replacing`.
    """
    if not isinstance(target, Path):
        with TemporaryDirectory() as folder:
            path = Path(folder, "net.onnx")
            yield path
            if len(os.listdir(folder)) > 1:
                raise ValueError("the weights are too large for one file; pass the path of a file, not a file object")
            target.write(path.read_bytes())
        return
    with replacing(target) as path:
        yield path


def save(model: Any, path: Path) -> None:
    """Check a model and write it."""
    import onnx

    large = model.ByteSize() > EXTERNAL_FROM
    onnx.save_model(model, path, save_as_external_data=large, location=f"{path.name}.data" if large else None)
    onnx.checker.check_model(str(path))


# -- the model ---------------------------------------------------------------------------------------------------------


def graphs_of(graph: Any) -> Iterator[Any]:
    """A graph and the bodies of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g)


def draws_noise(model: Any) -> bool:
    """Whether a model draws random numbers."""
    nodes = (node for graph in graphs_of(model.graph) for node in graph.node)
    return any(node.op_type.startswith("Random") or node.op_type == "Bernoulli" for node in nodes)


def rename(model: Any, names: Mapping[str, str]) -> None:
    """Give values new names; others that have one of these get another."""
    wanted = set(names.values())

    def new(name: str) -> str:
        return names.get(name, f"{name}.inner" if name in wanted else name)

    for graph in graphs_of(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = new(value.name)
        for node in graph.node:
            node.input[:], node.output[:] = map(new, node.input), map(new, node.output)


def tidy(model: Any, steps: int | None, properties: Mapping[str, str]) -> None:
    """Name the dynamic dimensions T and B, give `steps` its default, and remove the traces of the recording.

    Args:
        model: as torch has exported it.
        steps: for a static input, the default of the input "steps".
        properties: notes to store in the file.
    """
    from onnx import helper, numpy_helper

    lead = [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim]
    names = {lead[0]: "B"} if steps is not None else {lead[0]: "T", lead[1]: "B"}
    if steps is not None:
        first = model.graph.output[0].type.tensor_type.shape.dim[0].dim_param
        names |= {first: "T"} if first not in names else {}
        model.graph.initializer.append(numpy_helper.from_array(_int64(steps), "steps"))
    for graph in graphs_of(model.graph):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in names:
                    dim.dim_param = names[dim.dim_param]
                elif dim.dim_param:
                    dim.Clear()
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    helper.set_model_props(model, dict(properties))


def _int64(number: int) -> Any:
    return torch.tensor(number).numpy()


def shape_of(value: Any) -> tuple[str | int, ...]:
    """The shape of an input or output; dynamic dimensions by name, "?" for an unnamed one."""
    return tuple(dim.dim_param or dim.dim_value or "?" for dim in value.type.tensor_type.shape.dim)


# -- onnxruntime -------------------------------------------------------------------------------------------------------

CLOSE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""How far two values may be apart, absolutely and, ten times as far, relatively."""


def has_arrays(inputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether NumPy has the dtypes of all values."""
    return not any(t.dtype == torch.bfloat16 for t in (*inputs.values(), *wanted.values()))


def differing_values(path: Path, inputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> int | None:
    """How many values onnxruntime computes otherwise; None if it is not installed, or NumPy lacks a dtype."""
    if find_spec("onnxruntime") is None or not has_arrays(inputs, wanted):
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        got = session.run(list(wanted), {name: x.detach().cpu().numpy() for name, x in inputs.items()})
    except Exception as error:  # onnxruntime has a class for each kind, and no common one
        raise RuntimeError(f"onnxruntime cannot run the network: {error}; {_way_out(inputs)}") from error
    return sum(_differing(torch.as_tensor(g), w) for g, w in zip(got, wanted.values(), strict=True))


def _way_out(inputs: Mapping[str, Tensor]) -> str:
    """What to do about a network that onnxruntime cannot run."""
    if any(x.dtype == torch.float64 for x in inputs.values()):
        return "it lacks many operators for float64: export net.float() with an example in float32"
    return "replace the layer that it names, or try another release of onnxruntime"


def _differing(got: Tensor, wanted: Tensor) -> int:
    if got.shape != wanted.shape:
        raise RuntimeError(
            f"onnxruntime returns a shape of {tuple(got.shape)} where the network has {tuple(wanted.shape)}"
        )
    near = CLOSE.get(wanted.dtype, 2e-3)
    return int((~torch.isclose(got, wanted.detach().cpu(), rtol=10 * near, atol=near, equal_nan=True)).sum())
