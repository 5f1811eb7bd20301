"""Small networks and a task that they learn, and what can be changed in them until they do not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import spikeloom as snn
from spikeloom import surrogate

SAMPLES, PIXELS, HIDDEN, CLASSES, STEPS = 64, 16, 24, 4, 16


def task() -> tuple[Tensor, Tensor]:
    """Which quarter of the pixels is the brightest: [B, 16] of 0 to 1, and the quarters, [B]."""
    draw = torch.Generator().manual_seed(7)
    x = torch.rand(SAMPLES, PIXELS, generator=draw) * 0.4
    y = torch.arange(SAMPLES) % CLASSES
    for quarter in range(CLASSES):
        x[y == quarter, 4 * quarter : 4 * quarter + 4] += 0.6
    return x, y


def linear(inputs: int, outputs: int, gain: float = 2.0) -> nn.Linear:
    """Weights that let the neurons after it fire."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.mul_(gain).add_(0.3 / inputs)
    return layer


def leaky(**options: Any) -> snn.Leaky:
    return snn.Leaky(**{"beta": 0.9, "init_hidden": True} | options)


def usual(middle: nn.Module | None = None, last: nn.Module | None = None, *extra: nn.Module) -> nn.Sequential:
    """Two layers of spiking neurons; `extra` comes between them."""
    return nn.Sequential(
        *(linear(PIXELS, HIDDEN), middle or leaky()),
        *(*extra, linear(HIDDEN, CLASSES), last or leaky()),
    )


def counted(out: Tensor) -> Tensor:
    """The class scores: spikes added over time."""
    return out.sum(0)


@dataclass
class Setup:
    """What a user has: a network, data, a way to run it, a loss and an optimizer."""

    net: nn.Module = field(default_factory=usual)
    x: Tensor = field(default_factory=lambda: task()[0])
    steps: int | None = STEPS
    scores: Callable[[Any], Tensor] = counted
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    forward: Callable[[nn.Module, Tensor], Any] | None = None
    optimizer: Callable[[Any], torch.optim.Optimizer] = lambda parameters: torch.optim.Adam(parameters, lr=1e-2)
    optimized: Callable[[nn.Module], Any] = lambda net: [*net.parameters()]
    optimizer_passed: bool = False

    def of(self, out: Any) -> Tensor:
        """The loss of what the network returned."""
        return self.loss(self.scores(out), task()[1])

    def diagnose(self) -> snn.Diagnosis:
        optimizer = self.optimizer(self.optimized(self.net)) if self.optimizer_passed else None
        return snn.diagnose(self.net, self.x, steps=self.steps, loss=self.of, forward=self.forward, optimizer=optimizer)

    def learn(self, rounds: int, enough: float = 2.0) -> tuple[float, int]:
        """Trains for some rounds, or until the accuracy is enough; returns the accuracy and the number of rounds."""
        optimizer = self.optimizer(self.optimized(self.net))
        run = self.forward or (lambda net, x: snn.unroll(net, x, steps=self.steps))
        accuracy, done = 0.0, 0
        while done < rounds:
            done += 1
            snn.utils.reset(self.net)
            out = run(self.net, self.x)
            scores = self.scores(out)
            accuracy = float((scores.argmax(1) == task()[1]).float().mean())
            loss = self.of(out)
            if accuracy >= enough or not loss.requires_grad:
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return accuracy, done


def replaced(number: int, module: Callable[[], nn.Module]) -> Callable[[Setup], None]:
    """Replaces a module of the usual network."""
    return lambda s: s.net.__setitem__(number, module())  # type: ignore[operator]


def given(**values: Any) -> Callable[[Setup], None]:
    """Sets attributes of the setup."""
    return lambda s: vars(s).update(values)


def renewed(**values: Any) -> Callable[[Setup], None]:
    """Sets attributes of the setup to newly created values."""
    return lambda s: vars(s).update({name: make() for name, make in values.items()})


def weights(number: int, change: Callable[[nn.Linear], Any]) -> Callable[[Setup], None]:
    """Changes the weights of a Linear of the usual network."""

    @torch.no_grad()
    def act(s: Setup) -> None:
        change(s.net[number])  # type: ignore[index]

    return act


def both(*acts: Callable[[Setup], Any]) -> Callable[[Setup], None]:
    return lambda s: [act(s) for act in acts] and None


def fill(value: float, *rows: int) -> Callable[[nn.Linear], None]:
    """Biases of a layer, all or some."""
    return lambda fc: fc.bias.__setitem__([*rows] if rows else slice(None), value)


def fresh(number: int, inputs: int, outputs: int) -> Callable[[Setup], None]:
    return replaced(number, lambda: linear(inputs, outputs))


def like_the_others(row: int) -> Callable[[nn.Linear], None]:
    def act(fc: nn.Linear) -> None:
        other = (row + 1) % len(fc.bias)
        fc.weight[row] = fc.weight[other].roll(3)
        fc.bias[row] = fc.bias[other]

    return act


# -- networks with a forward of their own ------------------------------------------------------------------------------


class Between(nn.Module):
    """The usual network, with a function between its layers."""

    def __init__(self, act: Callable[[Tensor], Tensor] = lambda t: t):
        super().__init__()
        self.net, self.act = usual(), act

    def forward(self, x: Tensor) -> Any:
        return self.net[2:](self.act(self.net[:2](x)))


class Unused(nn.Module):
    """A layer is created, and not called."""

    def __init__(self, called: bool):
        super().__init__()
        self.fc1, self.lif1, self.fc2, self.lif2 = usual()
        self.skipped, self.called = linear(PIXELS, PIXELS, 3.0), called

    def forward(self, x: Tensor) -> Any:
        x = x + self.skipped(x) if self.called else x
        return self.lif2(self.fc2(self.lif1(self.fc1(x))))


class InAList(nn.Module):
    """The first layer is held by a list."""

    def __init__(self, hold: Callable[[list[nn.Module]], Any]):
        super().__init__()
        with torch.no_grad():
            first = nn.Linear(PIXELS, HIDDEN)
            first.weight.mul_(0.1).add_(0.05)
        self.layers = hold([first])
        self.rest = nn.Sequential(leaky(), linear(HIDDEN, CLASSES), leaky())

    def forward(self, x: Tensor) -> Any:
        return self.rest(self.layers[0](x))


def readout(middle: nn.Module | None = None, beta: float = 0.9) -> nn.Sequential:
    return usual(middle, snn.LI(beta=beta, init_hidden=True))


def recurrent(size: float) -> snn.RLeaky:
    """Recurrent weights of a size, through a surrogate that is wide enough to pass gradient at every step."""
    lif = snn.RLeaky(beta=0.9, linear_features=HIDDEN, init_hidden=True, spike_grad=surrogate.atan(alpha=1.0))
    with torch.no_grad():
        nn.init.orthogonal_(lif.recurrent.weight, size)
        lif.recurrent.bias.zero_()
    return lif


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def scored(out: Any) -> Tensor:
    """The class scores of a readout: the mean of its membranes over time."""
    return (out[1] if isinstance(out, tuple) else out).mean(0)


class Images(nn.Module):
    """A convolution over the pixels as an image of 4 x 4, whose rows are the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif = nn.Conv2d(1, 4, 3, padding=1), leaky(threshold=0.5)
        self.fc, self.out = linear(64, CLASSES, 4.0), leaky()

    def forward(self, x: Tensor) -> Any:
        return self.out(self.fc(self.lif(self.conv(x.view(-1, 1, 4, 4))).flatten(1)))


@torch.no_grad()
def spoil_channel(s: Setup) -> None:
    s.net.conv.bias[2] = -20.0  # type: ignore[union-attr]


@torch.no_grad()
def restore_channel(s: Setup) -> None:
    s.net.conv.bias[2] = s.net.conv.bias[1]  # type: ignore[union-attr]


def deep(gain: float, slope: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in ((PIXELS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES)):
        layers += [linear(inputs, outputs, gain), leaky(spike_grad=surrogate.fast_sigmoid(slope=slope))]
    return nn.Sequential(*layers)


def sequence() -> Tensor:
    """The input as spikes, [T, B, N]."""
    return (task()[0] > torch.rand(STEPS, 1, 1, generator=torch.Generator().manual_seed(1))).float()


def frozen(s: Setup) -> None:
    s.net.requires_grad_(False)


def thawed(s: Setup) -> None:
    s.net.requires_grad_(True)
