"""Results may be written to in place, as those of torch's own layers may: large ones too, and in any memory order."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.accelerated import reported
from spikeloom.engine import tuning

LARGE = tuning.limits.pool_from // 4  # values of float32


def over_time(net: nn.Module, *shape: int) -> Callable[[], Tensor]:
    return lambda: snn.unroll(net, torch.ones(2, *shape))


def conv(channels_last: bool) -> nn.Module:
    layer = nn.Conv2d(1, 4, 3, padding=1)
    return layer.to(memory_format=torch.channels_last) if channels_last else layer


def spikes(*shape: int, channels_last: bool = False) -> Tensor:
    x = (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.05).float()
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def accelerated(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with reported() as plans:
            out: Tensor = snn.accelerate(layer)(x.clone().requires_grad_())
        assert plans[layer].route in ("sparse", "numba")
        return out

    return run


CASES: dict[str, Callable[[], Callable[[], Tensor]]] = {
    "a large step": lambda: lambda: snn.Leaky(0.9, learn_beta=True)(torch.ones(LARGE))[0],
    "a large sequence": lambda: over_time(snn.Leaky(0.9, init_hidden=True, learn_beta=True), LARGE, 1),
    "large gates": lambda: lambda: snn.SLSTM(1, 1)(torch.ones(LARGE, 1))[0],
    "channels last": lambda: over_time(nn.Sequential(conv(True), snn.Leaky(0.9, init_hidden=True)), 3, 1, 5, 5),
    "a Linear": lambda: accelerated(nn.Linear(512, 512), spikes(4, 200, 512)),
    "a convolution": lambda: accelerated(nn.Conv2d(32, 64, 3), spikes(64, 32, 18, 18)),
    "a convolution, channels last": lambda: accelerated(
        nn.Conv2d(32, 64, 3), spikes(64, 32, 18, 18, channels_last=True)
    ),
    "pooling": lambda: accelerated(nn.MaxPool2d(2), spikes(64, 8, 64, 64)),
    "pooling, channels last": lambda: accelerated(nn.AvgPool2d(2), spikes(16, 8, 64, 64, channels_last=True)),
}


@pytest.mark.filterwarnings("ignore:.*cannot fire")
@pytest.mark.parametrize("write", [nn.ReLU(inplace=True), lambda t: t.mul_(2.0)], ids=["ReLU", "product"])
@pytest.mark.parametrize("name", CASES)
def test_an_output_takes_an_operation_in_place(name: str, write: Callable[[Tensor], Any]) -> None:
    torch.manual_seed(0)
    run = CASES[name]()
    out = run()
    assert out.requires_grad
    write(out)
    out.sum().backward()


@pytest.mark.filterwarnings("ignore:.*cannot fire")
@pytest.mark.parametrize("name", [name for name in CASES if name != "large gates"])  # whose first step is a view
def test_an_output_can_be_detached_in_place(name: str) -> None:
    torch.manual_seed(0)
    assert not CASES[name]()().detach_().requires_grad
