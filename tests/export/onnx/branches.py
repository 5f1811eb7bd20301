"""Every neuron and layer over time, side by side in one network: an export takes seconds, whatever the network has."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom import ops

from ...neurons.zoo import ZOO, made

FEATURES = 96


@snn.cell
def Accumulator(x, mem, *, leak=0.1, threshold=1.0):
    """A user's own neuron."""
    mem = mem + x - leak
    spk = ops.spike(mem - threshold)
    return spk, mem - ops.detach(spk) * threshold


class Louder(snn.Leaky):
    """A subclass with a method of its own."""

    def fire(self, mem: Tensor) -> Tensor:
        return super().fire(mem * 1.25)


def leaky(**options: Any) -> snn.Leaky:
    return snn.Leaky(beta=0.8, **{"init_hidden": True, **options})


def through_a_network() -> snn.RLeaky:
    lif = snn.RLeaky(beta=0.8, linear_features=4, init_hidden=True)
    lif.recurrent = nn.Sequential(nn.Linear(4, 4), leaky())
    return lif


def images(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 2, 2)), *layers)


def quantized(uniform: bool) -> snn.Leaky:
    return leaky(state_quant=snn.functional.quant.state_quant(num_bits=3, uniform=uniform))


EXACT: Mapping[str, Callable[[], nn.Module]] = {
    "Leaky by zero at once": lambda: leaky(reset_mechanism="zero", reset_delay=False),
    "a neuron of the user's": lambda: Accumulator(init_hidden=True),
    "an overridden method": lambda: Louder(beta=0.8, init_hidden=True),
    "a spike function of the user's": lambda: leaky(spike_grad=lambda u: (u > 0).to(u.dtype)),
    "inhibition": lambda: leaky(inhibition=True),
    "uniform state_quant": lambda: quantized(True),
    "state_quant": lambda: quantized(False),
    "StateLeaky": lambda: snn.StateLeaky(beta=0.8, channels=4),
    "SynapticDelay": lambda: nn.Sequential(snn.SynapticDelay(4, max_delay=3), leaky()),
    "GradedSpikes": lambda: nn.Sequential(leaky(), snn.GradedSpikes(4, 1.5, dim=1)),
    "pooling": lambda: images(leaky(), nn.MaxPool2d(2), leaky()),
    "Dropout": lambda: nn.Sequential(nn.Dropout(0.5), leaky()),
}
ROUNDED: Mapping[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Sequential(nn.Linear(4, 5), leaky(), nn.Linear(5, 3), leaky(output=True)),
    "Conv2d, BatchNorm2d, AvgPool2d": lambda: images(
        *(nn.Conv2d(1, 3, 2, padding=1), nn.BatchNorm2d(3), leaky(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(3, 2), leaky(threshold=0.1)),
    ),
    "BatchNormTT1d": lambda: nn.Sequential(snn.BatchNormTT1d(4, time_steps=40), leaky()),
    "DelayedLinear": lambda: nn.Sequential(snn.DelayedLinear(4, 5, max_delay=3), leaky()),
    "LayerNorm": lambda: nn.Sequential(nn.LayerNorm(4), leaky()),
    "StateLeaky, truncated": lambda: snn.StateLeaky(beta=0.8, channels=4, kernel_truncation_steps=3),
    "LinearLeaky": lambda: snn.LinearLeaky(beta=0.8, in_features=4, out_features=3),
    "LeakyParallel": lambda: snn.LeakyParallel(4, 3, beta=0.8),
    "LeakyParallel, full": lambda: snn.LeakyParallel(4, 3, weight_hh_enable=True, threshold=0.3),
    "AssociativeLeaky": lambda: snn.AssociativeLeaky(4, 2, 3, 6, use_q_projection=False),
    "RLeaky through a network with states": through_a_network,
    "accelerated": lambda: snn.accelerate(nn.Sequential(leaky(), nn.Linear(4, 3), leaky())),
}


NAMES = [*ZOO, *EXACT, *ROUNDED]
FEW = ["Leaky", "RLeaky through Linear", "SLSTM", "a neuron of the user's", "inhibition", "state_quant", "Linear"]
FEW += ["SynapticDelay", "StateLeaky"]


class Branches(nn.Module):
    """Some neurons and layers, each on its own inputs; returns the spikes of each by its number in `NAMES`."""

    def __init__(self, names: Sequence[str]):
        super().__init__()
        self.names = list(names)
        self.branches = nn.ModuleList([self._made(name) for name in names])

    @staticmethod
    def _made(name: str) -> nn.Module:
        if name in ZOO:
            return made(name, init_hidden=True, **({"sigma": 0.0} if name == "NoisyLeaky" else {}))
        torch.manual_seed(5)
        return {**EXACT, **ROUNDED}[name]()

    def forward(self, x: Tensor) -> dict[str, Any]:
        outputs = {}
        for name, branch in zip(self.names, self.branches, strict=True):
            kind = ZOO.get(name, ZOO["Leaky"])
            part = x[:, : torch.Size(kind.shape[1:]).numel()].reshape(x.shape[0], *kind.shape[1:])
            out = branch(part * kind.scale + kind.shift)
            outputs[str(NAMES.index(name))] = out[0] if isinstance(out, tuple) else out
        return outputs


def is_exact(name: str) -> bool:
    """Whether nothing is summed in an order that another program may change."""
    return ZOO[name].exact if name in ZOO else name in EXACT
