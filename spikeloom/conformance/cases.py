"""The networks of the conformance table: each neuron and each layer that NIR has, and a few of them together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import neurons
from ..export.nir import Scale, Threshold
from ..layers import SynapticDelay

NIR_RESET = {"reset_mechanism": "zero", "reset_delay": False}
VECTOR, IMAGE, SERIES = (100,), (1, 10, 10), (1, 100)


@dataclass(frozen=True)
class Case:
    """A network of the table.

    Args:
        name: as the table shows it.
        make: the network.
        shape: of a step.
        low, high: of the inputs, which are uniform.
        alone: whether it is a neuron alone, which simulators can run.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = VECTOR
    low: float = -0.2
    high: float = 1.0
    alone: bool = False

    def inputs(self, steps: int, batch: int) -> Tensor:
        """[T, B, *N]."""
        values = torch.rand(steps, batch, *self.shape, generator=torch.Generator().manual_seed(1))
        return self.low + (self.high - self.low) * values


class Residual(nn.Module):
    """Two layers, and the spikes of the first added to the input of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(100, 100), leaky(0.9)
        self.fc2, self.lif2 = nn.Linear(100, 100), leaky(0.8)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 100] -> [B, 100]."""
        spk: Tensor = self.lif1(self.fc1(x))
        out: Tensor = self.lif2(self.fc2(spk) + spk)
        return out


def leaky(beta: Any, threshold: Any = 1.0) -> neurons.Leaky:
    """A Leaky whose reset NIR can represent."""
    return neurons.Leaky(beta, threshold, reset_mechanism="zero", reset_delay=False, init_hidden=True)


def chain(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return a function that makes a new Sequential at each call."""
    return lambda: nn.Sequential(*(layer() for layer in layers))


def linear(bias: bool = True) -> Callable[[], nn.Module]:
    """A Linear of 100 neurons."""
    return lambda: nn.Linear(100, 100, bias=bias)


def spread(low: float, high: float) -> Tensor:
    """A value per neuron."""
    return torch.linspace(low, high, 100)


def hidden(kind: Any, *args: Any, **options: Any) -> Callable[[], nn.Module]:
    """A neuron that stores its state."""
    return lambda: kind(*args, init_hidden=True, **options)


def recurrent(kind: Any, *args: Any, **options: Any) -> Callable[[], nn.Module]:
    """A Linear, and a recurrent neuron whose reset NIR can represent."""
    return chain(linear(), hidden(kind, *args, **options, **NIR_RESET))


CASES = (
    Case("LIF", chain(lambda: leaky(0.9)), alone=True),
    Case("LIF, a value per neuron", chain(lambda: leaky(spread(0.1, 0.9), spread(0.5, 1.5))), alone=True),
    Case("LIF, r = 1", chain(hidden(neurons.ParametricLIF, 0.8, 0.2)), alone=True),
    Case("IF", chain(hidden(neurons.IF, 2.0, **NIR_RESET)), alone=True),
    Case("CubaLIF", chain(hidden(neurons.Synaptic, 0.8, 0.9, 3.0, **NIR_RESET)), alone=True),
    Case("LI", chain(hidden(neurons.LI, 0.9))),
    Case("I", chain(hidden(neurons.LI, 1.0))),
    Case("LI, Threshold", chain(hidden(neurons.Leaky, 0.9, 4.0, reset_mechanism="none"))),
    Case("CubaLI, Threshold", chain(hidden(neurons.Synaptic, 0.8, 0.9, 18.0, reset_mechanism="none"))),
    Case("Linear, LIF", chain(linear(False), lambda: leaky(0.9))),
    Case("Affine, LIF", chain(linear(), lambda: leaky(0.9))),
    Case("Affine, LIF, one to one", recurrent(neurons.RLeaky, 0.9, V=spread(-0.5, 0.5), all_to_all=False)),
    Case("Affine, LIF, recurrent", recurrent(neurons.RLeaky, 0.9, linear_features=100)),
    Case("Affine, CubaLIF, recurrent", recurrent(neurons.RSynaptic, 0.5, 0.9, linear_features=100)),
    Case("residual sum", Residual),
    Case("Linear", chain(linear(False))),
    Case("Affine", chain(linear())),
    Case("Scale", chain(lambda: Scale(spread(0.5, 2.0)))),
    Case("Threshold", chain(lambda: Threshold(spread(0.1, 0.9)))),
    Case("Delay", chain(lambda: SynapticDelay(100, 5, torch.arange(100.0) % 6))),
    Case("Conv1d", chain(lambda: nn.Conv1d(1, 1, 5, padding=2)), SERIES),
    Case("Conv2d", chain(lambda: nn.Conv2d(1, 1, 3, padding=1)), IMAGE),
    Case("Conv2d in two groups", chain(lambda: nn.Conv2d(2, 2, 3, padding=1, groups=2)), (2, 10, 5)),
    Case("AvgPool2d", chain(lambda: nn.AvgPool2d(2)), (1, 20, 20)),
    Case("SumPool2d", chain(lambda: nn.AvgPool2d(2, divisor_override=1)), (1, 20, 20)),
    Case("SumPool2d, padded", chain(lambda: nn.AvgPool2d(2, 2, 1, divisor_override=1)), (1, 18, 18)),
    Case("Flatten", chain(nn.Flatten), (4, 5, 5)),
    Case(
        "Conv2d, IF, SumPool2d, Flatten, Affine, LIF",
        chain(
            lambda: nn.Conv2d(1, 4, 3, padding=1),
            hidden(neurons.IF, 1.0, **NIR_RESET),
            lambda: nn.AvgPool2d(2, divisor_override=1),
            nn.Flatten,
            linear(),
            lambda: leaky(0.9),
        ),
        IMAGE,
        -1.0,
        2.0,
    ),
    Case("LIF that subtracts, one step late", chain(linear(), hidden(neurons.Leaky, 0.9, 0.5))),
)
