"""Mixed precision trains as well as float32: close gradients, the same after scaling, as accurate within noise."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn

from ..neurons.running import in_both_ways
from ..oracle import assert_close

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
HALVES = [torch.bfloat16, torch.float16]


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(6, 16),
        snn.Synaptic(alpha=0.6, beta=0.8, learn_beta=True, init_hidden=True),
        nn.Linear(16, 4),
        snn.RLeaky(beta=0.8, linear_features=4, init_hidden=True, output=True),
    )


def loss_of(outs: Any) -> Tensor:
    return outs[0].float().mean() + (outs[1] ** 2).mean()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Where tests run side by side, two threads wait for each other longer than they work here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@in_both_ways
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_under_autocast_states_and_gradients_are_float32_and_close(run, dtype):
    x = torch.rand(6, 5, 6, generator=torch.Generator().manual_seed(1)) / 4  # too small to fire: no spike can flip
    net, wanted = network(), network()
    with torch.autocast("cpu", dtype):
        outs = run(net, x)
    assert (outs[0].dtype, outs[1].dtype) == (dtype, torch.float32)
    loss_of(outs).backward()
    loss_of(run(wanted, x)).backward()
    for (name, p), q in zip(net.named_parameters(), wanted.parameters(), strict=True):
        assert p.grad.dtype is torch.float32, name
        assert_close(p.grad.bfloat16(), q.grad.bfloat16(), name)


def test_a_grad_scaler_takes_the_scale_out_again_and_skips_what_overflows():
    net, wanted = network(), network()
    x = torch.rand(6, 5, 6)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(loss_of(snn.unroll(net, x))).backward()
    loss_of(snn.unroll(wanted, x)).backward()
    scaler.unscale_(optimizer)
    for (name, p), q in zip(net.named_parameters(), wanted.parameters(), strict=True):
        assert_close(p.grad, q.grad, name, exact=True)  # a power of two
    scaler.step(optimizer)
    scaler.update()

    before = [p.detach().clone() for p in net.parameters()]
    optimizer.zero_grad()
    snn.utils.detach(net)
    with torch.autocast("cpu", torch.float16):
        outs = snn.unroll(net, x)
    (scaler.scale(loss_of(outs)) * 1e30).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(map(torch.equal, before, net.parameters()))
    assert scaler.get_scale() == 2.0**9


def test_bfloat16_learns_the_digits_as_well_as_float32(monkeypatch, one_thread):
    """The comparison of docs/scaling.md, shortened: 3 seeds of 4 epochs."""
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(EXAMPLES)
    example = runpy.run_path(str(EXAMPLES / "plain_loop.py"))

    def accuracy(seed: int, mixed: bool) -> float:
        snn.utils.seed(seed)
        batches, held_out = example["data"](seed)
        net = example["network"]()
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(4):
            for images, labels in batches:
                with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                    counts = example["counts"](net, images)
                optimizer.zero_grad()
                nn.functional.cross_entropy(counts.float(), labels).backward()
                optimizer.step()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            return example["accuracy"](net, held_out)

    single, half = (torch.tensor([accuracy(seed, mixed) for seed in range(3)]) for mixed in (False, True))
    noise = (single.var() + half.var()).div(3).sqrt().clamp(min=0.005)
    assert half.mean() > 0.94
    assert (half.mean() - single.mean()).abs() < 3 * noise
