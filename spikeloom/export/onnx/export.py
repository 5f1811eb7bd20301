"""`export_onnx`: each neuron is a Scan over its equation, for any number of steps and rows."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor, nn

from ...caller import warn_caller
from ...layers import SEES_TIME
from ...network import Snapshot, undone
from ...neurons import SpikingNeuron
from .._checks import check_has_values
from .._files import checked_path
from . import generated_test
from .file import Target, differing_values, draws_noise, has_arrays, rename, save, shape_of, staged, tidy
from .program import Program, Sampled, Slot, example_of, sampled
from .quantized import fold_weights, translations

if TYPE_CHECKING:
    import numpy as np

STATES = ("internal", "external")


@dataclass(frozen=True)
class OnnxExport:
    """What `export_onnx` has written.

    Args:
        path: the file.
        inputs: the shape of each input, with "T" steps and "B" rows.
        outputs: the shape of each output.
        states: for states="external", the output that holds each state after the last step, by the name of the input.
        lost: what the file does not contain.
        differing: how many values of the outputs onnxruntime computes otherwise than the network on the example, beyond
            rounding; None if onnxruntime is not installed, or the network draws noise.
        compared: how many values were compared.
        test: the Python file that tests the file; None if none was written.
    """

    path: str
    inputs: Mapping[str, tuple[str | int, ...]]
    outputs: Mapping[str, tuple[str | int, ...]]
    states: Mapping[str, str]
    lost: tuple[str, ...]
    differing: int | None
    compared: int
    test: str | None = None
    slots: tuple[Slot, ...] = ()

    def initial_states(self, batch: int = 1) -> dict[str, "np.ndarray[Any, Any]"]:
        """The states before the first step, for `batch` rows, as inputs of the file."""
        return {slot.name: slot.initial(batch).numpy() for slot in self.slots}

    def __str__(self) -> str:
        lines = [f"{self.path}"]
        for kind, shapes in (("in ", self.inputs), ("out", self.outputs)):
            lines += [f"  {kind} {name}: [{', '.join(map(str, shape))}]" for name, shape in shapes.items()]
        notes = "not compared with onnxruntime"
        if self.differing is not None:
            notes = f"onnxruntime: {self.differing} of {self.compared} values of the example differ"
        lines += [f"  not in the file: {each}" for each in self.lost]
        return "\n".join([*lines, f"  {notes}", *([f"  test: {self.test}"] if self.test else [])])


def export_onnx(
    net: nn.Module, x: Any, path: Target, steps: int | None = None, states: str = "internal", *, test: bool = True
) -> OnnxExport:
    """Write a network to an ONNX file that runs it over any number of steps, without this library.

    The file computes what ``snn.unroll(net, x, steps=steps)`` computes in evaluation mode. Layers without states run
    over all steps at once. Each neuron is an ONNX Scan, whose body is one step of its equation in operators of ONNX.
    The number of steps T and of rows B are those of the input of each run. The network is not changed.

    Args:
        net: the network, as for `unroll`. Its neurons store their states (init_hidden=True).
        x: an example of the input, [T, B, ...]; or [B, ...] with `steps`. A tuple for several inputs. The network is
            run on it, and its result compared with onnxruntime's if that is installed.
        path: the file to write, or a binary file object. A file that exists is replaced, at the end. Weights of more
            than 1.5 GB are written to a second file, of the same name with ".data" added.
        steps: T, for a static input (the same at every step). The file then has an integer input "steps", which is
            optional and has this value. Layers before the first neuron run once, outside of the Scan.
        states: "internal": each run starts from the initial states. "external": the states are inputs, and those after
            the last step are outputs, so that a stream can continue from call to call. Default: "internal".
        test: write a test beside the file, "net_test.py" for "net.onnx": it runs the file in onnxruntime on up to four
            rows of the example, and compares. A network that draws noise, and a file object, get none; an older test
            of the same name is then removed. Default: True.

    Returns:
        a description of the file: names and shapes of inputs and outputs, states, what was lost, and how many values
        differ from onnxruntime's.

    Raises:
        ImportError: if onnx or onnxscript is missing; ``pip install 'spikeloom[onnx]'``.
        ValueError: for an example without steps or rows, or an unknown value of `states`; errors of `unroll`.
        TypeError: if `net` is not a module, or its forward returns something else than tensors; errors of `unroll`.
        RuntimeError: if the forward depends on the values of tensors, uses an operation that ONNX does not have, or
            passes the states of its neurons by hand; if onnxruntime computes something else.
        OSError: if the file cannot be written. After an error, no file is left.

    Inputs are named "x", or as the arguments of the forward if there are several. Outputs are named "spk" and by the
    states of the last neuron, or "output".

        >>> import tempfile, torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = snn.export_onnx(net, torch.rand(25, 2, 3), f"{folder}/net.onnx")
        >>> done.inputs, done.outputs
        ({'x': ('T', 'B', 3)}, {'spk': ('T', 'B', 4)})
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"export_onnx requires a network, an nn.Module; got {type(net).__name__}")
    if states not in STATES:
        raise ValueError(f"states is {states!r}; choose one of {', '.join(map(repr, STATES))}")
    args = x if isinstance(x, tuple) else (x,)
    for arg in args:
        if not isinstance(arg, Tensor):
            raise TypeError(f"the example is a {type(arg).__name__}; pass a tensor, or a tuple of tensors")
    check_has_values("export_onnx", net, args)
    _check_installed()
    goal = _goal(path)
    beside = generated_test.path_of(goal) if test and isinstance(goal, Path) else None
    before, external = Snapshot(net.modules()), states == "external"
    with staged(goal) as file:
        run = sampled(net, args, steps)
        model = undone(lambda: _exported(run, external), before)
        save(model, file)
        inputs, wanted = run.case(external)
        noisy = draws_noise(model)
        differing = None if noisy else differing_values(file, inputs, wanted)
        beside = beside if not noisy and has_arrays(inputs, wanted) else None
        if beside is not None:
            part, length = generated_test.part_of(args, steps, wanted)
            case = sampled(net, part, length).case(external)
            text = generated_test.source(file, *case, differing_values(file, *case))
            file.with_name(beside.name).write_text(text, encoding="utf-8")
    if beside is None and isinstance(goal, Path):
        generated_test.remove_stale(goal)
    compared = sum(out.numel() for out in wanted.values())
    if differing is not None and differing > generated_test.SHARE * compared:
        warn_caller(
            f"{differing} of {compared} output values of the example differ between onnxruntime and the network, by "
            "more than rounding unless the network is chaotic. Compare both on your data"
        )
    slots = tuple(run.slots) if external else ()
    return OnnxExport(
        str(path if isinstance(goal, Path) else getattr(path, "name", path)),
        {value.name: shape_of(value) for value in model.graph.input},
        {value.name: shape_of(value) for value in model.graph.output},
        {slot.name: f"{slot.name}.next" for slot in slots},
        tuple(_lost(net, noisy, external)),
        differing,
        compared,
        None if beside is None else str(beside),
        slots,
    )


def _goal(path: Any) -> Path | IO[bytes]:
    """The file to write, or the open file."""
    return path if hasattr(path, "write") else checked_path(path, "net.onnx")


def _check_installed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"export_onnx needs onnx and onnxscript ({error}); pip install 'spikeloom[onnx]'") from error


def _lost(net: nn.Module, noisy: bool, external: bool) -> Iterator[str]:
    """What a file does not contain."""
    surrogates = {repr(layer.spike_grad): None for layer in net.modules() if isinstance(layer, SpikingNeuron)}
    if surrogates:
        yield f"surrogate gradients ({', '.join(surrogates)}), and all of the backward pass"
    learned = [name for name, value in net.named_parameters() if value.requires_grad]
    if learned:
        yield f"which parameters are learned ({', '.join(learned)})"
    by_mode = [kind for kind in dict.fromkeys(type(m).__name__ for m in net.modules()) if kind.startswith(MODES)]
    if by_mode:
        yield f"training mode of {', '.join(by_mode)}"
    if external:
        anew = [type(m).__name__ for m in net.modules() if isinstance(m, SEES_TIME) and not m._carried()]
        if anew := [kind for kind in dict.fromkeys(anew) if kind != "GradedSpikes"]:
            yield f"what {', '.join(anew)} stores between calls: each call starts anew"
    if noisy:
        yield "the seed of the noise, which the runtime draws"


MODES = ("Dropout", "AlphaDropout", "BatchNorm", "SyncBatchNorm")
"""Layers that act otherwise in training."""


# -- the export by torch -----------------------------------------------------------------------------------------------


def _exported(run: Sampled, external: bool) -> Any:
    """The model, an onnx.ModelProto."""
    known = run.request
    arguments, dynamic = example_of(run, external)
    inputs, outputs = map(list, run.case(external))
    program = Program(run, external).eval()
    try:
        with _quiet(), torch.no_grad():
            exported: Any = torch.onnx.export(
                program,
                arguments,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=[f"in.{name}" for name in inputs],
                output_names=[f"out.{name}" for name in outputs],
                custom_translation_table=translations(),
                verbose=False,
            )
            model = exported.model_proto
    except Exception as error:
        raise RuntimeError(_explained(error)) from error
    notes = {"spikeloom.states": json.dumps({slot.name: f"{slot.name}.next" for slot in run.slots if external})}
    rename(model, {f"in.{name}": name for name in inputs} | {f"out.{name}": name for name in outputs})
    fold_weights(model)
    tidy(model, known.steps if known.static else None, notes)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """A context without the notes of torch's exporter on packages that are not installed, and on states assigned."""
    logger = getLogger("torch.onnx")
    before = logger.level
    logger.setLevel("ERROR")
    try:
        with catch_warnings():
            simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _explained(error: BaseException) -> str:
    """Why torch cannot export the network."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    notes = [str(each) for each in reversed(chain)]
    text = "\n".join(notes)
    if "data-dependent" in text or "DataDependent" in type(chain[-1]).__name__:
        at = re.search(r'File "([^"]+)", line (\d+), in forward', text)
        where = f" (line {at[2]} of {at[1]})" if at else ""
        return (
            f"the forward depends on the values of tensors{where}, as a Python `if`, `int()` or `.item()` does, and "
            "cannot be exported; express it by torch.where, or run the part outside of the network"
        )
    missing = re.findall(r"No (?:ONNX function|decompositions registered)[^<\n]*<OpOverload\(op='([^']+)'", text)
    if missing:
        return f"ONNX has no operator for {', '.join(dict.fromkeys(missing))}, which the network uses; replace it"
    if (mixed := re.search(r"Cannot find a compatible OpOverload for aten\.(\w+)", text)) is not None:
        return (
            f"torch cannot export {mixed[1]} with the types of its arguments; pass numbers of one type, such as "
            "x.clamp(-0.5, 2.0) instead of x.clamp(-0.5, 2)"
        )
    first = next((line.strip() for line in notes[0].splitlines() if line.strip()), "")
    return f"torch cannot export the network: {type(chain[-1]).__name__}: {first}"
