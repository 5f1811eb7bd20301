"""Networks that NeuroBench can measure, for snnTorch and for spikeloom; every sum in them is exact."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

T, SAMPLES, BATCH, CLASSES = 7, 8, 3, 4
OWN = {"init_hidden": True}
SYNAPTIC = {"alpha": 0.5, "beta": 0.5}


def with_last(snn: Any, width: int, *layers: nn.Module, **options: Any) -> nn.Sequential:
    return nn.Sequential(*layers, nn.Linear(width, CLASSES), snn.Leaky(beta=0.5, output=True, **options, **OWN))


def dense(name: str, **options: Any) -> Callable[[Any], nn.Module]:
    reset = {name: value for name, value in options.items() if name == "reset_mechanism"}
    return lambda snn: with_last(snn, 5, nn.Linear(6, 5), getattr(snn, name)(**options, **OWN), **reset)


def recurrent_images(snn: Any) -> nn.Module:
    neuron = snn.RLeaky(beta=0.5, conv2d_channels=2, kernel_size=3, **OWN)
    return with_last(snn, 50, nn.Conv2d(1, 2, 3, padding=1), neuron, nn.Flatten())


def convolutions(snn: Any) -> nn.Module:
    first = nn.Conv2d(2, 3, 3, stride=2, padding=1, padding_mode="circular")
    layers = (first, snn.Leaky(beta=0.5, **OWN), nn.AvgPool2d(2), nn.Conv2d(3, 4, 2, bias=False), nn.ReLU())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, CLASSES), snn.Synaptic(output=True, **SYNAPTIC, **OWN))


def nested(snn: Any) -> nn.Module:
    first = nn.Sequential(nn.Conv1d(2, 4, 3, groups=2), snn.Leaky(beta=0.5, **OWN))
    return with_last(snn, 20, first, nn.Flatten(), nn.Sequential(nn.Linear(20, 20), snn.Leaky(beta=0.25, **OWN)))


def lstm_images(snn: Any) -> nn.Module:
    return with_last(snn, 18, snn.SConv2dLSTM(1, 2, 3, threshold=0.05, max_pool=2, **OWN), nn.Flatten())


def lstm(snn: Any) -> nn.Module:
    return with_last(snn, 5, nn.Linear(6, 5), snn.SLSTM(5, 5, threshold=0.1, **OWN))


NETWORKS: dict[str, tuple[Callable[[Any], nn.Module], tuple[int, ...]]] = {
    **{f"Leaky, {r}": (dense("Leaky", beta=0.5, reset_mechanism=r), (6,)) for r in ("subtract", "zero")},
    **{f"Synaptic, {r}": (dense("Synaptic", **SYNAPTIC, reset_mechanism=r), (6,)) for r in ("subtract", "zero")},
    **{f"Lapicque, {r}": (dense("Lapicque", beta=0.5, reset_mechanism=r), (6,)) for r in ("subtract", "zero")},
    **{f"Alpha, {r}": (dense("Alpha", alpha=0.75, beta=0.5, reset_mechanism=r), (6,)) for r in ("subtract", "zero")},
    "RLeaky": (dense("RLeaky", beta=0.5, linear_features=5), (6,)),
    "RLeaky, one to one": (dense("RLeaky", beta=0.5, V=0.5, all_to_all=False), (6,)),
    "RLeaky, images": (recurrent_images, (1, 5, 5)),
    "SLSTM": (lstm, (6,)),
    "SConv2dLSTM": (lstm_images, (1, 6, 6)),
    "convolutions": (convolutions, (2, 8, 8)),
    "nested": (nested, (2, 7)),
}
"""How each is made from a library, and the shape of its input."""

UNCOUNTED = ("RLeaky", "RLeaky, one to one", "RLeaky, images", "SLSTM", "SConv2dLSTM", "convolutions")
"""Networks with a layer whose operations NeuroBench does not know; it reports 0."""

UNSEEN_BY_ALIAS = ("SLSTM", "SConv2dLSTM")
"""Networks whose neuron calls no layer inside of it, where NeuroBench looks for synaptic operations."""


def made(name: str, snn: Any) -> nn.Module:
    """A network with weights that are small fractions, and zeros among them."""
    net, draw = NETWORKS[name][0](snn), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            kept = torch.rand(p.shape, generator=draw) < 0.8
            p.copy_(torch.randint(-16, 24, p.shape, generator=draw) / 16 * kept)
    return net.eval()


def loader(name: str) -> DataLoader[tuple[Tensor, ...]]:
    """Batches (x [B, T, ...], classes), the last one smaller. Images are graded at some steps, and spikes at others."""
    draw, shape = torch.Generator().manual_seed(5), (SAMPLES, T, *NETWORKS[name][1])
    x = (torch.rand(shape, generator=draw) < 0.4).float()
    if name == "convolutions":
        x[:, ::2] *= torch.randint(-1, 3, x[:, ::2].shape, generator=draw)
    return DataLoader(TensorDataset(x, torch.randint(0, CLASSES, (SAMPLES,), generator=draw)), batch_size=BATCH)


def by_steps(net: nn.Module, x: Tensor) -> Tensor:
    """The spikes of a loop over the steps of x [T, B, ...]."""
    return torch.stack([net(x_t)[0] for x_t in x])


def each() -> Iterator[str]:
    yield from NETWORKS
