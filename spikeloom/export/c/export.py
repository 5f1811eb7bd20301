"""`export_c` writes a network as a C file; `simulate_int8` runs it in the integers of such a file."""

import copy
import operator
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ...engine.run import backend
from ...network import unroll
from .._checks import check_has_values
from .._files import checked_path, replacing
from .capture import captured, restart
from .errors import refuse
from .floats import FloatWriter
from .identifiers import HELPERS, KEYWORDS, LIBRARY
from .integers import IntegerWriter
from .layers import Network
from .programs import Sample
from .quantize import IntegerNetwork, quantized, ranges_of
from .reference import differing, states_of
from .simulate import narrowed_input, simulated
from .writer import Writer, names_of_file

SAMPLES, NUMBERS = 4, 50_000
"""How many samples the generated test has at most, and how many input numbers."""

CHECKED_STEPS, CHECKED_ROWS = 10, 16
"""How much of the example is compared with the network before anything is written."""

SHARE_THAT_MAY_DIFFER = 0.02
"""Of the outputs in that comparison: a membrane within rounding of its threshold may fire differently."""


@dataclass(frozen=True)
class CFile:
    """A file that `export_c` has written.

    Attributes:
        path: where it is.
        number: "float" or "int8".
        prefix: of its functions: `{prefix}_reset`, `{prefix}_step`, `{prefix}_step_events`, `{prefix}_run`.
        constants: bytes of weights and other constants, which a linker places in read-only memory.
        state: bytes of the struct.
        lost: what the network has and the file does not.
    """

    path: Path
    number: str
    prefix: str
    constants: int
    state: int
    lost: tuple[str, ...]

    def __str__(self) -> str:
        size = f"{self.constants:,} bytes of constants, {self.state:,} bytes of state"
        return "\n".join([f"{self.path}: {self.number}, {size}", *(f"not in it: {line}" for line in self.lost)])


def export_c(
    net: nn.Module,
    x: Tensor,
    path: str | os.PathLike[str],
    number: Literal["float", "int8"] = "float",
    steps: int | None = None,
    *,
    prefix: str = "net",
) -> CFile:
    """Write a network as one C99 file, which needs no other file, allocates no memory and uses math.h alone.

    The file has a struct with all state and four functions: ``net_reset``, ``net_step`` (one step of an array),
    ``net_step_events`` (one step of a list of active inputs) and ``net_run`` (all steps; sums the outputs). Compiled
    with ``-DNET_MAIN`` it is a program that reads samples and prints spike counts; with ``-DNET_TEST``, one that
    compares its outputs for samples of `x` with the library's.

    The file computes ``net.eval()`` from its initial states. `net` is not changed.

    Args:
        net: the network. Its neurons store their states (init_hidden=True), as for `unroll`.
        x: an example input as for `unroll`: [T, B, ...], or [B, ...] with `steps`. It determines the shapes, the
            samples of the test and, for "int8", the ranges of all values. It needs no labels.
        path: of the file, such as "net.c". An existing file is replaced; of a link, the file to which it leads.
        number: "float" computes in the dtype of `x`, float32 or float64, in the library's order of operations. "int8"
            uses integers only: weights of 8 bits with a scale per output, spikes and inputs of 8 bits, currents and
            states of 32 bits. Default: "float".
        steps: T of a static input, the same at every step.
        prefix: of the struct and the functions; in capitals, of the macros. Default: "net".

    Returns:
        a `CFile`: the path, the sizes, and what the file does not have, such as surrogate gradients.

    Raises:
        NotImplementedError: if a layer, an option or an operation cannot be written in C, or if the forward loops over
            time or passes states by hand. The message names it, and no file is written.
        TypeError: if `net` is not a module, or `x` not a tensor of float32 or float64.
        ValueError: if `x` has no samples, steps or batch, or `number` or `prefix` is not valid.
        OSError: if the file cannot be written. An incomplete file is never left.

        >>> import tempfile, torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = snn.export_c(net, torch.rand(2, 3), f"{folder}/net.c", steps=25)
        >>> made.constants, made.state
        (64, 48)
    """
    if number not in ("float", "int8"):
        raise ValueError(f"export_c got number={number!r}; choose 'float' or 'int8'")
    if (
        not isinstance(prefix, str)
        or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", prefix)
        or prefix in KEYWORDS | LIBRARY
    ):
        raise ValueError(f"export_c got prefix={prefix!r}; pass a name in C: letters, digits and underscores")
    steps = _whole(steps)
    target = checked_path(path, "net.c")
    if prefix in HELPERS:
        raise ValueError(f"export_c got prefix={prefix!r}, the name of a function in the file; pass another")
    layers, own = _read("export_c", net, x, steps, prefix)
    writer = _written_by(layers, own, x.detach().cpu(), number, steps, prefix)
    text = writer.source()
    with replacing(target) as part:
        part.write_text(text, encoding="utf-8")
    return CFile(target, number, prefix, writer.bytes_of_constants(), writer.bytes_of_state(), layers.lost)


def simulate_int8(net: nn.Module, x: Tensor, steps: int | None = None, *, calibration: Tensor | None = None) -> Tensor:
    """Run a network in the integers of ``export_c(..., number="int8")``, with the bits of the C program.

    Args:
        net: the network, which is not changed. The run starts from the initial states.
        x: input, [T, B, ...]; or [B, ...] with `steps`.
        steps: T, for a static input.
        calibration: the `x` that is passed to `export_c`, in the form of `x`, from which the ranges of all values are
            taken. None: `x` itself.

    Returns:
        the first output of the network, [T, B, ...], in the dtype of `x`: the integers of the C times their unit.
        Spikes are 0 and 1.

    Raises:
        The errors of `export_c`.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
        >>> snn.export.simulate_int8(net, torch.rand(2, 3), steps=25).shape
        torch.Size([25, 2, 4])
    """
    steps = _whole(steps)
    layers, _ = _read("simulate_int8", net, x if calibration is None else calibration, steps)
    integers = _integers(layers, x if calibration is None else calibration, steps)
    example = integers.network.x.shape
    lead = 2 if steps is None else 1
    _check_input("simulate_int8", x, steps)
    if tuple(x.shape[lead:]) != example:
        raise ValueError(f"simulate_int8 got x of shape {tuple(x.shape)} and a calibration whose samples are {example}")
    whole = simulated(integers, x.detach().cpu(), steps)
    return (whole.to(torch.float64) * integers.formats[integers.network.y.name].scale).to(x.dtype)


def _read(caller: str, net: nn.Module, x: Tensor, steps: int | None, prefix: str = "net") -> tuple[Network, nn.Module]:
    """The layers of a network, compared with the network itself, and the copy that was read."""
    if not isinstance(net, nn.Module):
        raise TypeError(f"{caller} got a {type(net).__name__}; pass a network, an nn.Module")
    _check_input(caller, x, steps)
    check_has_values(caller, net, [x])
    with torch.no_grad(), torch.inference_mode(False):
        own_x, names = x.detach().cpu().clone(), names_of_file(prefix)
        layers, own = captured(net, own_x, steps, prefix, names)
        apart = _apart(layers, own, own_x, steps)
        if apart > SHARE_THAT_MAY_DIFFER and x.dtype == torch.float32:  # by rounding, unless float64 differs as well
            own_x = own_x.double()
            apart = _apart(*captured(copy.deepcopy(net).double(), own_x, steps, prefix, names), own_x, steps)
    if apart > SHARE_THAT_MAY_DIFFER:
        refuse(
            type(net).__name__,
            "its layers one after another compute something else than the network (up to "
            f"{apart:.0%} of the values of an output or a state differ); a forward must not depend on values, nor "
            "store them",
        )
    return layers, own


def _apart(layers: Network, net: nn.Module, x: Tensor, steps: int | None) -> float:
    """The share of the values that differ between the layers and the network, for a part of the example."""
    part = x[:CHECKED_STEPS, :CHECKED_ROWS] if steps is None else x[:CHECKED_ROWS]
    length = None if steps is None else min(steps, CHECKED_STEPS)
    wanted, states = _outputs(net, part, length), states_of(layers)
    restart(net)
    return differing(layers, part, length, wanted, states)


def _whole(steps: int | None) -> int | None:
    """The number of steps as an int, if it is one of numpy."""
    return (
        steps if steps is None or isinstance(steps, bool) or not hasattr(steps, "__index__") else operator.index(steps)
    )


def _check_input(caller: str, x: Tensor, steps: int | None) -> None:
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
        got = f"{x.dtype} tensor" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{caller} got x as a {got}; pass a tensor of float32 or float64, such as x.float()")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ValueError(f"{caller} got steps={steps!r}; pass a number of steps, 1 or more, or None")
    form = (
        "[B, ...], with steps=T"
        if steps is not None
        else "[T, B, ...]; or pass steps=T if it is the same at every step"
    )
    if x.dim() < (2 if steps is not None else 3) or not x.numel():
        raise ValueError(f"{caller} got x of shape {tuple(x.shape)}; pass an example of shape {form}")


def _outputs(net: nn.Module, x: Tensor, steps: int | None) -> Tensor:
    """The first output of the network in the library, [T, B, ...]."""
    restart(net)
    with backend("loop"):  # which compiles no kernels for this one run
        outs = unroll(net, x, steps=steps, check=False)
    while not isinstance(outs, Tensor):
        outs = next(iter(outs.values() if isinstance(outs, dict) else outs))
    return outs


def _integers(layers: Network, x: Tensor, steps: int | None) -> IntegerNetwork:
    if not bool(x.isfinite().all()):
        raise ValueError("the example has NaN or infinite values; the ranges of integers are taken from finite ones")
    with torch.no_grad(), torch.inference_mode(False):
        return quantized(layers, ranges_of(layers, x.detach().cpu(), steps))


def _written_by(layers: Network, net: nn.Module, x: Tensor, number: str, steps: int | None, prefix: str) -> Writer:
    length = steps if steps is not None else len(x)
    size = layers.x.size
    rows = max(1, min(SAMPLES, x.shape[0 if steps is not None else 1], NUMBERS // (size * (1 if steps else length))))
    shown = length if steps is not None else max(1, min(length, NUMBERS // size))
    part = x[:rows] if steps is not None else x[:shown, :rows]
    if number == "float":
        with torch.no_grad(), torch.inference_mode(False):
            outs = _outputs(net, part, steps)
            restart(net)
        return FloatWriter(layers, prefix, steps, length, _sample(part, outs, steps))
    integers = _integers(layers, x, steps)
    inputs = narrowed_input(part, integers.formats["x"].scale)
    sample = _sample(inputs, simulated(integers, part, steps), steps)
    return IntegerWriter(integers, prefix, steps, length, sample)


def _sample(x: Tensor, outs: Tensor, steps: int | None) -> Sample:
    by_row = x.flatten(1) if steps is not None else x.transpose(0, 1).flatten(2)
    return Sample(by_row, outs.transpose(0, 1).flatten(2))
