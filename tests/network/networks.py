"""Networks, and the loop over steps that says what they should give."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import spikeloom as snn


def leaky(**options: Any) -> snn.Leaky:
    return snn.Leaky(**{"beta": 0.5, "init_hidden": True} | options)


class Residual(nn.Module):
    """Goes around each neuron; the first time from what is static where the input is."""

    def __init__(self, n: int = 6):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(n, n), leaky()
        self.fc2, self.lif2 = nn.Linear(n, n), leaky(output=True)

    def forward(self, x: Tensor) -> Any:
        current = self.fc1(x)
        return self.lif2(self.fc2(self.lif1(current)) + current)


class Branches(nn.Module):
    """Two static branches, each with a neuron, concatenated; returns a dict that holds a static tensor."""

    def __init__(self, n: int = 6):
        super().__init__()
        self.a, self.b = nn.Sequential(nn.Linear(n, 3), leaky()), nn.Sequential(nn.Linear(n, 4), nn.ReLU(), leaky())
        self.head = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Any:
        both = torch.cat((self.a(x), self.b(x)), dim=1)
        return {"logits": self.head(both), "spikes": [both, None], "input": x * 2}


class Convolutional(nn.Module):
    """Reads the size of the batch off its input, as many forwards do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif = nn.Conv2d(1, 2, 3, padding=1), leaky(threshold=0.5)
        self.pool, self.fc, self.out = nn.MaxPool2d(2), nn.Linear(18, 3), leaky(output=True)

    def forward(self, x: Tensor) -> Any:
        batch = x.size(0)
        images = x.view(batch, 1, 6, 1).expand(-1, -1, -1, 6)
        return self.out(self.fc(self.pool(self.lif(self.conv(images))).view(batch, -1)))


class ByHandGroups(nn.Module):
    """A reshape by the batch size of the input that would take time for something else, and fit."""

    def __init__(self, n: int = 6):
        super().__init__()
        self.fc, self.lif = nn.Linear(n, n), leaky()

    def forward(self, x: Tensor) -> Tensor:
        spk = self.lif(self.fc(x))
        groups = spk.view(x.size(0), 2, -1)
        return (groups - groups.mean(-1, keepdim=True)).view_as(spk)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a neuron": lambda: leaky(output=True),
    "a neuron without init_hidden": lambda: snn.Leaky(beta=0.5, learn_beta=True),
    "a sequence of layers": lambda: nn.Sequential(nn.Linear(6, 5), leaky(), nn.Linear(5, 4), leaky(output=True)),
    "nested sequences": lambda: nn.Sequential(nn.Sequential(nn.Linear(6, 5)), nn.Sequential(leaky(), nn.Linear(5, 2))),
    "residual": Residual,
    "nested residual": lambda: nn.Sequential(nn.Linear(6, 6), nn.Sequential(leaky(), Residual())),
    "branches": Branches,
    "convolutional": Convolutional,
    "groups by hand": ByHandGroups,
    "no neurons": lambda: nn.Linear(6, 3),
    "recurrent": lambda: nn.Sequential(
        nn.Linear(6, 5), snn.RLeaky(beta=0.5, linear_features=5, init_hidden=True, output=True)
    ),
    "quantised": lambda: nn.Sequential(nn.Linear(6, 5), leaky(state_quant=lambda mem: (mem * 8).round() / 8)),
}


def exact(net: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """With weights in eighths, so that sums of a few are exact in any order."""
    draw = torch.Generator().manual_seed(3)
    net = net.to(dtype)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "beta" not in name:
                p.copy_(torch.randint(-8, 9, p.shape, generator=draw) / 8)
    return net


def quarters(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """An input in quarters, mostly above zero."""
    draw = torch.Generator().manual_seed(seed)
    return (torch.randint(-2, 9, shape, generator=draw) / 4).to(dtype)


def stepped(net: nn.Module, x: Tensor, steps: int | None = None) -> Any:
    """The loop over steps, stacked: what unroll should give. A neuron without init_hidden is handed its state."""
    outs = []
    mem = None
    for t in range(len(x) if steps is None else steps):
        x_t = x[t] if steps is None else x
        if isinstance(net, snn.Leaky) and not net.init_hidden:
            spk, mem = net(x_t, mem)
            outs.append((spk, mem))
        else:
            outs.append(net(x_t))
    return tree_map(lambda *each: torch.stack(each) if isinstance(each[0], Tensor) else each[0], *outs)


def twins(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """The same network twice, exact."""
    net = exact(make(), dtype)
    return net, copy.deepcopy(net)
