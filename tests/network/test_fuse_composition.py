"""`fuse` with what users put around a network, or into its loop."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import spikeloom as snn

T, B, IN, OUT = 6, 4, 8, 5
LABELS = torch.arange(B) % OUT


class Net(nn.Module):
    """A loop with the loss of each step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.lif1 = nn.Linear(IN, IN), snn.Leaky(beta=0.9, threshold=0.5)
        self.fc2, self.lif2 = nn.Linear(IN, OUT), snn.Leaky(beta=0.8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2, loss, out = self.lif1.init_leaky(), self.lif2.init_leaky(), torch.zeros(1), []
        for x_t in x:
            spk, mem1 = self.lif1(self.fc1(x_t), mem1)
            _, mem2 = self.lif2(self.fc2(spk), mem2)
            loss = loss + functional.cross_entropy(mem2, LABELS)
            out.append(mem2)
        return torch.stack(out), loss


def given() -> Tensor:
    """The input."""
    return 2 * torch.rand(T, B, IN, generator=torch.Generator().manual_seed(1))


def results(net: Any, run: Callable[[Tensor], Any]) -> list[Tensor]:
    """The outputs and the gradients."""
    out, loss = run(given())
    (loss + out.square().mean()).sum().backward()
    return [out.detach(), loss.detach(), *[p.grad for p in net.parameters()]]


def compared(around: Callable[[Any], Callable[[Tensor], Any]], **options: Any) -> None:
    """What is put around a network gives the same for the fused one, also a second time."""
    plain, fused = Net(), snn.fuse(Net(), **options)
    runs = [(net, around(net)) for net in (plain, fused)]
    for _ in range(2):
        wanted, got = (results(net, run) for net, run in runs)
        for one, other in zip(got, wanted, strict=True):
            assert one.dtype is other.dtype
            torch.testing.assert_close(one, other)


@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_a_compiled_function_around_the_call() -> None:
    def twice(net: Any) -> Any:
        @torch.compile(backend="eager")
        def run(x: Tensor) -> Any:
            out, loss = net(x[:2] * 1.5)
            return out * 2, loss

        return run

    compared(twice)


@pytest.mark.filterwarnings("error")
def test_a_compiled_layer_within_the_loop_is_recorded_in_eager_mode() -> None:
    compiled = []

    def backend(graph: Any, _: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    def around(net: Any) -> Any:
        net.fc1 = torch.compile(net.fc1, backend=backend)
        return net

    compared(around)
    compared(around, checkpoint=2)
    compiled.clear()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    fused = snn.fuse(around(Net()))
    fused(given())
    assert fused._fused_engine.fused >= 4 * (T - 1)
    assert not compiled
    assert not torch._dynamo.utils.counters["frames"]
    fused.fc1(given())
    assert len(compiled) == 1  # outside of the loop, it is compiled again


def test_autocast_around_the_call_and_within() -> None:
    def around(net: Any) -> Any:
        def run(x: Tensor) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return net(x)

        return run

    def within(net: Any) -> Any:
        layer = net.fc1.forward

        def forward(x: Tensor) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return layer(x).float()

        net.fc1.forward = forward
        return net

    for where in (around, within):
        for checkpoint in (None, 2):
            compared(where, exact_products=True, checkpoint=checkpoint)


def test_a_whole_training_step_with_its_backward() -> None:
    def step(net: Any, optimizer: Any, x: Tensor) -> Any:
        optimizer.zero_grad()
        out, loss = net(x)
        total = (loss + out.square().mean()).sum()
        total.backward()
        optimizer.step()
        return total.detach()

    found = []
    for run in (step, snn.fuse(step), snn.fuse(step, checkpoint=2)):
        net = Net()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        found.append([run(net, optimizer, given()) for _ in range(3)] + list(net.parameters()))
    for got in found[1:]:
        for one, other in zip(got, found[0], strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("checkpoint", [None, 2])
def test_parameters_given_for_one_call(checkpoint: Any) -> None:
    plain, fused = Net(), snn.fuse(Net(), checkpoint=checkpoint)
    given_ones = {name: (1.5 * p.detach()).requires_grad_() for name, p in plain.named_parameters()}
    found = []
    for net in (plain, fused):
        out, loss = torch.func.functional_call(net, given_ones, given())
        found.append([out, loss, *torch.autograd.grad((loss + out.square().mean()).sum(), list(given_ones.values()))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_transforms_of_torch_func_around_the_call() -> None:
    def gradients(net: Any) -> Any:
        def loss(parameters: Any) -> Any:
            out, loss = torch.func.functional_call(net, parameters, given())
            return (loss + out.square().mean()).sum()

        return torch.func.grad(loss)({name: p.detach() for name, p in net.named_parameters()})

    wanted, got = gradients(Net()), gradients(snn.fuse(Net()))
    torch.testing.assert_close(got, wanted)
    assert snn.explain(snn.fuse(Net()), given()).rows


def test_accelerated_layers_and_taps_in_segments() -> None:
    plain = Net()
    fused = snn.fuse(snn.accelerate(copy.deepcopy(plain)), checkpoint=2)
    records = []
    for net in (plain, fused):
        with snn.tap(net) as record:
            net(given())[1].backward()
        records.append([record["lif1"].spk, record["lif2"].mem, *[p.grad for p in net.parameters()]])
    for one, other in zip(*records, strict=True):
        torch.testing.assert_close(one, other)
