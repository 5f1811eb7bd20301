"""Sums, means, losses and maxima per step have the values and gradients of the plain loop."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import spikeloom as snn

T, B, N = 9, 4, 8
LABELS = torch.arange(B) % N
JOINED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda spk, mem: spk.mean(),
    "sum": lambda spk, mem: mem.sum(1),
}
BY_STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda spk, mem: functional.cross_entropy(mem, LABELS, label_smoothing=0.1),
    "nll_loss": lambda spk, mem: functional.nll_loss(mem.log_softmax(1), LABELS),
    "mse_loss": lambda spk, mem: functional.mse_loss(spk, torch.full_like(spk, 0.2)),
    "binary_cross_entropy_with_logits": lambda spk, mem: functional.binary_cross_entropy_with_logits(mem, mem),
    "std": lambda spk, mem: mem.std(),
    "logsumexp": lambda spk, mem: mem.logsumexp(1),
}


class Layer(nn.Module):
    """A Linear and a Leaky."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif = nn.Linear(6, N), snn.Leaky(beta=0.9, threshold=0.5)

    def steps(self, x: Tensor) -> Any:
        """The spikes and the membrane of each step."""
        mem = self.lif.init_leaky()
        for x_t in x:
            spk, mem = self.lif(self.fc(x_t), mem)
            yield spk, mem


def results(run: Any, x: Tensor) -> list[Tensor]:
    """The outputs of a loop, and the gradients of the weights and of their square."""
    layer = Layer()
    out = run(layer, x)
    loss = (out * torch.arange(1.0, 1 + out.numel()).view_as(out)).square().sum()
    grad = torch.autograd.grad(loss, layer.fc.weight, create_graph=True)[0]
    return [out.detach(), grad.detach(), torch.autograd.grad(grad.square().sum(), layer.fc.bias)[0]]


def assert_close(one: Tensor, other: Tensor, of: str) -> None:
    """Equal but for the rounding of sums, which second derivatives amplify."""
    torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-5, equal_nan=True, msg=lambda why: f"{of}: {why}")


def compared(loop: Any, operation: str, runs: str) -> None:
    """A loop has the bits and the gradients of the plain one, and an operation runs as said."""
    x = torch.randn(T, B, 6, generator=torch.Generator().manual_seed(1))
    with snn.backend("loop"):  # which has second derivatives of the neuron
        (wanted, *grads), (got, *fused_grads) = results(loop, x), results(snn.fuse(loop, exact_products=True), x)
    assert torch.equal(got.nan_to_num(-1.0), wanted.nan_to_num(-1.0)), operation
    for one, other in zip(fused_grads, grads, strict=True):
        assert_close(one, other, operation)
    rows = [row for row in snn.explain(snn.fuse(loop), Layer(), x).rows if row.operation == operation]
    assert [(row.runs, row.calls) for row in rows] == [(runs, T)], operation


def test_what_is_computed_from_each_step() -> None:
    for runs, functions in (("over all steps", JOINED), ("step by step", BY_STEPS)):
        for name, function in functions.items():

            def loop(layer: Any, x: Tensor, function: Any = function) -> Tensor:
                total = torch.zeros(1)
                for spk, mem in layer.steps(x):
                    total = total + function(spk, mem)
                return total

            compared(loop, name, runs)


def test_running_maxima_share_the_gradient_of_equal_values() -> None:
    for function in (torch.maximum, torch.max):
        for which in (0, 1):

            def loop(layer: Any, x: Tensor, function: Any = function, which: int = which) -> Tensor:
                most = torch.zeros(B, N)
                for values in layer.steps(x):
                    most = function(most, values[which])
                return most

            compared(loop, function.__name__, "step by step")


def test_the_maximum_of_a_step_shares_the_gradient_of_equal_values() -> None:
    def loop(layer: Any, x: Tensor) -> Tensor:
        return torch.stack([spk.max() + mem.max(1)[0].sum() for spk, mem in layer.steps(x)])

    x = torch.randn(T, B, 6, generator=torch.Generator().manual_seed(1))
    for one, other in zip(results(snn.fuse(loop), x), results(loop, x), strict=True):
        assert_close(one, other, "max")


def test_a_returned_step_has_all_of_its_gradient() -> None:
    def loop(layer: Any, x: Tensor) -> Any:
        mems = [mem for _, mem in layer.steps(x)]
        return torch.stack(mems), mems[3]

    def of_one_input(layer: Any, x: Tensor) -> Any:
        mems, curs, mem = [], [], layer.lif.init_leaky()
        for _ in range(T):
            curs.append(layer.fc(x[0]))
            _, mem = layer.lif(curs[-1], mem)
            mems.append(mem)
        return torch.stack(mems), curs[0], curs[-1]

    for function in (loop, of_one_input):
        found = []
        for run in (function, snn.fuse(function), snn.fuse(function, checkpoint=4)):
            mems, *steps = run(Layer(), torch.randn(T, B, 6, generator=torch.Generator().manual_seed(1)))
            found.append(torch.autograd.grad(mems.sum(), steps))
        torch.testing.assert_close(found[1], found[0])
        torch.testing.assert_close(found[2], found[0])


def test_equal_calls_of_which_one_is_returned() -> None:
    def loop(layer: Any, x: Tensor) -> Any:
        found = [layer.fc(x[0]).square() for _ in range(T)]
        return found[0], layer.fc(x[0]), sum(found[1:])

    x = torch.ones(T, B, 6)
    for one, other in zip(snn.fuse(loop)(Layer(), x), loop(Layer(), x), strict=True):
        torch.testing.assert_close(one, other)
