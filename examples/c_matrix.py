"""Print the table of docs/c.md: every neuron behind every kind of layer, as C, against the library.

    python examples/c_matrix.py

It requires gcc or clang. Weights are multiples of 1/64, so that all sums are exact. A cell has the number of outputs
that differ in the generated test, in floating point and in integers, or "refused".
"""

import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import spikeloom as snn
from spikeloom import ops


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
    "ParametricLIF": lambda: snn.ParametricLIF(**HIDDEN),
    "RALIF, V": lambda: snn.RALIF(V=0.4, all_to_all=False, **HIDDEN),
    "ALIF": lambda: snn.ALIF(**HIDDEN),
    "AdLIF": lambda: snn.AdLIF(**HIDDEN),
    "CuBaLIF": lambda: snn.CuBaLIF(**HIDDEN),
    "QIF": lambda: snn.QIF(**HIDDEN),
    "EIF": lambda: snn.EIF(**HIDDEN),
    "Izhikevich": lambda: snn.Izhikevich(**HIDDEN),
    "ResonateFire": lambda: snn.ResonateFire(**HIDDEN),
    "snn.cell": lambda: UserCell(**HIDDEN),
    "NoisyLeaky": lambda: snn.NoisyLeaky(0.9, **HIDDEN),
    "Leaky, state_quant": lambda: snn.Leaky(0.9, state_quant=torch.round, **HIDDEN),
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
WITH_MEMORY: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "RLeaky, Linear": (nn.Sequential(nn.Linear(16, 8), snn.RLeaky(0.5, linear_features=8, **HIDDEN)), (16,)),
    "RSynaptic, Linear": (nn.Sequential(nn.Linear(16, 8), snn.RSynaptic(0.5, 0.5, linear_features=8, **HIDDEN)), (16,)),
    "RLeaky, Conv2d": (
        nn.Sequential(nn.Conv2d(1, 3, 3), snn.RLeaky(0.5, conv2d_channels=3, kernel_size=3, **HIDDEN)),
        (1, 7, 7),
    ),
    "RALIF, Linear": (nn.Sequential(nn.Linear(16, 8), snn.RALIF(linear_features=8, **HIDDEN)), (16,)),
    "SLSTM": (nn.Sequential(snn.SLSTM(16, 8, threshold=0.1, **HIDDEN)), (16,)),
    "StateLeaky": (nn.Sequential(nn.Linear(16, 8), snn.StateLeaky(0.5, 8)), (16,)),
    "LinearLeaky": (nn.Sequential(snn.LinearLeaky(0.5, 16, 8)), (16,)),
    "LeakyParallel": (nn.Sequential(snn.LeakyParallel(16, 8, 0.5)), (16,)),
    "SynapticDelay, Leaky": (nn.Sequential(snn.SynapticDelay(16, 5), snn.Leaky(0.5, **HIDDEN)), (16,)),
    "DelayedLinear, Leaky": (nn.Sequential(snn.DelayedLinear(16, 8, 5), snn.Leaky(0.5, **HIDDEN)), (16,)),
    "BatchNormTT1d, Leaky": (nn.Sequential(snn.BatchNormTT1d(16, 50), snn.Leaky(0.5, **HIDDEN)), (16,)),
    "AssociativeLeaky": (nn.Sequential(snn.AssociativeLeaky(16, 2, 2, 4)), (16,)),
    "SConv2dLSTM": (nn.Sequential(snn.SConv2dLSTM(1, 2, 3, threshold=0.1, **HIDDEN)), (1, 7, 7)),
    "SConv2dLSTM, max_pool": (nn.Sequential(snn.SConv2dLSTM(1, 2, 3, max_pool=2, threshold=0.1, **HIDDEN)), (1, 7, 7)),
}


def exact(net: nn.Module) -> nn.Module:
    """The network with weights that are multiples of 1/64."""
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, snn.DelayedLinear)):
            fan = module.weight[0].numel()
            module.weight.data = ((torch.randn_like(module.weight) + 0.2) * 192 / fan**0.5).round() / 64
            module.bias.data = (torch.rand_like(module.bias) * 16).round() / 64
    return net


def cell(net: nn.Module, shape: tuple[int, ...], compilers: list[str], folder: Path) -> str:
    """What a network gives: differing outputs in floating point / in integers."""
    x, results = (torch.rand(50, 4, *shape) < 0.3).float(), []
    for number in ("float", "int8"):
        try:
            made = snn.export_c(net, x, folder / "net.c", number)
        except NotImplementedError:
            results.append("refused")
            continue
        shown = set()
        for compiler in compilers:
            program = folder / "net"
            build = [compiler, "-std=c99", "-O2", "-DNET_TEST", str(made.path), "-o", str(program), "-lm"]
            subprocess.run(build, check=True)
            run = subprocess.run([str(program)], capture_output=True, text=True, check=False)
            shown.add(run.stdout.split()[0])
        results.append(" or ".join(sorted(shown)))
    return "refused" if results == ["refused"] * 2 else " / ".join(results)


def main() -> None:
    warnings.simplefilter("ignore")
    compilers = [name for name in ("gcc", "clang") if shutil.which(name)]
    print(f"| neuron | {' | '.join(LAYERS)} |\n| --- |{' --- |' * len(LAYERS)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, make in NEURONS.items():
            torch.manual_seed(0)
            row = [cell(exact(build(make)), shape, compilers, folder) for build, shape in LAYERS.values()]
            print(f"| {title} | {' | '.join(row)} |", flush=True)
        print("\n| recurrent, over whole sequences, or with a memory | |\n| --- | --- |")
        for title, (net, shape) in WITH_MEMORY.items():
            torch.manual_seed(0)
            print(f"| {title} | {cell(exact(net), shape, compilers, folder)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
