"""What a network consists of and how much it fires, layer by layer, as a table."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn

from ..neurons import SpikingNeuron
from ._explain import Row, aligned, explain, share

HEADINGS = ("layer", "kind", "output", "neurons", "states", "parameters", "firing rate", "runs on")
NUMBERS = (HEADINGS.index("neurons"), HEADINGS.index("parameters"), HEADINGS.index("firing rate"))


@dataclass(frozen=True)
class Layer:
    """One layer of a summary.

    Args:
        path: its name in the network, as in `named_modules`.
        kind: its class.
        shape: of its output for one step and one row, [*N].
        neurons: how many spiking neurons it has; 0 for a layer without state.
        states: the names of what each neuron keeps between steps.
        parameters: how many numbers its nn.Parameters hold.
        rate: the share of steps in which a neuron fires, over all rows, steps and neurons; NaN where there are none.
        backend: what it runs on.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    neurons: int
    states: tuple[str, ...]
    parameters: int
    rate: float
    backend: str


@dataclass(frozen=True)
class Summary:
    """What `summary` found; print it for a table.

    Args:
        layers: in the order in which they ran.
        steps: T.
        batch: B.
        parameters: of the whole network, each counted once, also those that stand in no layer of the table.
        learned: those of them that require a gradient.
    """

    layers: tuple[Layer, ...]
    steps: int
    batch: int
    parameters: int
    learned: int

    @property
    def neurons(self) -> int:
        """How many spiking neurons there are."""
        return sum(layer.neurons for layer in self.layers)

    def __str__(self) -> str:
        fire = [(layer.neurons, layer.rate) for layer in self.layers if layer.rate == layer.rate and layer.neurons]
        rate = sum(n * r for n, r in fire) / sum(n for n, _ in fire) if fire else float("nan")
        total = ("total", "", "", f"{self.neurons:,}", "", f"{self.parameters:,}", share(rate), "")
        lines = aligned([HEADINGS, *(_cells(layer) for layer in self.layers), total], right=NUMBERS)
        lines.insert(0, f"{self.steps} steps of {self.batch} rows; {self.learned:,} parameters are learned")
        lines.insert(-1, "-" * max(map(len, lines[1:])))
        return "\n".join(lines)

    __repr__ = __str__


def summary(net: nn.Module, x: Any, steps: int | None = None) -> Summary:
    """Run a network once, as `spikeloom.unroll` would, and tell what it consists of and how much it fires.

    The network stays as it is: states, statistics, gradients and random numbers.

    Args:
        net: the network, or one neuron.
        x: input, [T, B, ...], or [B, ...] with `steps`; a batch of the data gives the rates of the data.
        steps: T, if the input is the same at every step.

    Returns:
        a `Summary`; its `str` is a table. A parameter that several layers share is counted in each of them and once
        in the total. The rate of the total is over all neurons.

    Raises:
        what `spikeloom.unroll` raises, for a network that cannot be unrolled.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 100), snn.Leaky(beta=0.9, init_hidden=True))
        >>> print(snn.utils.summary(net, torch.ones(8, 64), steps=25))
        25 steps of 8 rows; 6,500 parameters are learned
        layer  kind    output  neurons  states  parameters  firing rate  runs on
        0      Linear  100           -               6,500            -  torch
        1      Leaky   100         100  mem              0  ...
        ------------------------------------------------------------------------
        total                      100               6,500  ...
    """
    explanation = explain(net, x, steps=steps)
    modules = dict(net.named_modules())
    return Summary(
        tuple(_layer(row, modules[row.path]) for row in explanation.rows),
        explanation.steps,
        explanation.batch,
        _numbers(net.parameters()),
        _numbers(p for p in net.parameters() if p.requires_grad),
    )


def _layer(row: Row, module: nn.Module) -> Layer:
    spiking = isinstance(module, SpikingNeuron)
    return Layer(
        path=row.path,
        kind=row.kind,
        shape=row.shape,
        neurons=prod(row.shape) if spiking else 0,
        states=module._state_names() if isinstance(module, SpikingNeuron) else (),
        parameters=_numbers(module.parameters()),
        rate=row.density if spiking else float("nan"),
        backend=row.backend,
    )


def _numbers(parameters: Iterable[nn.Parameter]) -> int:
    return sum(0 if nn.parameter.is_lazy(p) else p.numel() for p in parameters)


def _cells(layer: Layer) -> tuple[str, ...]:
    return (
        layer.path or "(itself)",
        layer.kind,
        "x".join(map(str, layer.shape)),
        f"{layer.neurons:,}" if layer.neurons else "-",
        ", ".join(layer.states),
        f"{layer.parameters:,}",
        share(layer.rate),
        layer.backend,
    )
