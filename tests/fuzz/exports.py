"""Random networks, exported to every target: the outputs of the library, or a refusal that says why."""

import io
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn

from ..export.c.program import COMPILERS, compiled, executed
from .drawn import Drawer, inputs

FAR = 0.02
"""The share of values that may differ: sums that are rounded otherwise may make one spike more, and what follows."""

SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class Unrolled(nn.Module):
    """A network over all steps."""

    def __init__(self, net: nn.Module, steps: int | None):
        super().__init__()
        self.net, self.steps = net, steps

    def forward(self, x: Tensor) -> list[Tensor]:
        snn.reset(self.net)
        return [*_leaves(snn.unroll(self.net, x, steps=self.steps, check=False))]


def _leaves(outs: Any) -> Iterator[Tensor]:
    for out in [outs] if isinstance(outs, Tensor) else outs:
        yield from [out] if isinstance(out, Tensor) else _leaves(out)


def _compared(got: Iterable[Any], wanted: Iterable[Tensor]) -> str:
    for g, w in zip(map(torch.as_tensor, got), wanted, strict=True):
        if g.shape != w.shape or g.dtype != w.dtype:
            return f"{g.dtype} of shape {tuple(g.shape)} for {w.dtype} of shape {tuple(w.shape)}"
        share = float((~torch.isclose(g, w, rtol=1e-4, atol=1e-4, equal_nan=True)).float().mean())
        if share > FAR:
            return f"{share:.1%} of the values differ"
    return ""


def in_c(number: Any, flags: tuple[str, ...] = ()) -> Callable[..., str]:
    """Export to C, and run the generated test."""

    def run(net: nn.Module, x: Tensor, steps: int | None, folder: Path) -> str:
        made = snn.export_c(net, x, folder / "net.c", number, steps=steps)
        for compiler in COMPILERS:
            status, shown = executed(compiled(made.path, "-DNET_TEST", *flags, compiler=compiler))
            found = re.match(r"(\d+) of (\d+)", shown)
            allowed = FAR * int(found[2]) if found and number == "float" else 0
            if not found or int(found[1]) > allowed:
                return f"{compiler}: {shown or f'the program ends with {status}'}"
        return ""

    return run


def _longer(x: Tensor, steps: int | None) -> Tensor:
    """Another number of steps, if each has an input, and of rows."""
    return x[:1] if steps is not None else torch.cat((x, x.flip(0)))[:, :1]


def in_onnx(net: nn.Module, x: Tensor, steps: int | None, folder: Path) -> str:
    """Export to ONNX, and run it in onnxruntime."""
    import onnxruntime

    file = io.BytesIO()
    snn.export_onnx(net, x, file, steps=steps)
    session, other = onnxruntime.InferenceSession(file.getvalue()), _longer(x, steps)
    with torch.no_grad():
        return _compared(session.run(None, {"x": other.numpy()}), Unrolled(net, steps)(other))


def in_torch(net: nn.Module, x: Tensor, steps: int | None, folder: Path) -> str:
    """Export by torch.export."""
    module, dynamic, other = Unrolled(net, steps), torch.export.Dim.DYNAMIC, _longer(x, steps)
    sizes = {0: dynamic} if steps is not None else {0: dynamic, 1: dynamic}
    with torch.no_grad():
        program = torch.export.export(module, (x,), dynamic_shapes={"x": sizes})
        return _compared(program.module()(other), module(other))


TARGETS: dict[str, Callable[..., str]] = {
    "C, float": in_c("float"),
    "C, int8": in_c("int8"),
    "ONNX": in_onnx,
    "torch.export": in_torch,
}
REFUSALS = (" cannot be written in C: ", "onnxruntime cannot run the network")


def outcome(target: str, seed: int, run: Callable[..., str] | None = None) -> str:
    """What is wrong with a network in a target; nothing if its outputs are those of the library, or it is refused."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        net, shape, steps = Drawer(seed).network()
        x = inputs(shape, steps, seed)
        net, x = (net.double(), x.double()) if seed % 4 == 0 else (net, x)
        try:
            wrong = (run or TARGETS[target])(net, x, steps, Path(folder))
        except Exception as error:
            refused = any(part in str(error) for part in REFUSALS)
            wrong = "" if refused else f"{type(error).__name__}: {str(error)[:300]}"
        noisy = any(isinstance(module, snn.NoisyLeaky) for module in net.modules())
        return f"{target}, seed {seed}: {wrong}\n{net}" if wrong and not noisy else ""


def run(count: int, seed: int) -> list[str]:
    """Export so many random networks to all targets; returns what is wrong."""
    asked = dict(TARGETS)
    if COMPILERS:
        asked |= {f"C, {number}, sanitized": in_c(number, SANITIZED) for number in ("float", "int8")}
    else:
        asked = {target: how for target, how in asked.items() if not target.startswith("C")}
    found = [outcome(target, k, how) for k in range(seed, seed + count) for target, how in asked.items()]
    return [wrong for wrong in found if wrong]
