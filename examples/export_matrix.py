"""Export every neuron behind every kind of layer to every target, and count the outputs that differ.

    python examples/export_matrix.py --out docs/export.json     # stores the results and prints docs/export.md's tables
    python examples/export_matrix.py Leaky Synaptic             # some rows alone

It requires onnx, onnxscript, onnxruntime, and gcc or clang. Weights are multiples of 1/64, so that all sums are exact.
ONNX: in onnxruntime, for other numbers of steps and rows than at the export, against `unroll`. C: the generated test,
in floating point against the library, in integers against `simulate_int8`.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom import ops

TARGETS = ("ONNX", "C, float", "C, int8")


@snn.cell
def UserCell(x, mem, trace, *, beta=0.8, gain=0.3):
    """A neuron of a user's."""
    mem = beta * mem + x
    spk = ops.spike(mem - 1.0 - gain * trace)
    return spk, ops.where(spk > 0, 0.0, mem), ops.clamp(trace + spk - 0.1, 0.0, 4.0)


class First(nn.Module):
    """A neuron that returns its spikes alone."""

    def __init__(self, neuron: nn.Module):
        super().__init__()
        self.neuron = neuron

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spk: torch.Tensor = self.neuron(x)[0]
        return spk


class Louder(nn.Module):
    """A neuron that needs a larger input to fire."""

    def __init__(self, neuron: nn.Module, factor: float):
        super().__init__()
        self.neuron, self.factor = neuron, factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spk: torch.Tensor = self.neuron(x * self.factor)
        return spk


HIDDEN = {"init_hidden": True}
NEURONS: dict[str, Callable[[], nn.Module]] = {
    "Leaky": lambda: snn.Leaky(0.9, **HIDDEN),
    'Leaky, "zero"': lambda: snn.Leaky(0.9, reset_mechanism="zero", **HIDDEN),
    "Leaky, reset_delay=False": lambda: snn.Leaky(0.9, reset_delay=False, **HIDDEN),
    "Synaptic": lambda: snn.Synaptic(0.7, 0.8, **HIDDEN),
    "Alpha": lambda: snn.Alpha(0.9, 0.6, threshold=0.4, **HIDDEN),
    "Lapicque": lambda: snn.Lapicque(R=5.0, C=1.0, **HIDDEN),
    "DeltaLeaky": lambda: First(snn.DeltaLeaky(beta=0.8, delta_threshold=0.3, **HIDDEN)),
    "RLeaky, V": lambda: snn.RLeaky(0.8, V=-0.4, all_to_all=False, **HIDDEN),
    "RSynaptic, V": lambda: snn.RSynaptic(0.7, 0.8, V=0.3, all_to_all=False, **HIDDEN),
    "IF": lambda: snn.IF(**HIDDEN),
    "LI": lambda: snn.LI(**HIDDEN),
    "ParametricLIF": lambda: snn.ParametricLIF(threshold=0.3, **HIDDEN),
    "RALIF, V": lambda: snn.RALIF(V=0.4, all_to_all=False, **HIDDEN),
    "ALIF": lambda: snn.ALIF(**HIDDEN),
    "AdLIF": lambda: Louder(snn.AdLIF(**HIDDEN), 8.0),
    "CuBaLIF": lambda: snn.CuBaLIF(**HIDDEN),
    "QIF": lambda: snn.QIF(**HIDDEN),
    "EIF": lambda: snn.EIF(**HIDDEN),
    "Izhikevich": lambda: Louder(snn.Izhikevich(**HIDDEN), 40.0),
    "ResonateFire": lambda: snn.ResonateFire(**HIDDEN),
    "snn.cell": lambda: UserCell(**HIDDEN),
    "NoisyLeaky": lambda: snn.NoisyLeaky(0.9, **HIDDEN),
    "Leaky, state_quant": lambda: snn.Leaky(0.9, state_quant=torch.round, **HIDDEN),
    "Leaky, inhibition": lambda: snn.Leaky(0.9, inhibition=True, **HIDDEN),
}

Neuron = Callable[[], nn.Module]
LAYERS: dict[str, tuple[Callable[[Neuron], nn.Module], tuple[int, ...]]] = {
    "alone": (lambda make: nn.Sequential(make()), (16,)),
    "Linear": (lambda make: nn.Sequential(nn.Linear(16, 12), make(), nn.Linear(12, 5), make()), (16,)),
    "Conv1d, MaxPool1d": (lambda make: nn.Sequential(nn.Conv1d(2, 4, 3), nn.MaxPool1d(2), make()), (2, 10)),
    "Conv2d, AvgPool2d, Flatten": (
        lambda make: nn.Sequential(nn.Conv2d(1, 4, 3), make(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3), make()),
        (1, 8, 8),
    ),
}


def behind(layer: nn.Module, neuron: nn.Module | None = None) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(layer, neuron or snn.Leaky(0.5, **HIDDEN))


OTHERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear, RLeaky, Linear": (behind(nn.Linear(16, 8), snn.RLeaky(0.5, linear_features=8, **HIDDEN)), (16,)),
    "Linear, RSynaptic, Linear": (
        behind(nn.Linear(16, 8), snn.RSynaptic(0.5, 0.5, linear_features=8, **HIDDEN)),
        (16,),
    ),
    "Conv2d, RLeaky, Conv2d": (
        behind(nn.Conv2d(1, 3, 3), snn.RLeaky(0.5, conv2d_channels=3, kernel_size=3, **HIDDEN)),
        (1, 7, 7),
    ),
    "Linear, RALIF, Linear": (behind(nn.Linear(16, 8), snn.RALIF(linear_features=8, **HIDDEN)), (16,)),
    "SLSTM": (lambda: nn.Sequential(snn.SLSTM(16, 8, threshold=0.1, **HIDDEN)), (16,)),
    "SConv2dLSTM": (lambda: nn.Sequential(snn.SConv2dLSTM(1, 2, 3, threshold=0.1, **HIDDEN)), (1, 7, 7)),
    "SConv2dLSTM, max_pool": (
        lambda: nn.Sequential(snn.SConv2dLSTM(1, 2, 3, max_pool=2, threshold=0.1, **HIDDEN)),
        (1, 7, 7),
    ),
    "Linear, StateLeaky": (behind(nn.Linear(16, 8), snn.StateLeaky(0.5, 8)), (16,)),
    "StateLeaky, truncated kernel": (lambda: nn.Sequential(snn.StateLeaky(0.5, 16, kernel_truncation_steps=3)), (16,)),
    "LinearLeaky": (lambda: nn.Sequential(snn.LinearLeaky(0.5, 16, 8)), (16,)),
    "LeakyParallel": (lambda: nn.Sequential(snn.LeakyParallel(16, 8, 0.5)), (16,)),
    "AssociativeLeaky": (lambda: nn.Sequential(snn.AssociativeLeaky(16, 2, 2, 4)), (16,)),
    "SynapticDelay, Leaky": (behind(snn.SynapticDelay(16, 5)), (16,)),
    "DelayedLinear, Leaky": (behind(snn.DelayedLinear(16, 8, 5)), (16,)),
    "BatchNormTT1d, Leaky": (behind(snn.BatchNormTT1d(16, 50)), (16,)),
    "BatchNorm1d, Leaky": (behind(nn.BatchNorm1d(16)), (16,)),
    "LayerNorm, Leaky": (behind(nn.LayerNorm(16)), (16,)),
    "GroupNorm, Leaky": (behind(nn.GroupNorm(4, 16)), (16,)),
    "GradedSpikes, Leaky": (behind(snn.GradedSpikes(16, 1.5, dim=1)), (16,)),
    "Dropout, Leaky": (behind(nn.Dropout(0.5)), (16,)),
}


def exact(net: nn.Module) -> nn.Module:
    """The network with weights that are multiples of 1/64."""
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, snn.DelayedLinear)):
            fan = module.weight[0].numel()
            module.weight.data = ((torch.randn_like(module.weight) + 0.2) * 192 / fan**0.5).round() / 64
            module.bias.data = (torch.rand_like(module.bias) * 16).round() / 64
    return net


class Branches(nn.Module):
    """Networks side by side on inputs of their own, which are parts of one: exporting many at once takes less time."""

    def __init__(self, nets: Mapping[str, tuple[nn.Module, tuple[int, ...]]]):
        super().__init__()
        self.names, self.shapes = list(nets), [shape for _, shape in nets.values()]
        self.nets = nn.ModuleList([net for net, _ in nets.values()])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The outputs by number."""
        outs = {}
        for k, (net, shape) in enumerate(zip(self.nets, self.shapes, strict=True)):
            out = net(x[:, : torch.Size(shape).numel()].reshape(-1, *shape))
            outs[str(k)] = out[0] if isinstance(out, tuple) else out
        return outs


def in_onnx(nets: Mapping[str, tuple[nn.Module, tuple[int, ...]]], folder: Path) -> dict[str, dict[str, Any]]:
    """What each network gives in onnxruntime."""
    import onnxruntime

    joined = Branches(nets).eval()
    snn.export_onnx(joined, (torch.rand(9, 3, 64) < 0.3).float(), folder / "net.onnx", test=False)
    x = (torch.rand(50, 4, 64) < 0.3).float()
    session = onnxruntime.InferenceSession(folder / "net.onnx")
    found = dict(zip([out.name for out in session.get_outputs()], session.run(None, {"x": x.numpy()}), strict=True))
    snn.reset(joined)
    with torch.no_grad():
        wanted = snn.unroll(joined, x, check=False)
    results = {}
    for k, name in enumerate(joined.names):
        want, got = wanted[str(k)], torch.as_tensor(found[str(k)])
        near = torch.isclose(got, want, rtol=1e-4, atol=1e-5, equal_nan=True)
        results[name] = {"values": want.numel(), "differing": int((~near).sum()), "nonzero": int(want.count_nonzero())}
        if "NoisyLeaky" in name:
            results[name] |= {"values": 0, "differing": 0, "refusal": "exported; its noise is drawn anew at each run"}
    return results


def in_c(net: nn.Module, shape: tuple[int, ...], number: Any, compilers: list[str], folder: Path) -> dict[str, Any]:
    """What the generated test of a network gives with all compilers."""
    x = (torch.rand(50, 4, *shape) < 0.3).float()
    try:
        made = snn.export_c(net, x, folder / "net.c", number)
    except NotImplementedError as error:
        return {"values": 0, "differing": 0, "refusal": str(error).partition(" cannot be written in C: ")[2]}
    differing, values = 0, 0
    for compiler in compilers:
        program = folder / "net"
        build = [compiler, "-std=c99", "-O2", "-DNET_TEST", str(made.path), "-o", str(program), "-lm"]
        subprocess.run(build, check=True)
        run = subprocess.run([str(program)], capture_output=True, text=True, check=False)
        words = run.stdout.split()
        differing, values = max(differing, int(words[0])), int(words[2])
    return {"values": values, "differing": differing}


def networks(rows: Iterable[str]) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """The networks of the rows, by "row | column", and the shapes of their inputs."""
    found = {}
    for row in rows:
        torch.manual_seed(0)
        if row in NEURONS:
            for column, (build, shape) in LAYERS.items():
                found[f"{row} | {column}"] = exact(build(NEURONS[row])).eval(), shape
        else:
            make, shape = OTHERS[row]
            found[f"{row} | "] = exact(make()).eval(), shape
    return found


def measured(rows: list[str], compilers: list[str]) -> list[dict[str, Any]]:
    """The cells of the rows."""
    nets, cells = networks(rows), []
    with tempfile.TemporaryDirectory() as name:
        folder, onnx = Path(name), dict[str, dict[str, Any]]()
        for first in range(0, len(nets), 24):
            onnx |= in_onnx(dict([*nets.items()][first : first + 24]), folder)
        for key, (net, shape) in nets.items():
            row, _, column = key.partition(" | ")
            results = [onnx[key], *(in_c(net, shape, number, compilers, folder) for number in ("float", "int8"))]
            for target, result in zip(TARGETS, results, strict=True):
                cells.append({"row": row, "column": column, "target": target, "refusal": "", **result})
    return cells


def tables(cells: list[dict[str, Any]]) -> str:
    """The cells as tables: the outputs that differ in ONNX / C, float / C, int8; refusals are explained below."""
    reasons = list[str]()

    def shown(row: str, column: str) -> str:
        parts = []
        for cell in cells:
            if (cell["row"], cell["column"]) == (row, column):
                if cell["refusal"] and cell["refusal"] not in reasons:
                    reasons.append(cell["refusal"])
                number = f"({reasons.index(cell['refusal']) + 1})" if cell["refusal"] else f"{cell['differing']:,}"
                parts.append(number)
        return " / ".join(parts)

    rows = list(dict.fromkeys(cell["row"] for cell in cells))
    lines = [f"| neuron | {' | '.join(LAYERS)} |", f"| --- |{' --- |' * len(LAYERS)}"]
    lines += [f"| {row} | {' | '.join(shown(row, column) for column in LAYERS)} |" for row in rows if row in NEURONS]
    lines += ["", "| network | differing |", "| --- | --- |"]
    lines += [f"| {row} | {shown(row, '')} |" for row in rows if row in OTHERS]
    return "\n".join([*lines, "", *(f"{k}. {reason}" for k, reason in enumerate(reasons, start=1))])


def main() -> None:
    """Measure, print, and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="rows of the tables; without any, all of them")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    compilers = [name for name in ("gcc", "clang") if shutil.which(name)]
    cells = measured(options.rows or [*NEURONS, *OTHERS], compilers)
    print(tables(cells))
    if options.out is not None:
        versions = {name: version(name) for name in ("torch", "onnx", "onnxruntime")}
        rows = ",\n".join(json.dumps(cell) for cell in cells)
        text = (
            f'{{"versions": {json.dumps(versions)},\n"compilers": {json.dumps(compilers)},\n"cells": [\n{rows}\n]}}\n'
        )
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
