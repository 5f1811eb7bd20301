"""What stands before the first neuron sees a static input once, forward and backward, accelerated or not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import spikeloom as snn

STEPS, BATCH = 7, 4


class Own(nn.Module):
    """A network with its own forward."""

    def __init__(self, *prefix: nn.Module) -> None:
        super().__init__()
        self.prefix, self.lif = nn.ModuleList(prefix), snn.Leaky(beta=0.5, threshold=0.1, init_hidden=True)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.prefix:
            x = layer(x)
        spk: Tensor = self.lif(torch.relu(x))
        return spk


def prefix() -> list[nn.Module]:
    return [
        nn.Conv2d(2, 16, 3), nn.BatchNorm2d(16).eval(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 9)
    ]  # fmt: skip


def in_a_row(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.ReLU(), snn.Leaky(beta=0.5, threshold=0.1, init_hidden=True))


READS = {
    "convolution": 0, "native_batch_norm": 0, "max_pool2d_with_indices": 0, "addmm": 1,
    "convolution_backward": 0, "native_batch_norm_backward": 0, "max_pool2d_with_indices_backward": 0,
}  # fmt: skip
"""What is counted, and which argument has a row per image: the input, or the gradient of the result."""


class Products(TorchDispatchMode):
    """The rows of every product and pooling, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in READS:
            self.rows.append((name, len(args[READS[name]])))
        return out


@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize("network", [in_a_row, Own])
def test_each_layer_runs_once_on_the_rows_of_one_step(network: Callable[..., nn.Module], accelerated: bool) -> None:
    net = snn.accelerate(network(*prefix()), accelerated)
    x = torch.rand(BATCH, 2, 10, 10)
    with Products() as seen:
        spk = snn.unroll(net, x, steps=STEPS)
        torch.autograd.grad(spk.sum(), [*net.parameters()])
    assert sorted(seen.rows) == sorted((name, BATCH) for name in READS)
    explained = snn.explain(net, x, steps=STEPS)
    assert not explained.repeated
    assert all(row.static for row in explained.rows)


@pytest.mark.parametrize("network", [in_a_row, Own])
def test_and_gives_what_the_loop_gives(network: Callable[..., nn.Module]) -> None:
    net, x = network(*prefix()), torch.rand(BATCH, 2, 10, 10)
    results = []
    for run in (lambda: torch.stack([net(x) for _ in range(STEPS)]), lambda: snn.unroll(net, x, steps=STEPS)):
        snn.utils.reset(net)
        spk = run()
        results.append((spk, torch.autograd.grad(spk.sum(), [*net.parameters()])))
    (wanted, wanted_grads), (got, got_grads) = results
    assert 0 < wanted.mean() < 1
    assert torch.equal(got, wanted)
    for ours, theirs in zip(got_grads, wanted_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
