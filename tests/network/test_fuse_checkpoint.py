"""`fuse(f, checkpoint=K)`: the numbers of the plain loop, and a backward that recomputes segments of K steps."""

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.network._fuse import run as running

from .loops import IN, B, Parts, T, states_by_hand
from .test_fuse import LOOPS, assert_equal_results, result_of

NAMED = {loop.__name__: loop for loop in LOOPS}
CHOSEN = (
    *("states_by_hand", "static_input", "batch_first", "encoder_decoder", "nested", "several_neurons", "lstm"),
    *("preallocated", "running_sums", "truncated", "norm_and_dropout", "feedback", "neuron_by_hand", "delays"),
    *("values_in_the_loop", "stored_elsewhere", "without_gradients", "in_place"),
)


def parts_and_input() -> tuple[Parts, Tensor]:
    torch.manual_seed(1)
    return Parts(), 2 * torch.randn(T, B, IN)


def test_loops_have_the_results_of_the_plain_one() -> None:
    for name in CHOSEN:
        plain, x = parts_and_input()
        twin = copy.deepcopy(plain)
        results = []
        for run, parts in ((NAMED[name], plain), (snn.fuse(NAMED[name], checkpoint=3), twin)):
            torch.manual_seed(2)
            results.append(result_of(run, parts, x.clone().requires_grad_()))
        assert_equal_results(results[1], results[0], name)


def columns_of_scans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Weak references to the spikes of each scan that runs from now on."""
    seen: list[Any] = []

    class Watched(running.Scan):
        def __init__(self, *args: Any):
            super().__init__(*args)
            seen.append(weakref.ref(self.columns[0]))

    monkeypatch.setattr(running, "Scan", Watched)
    return seen


def test_spikes_between_layers_are_freed_and_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, x = parts_and_input()
    scans = columns_of_scans(monkeypatch)
    spk, _ = snn.fuse(states_by_hand, checkpoint=3)(parts, x)
    assert len(scans) == 2 * 2  # the last step is a segment by itself
    assert [spikes() for spikes in scans] == [None] * 4
    spk.sum().backward()
    assert len(scans) == 2 * 4


def test_the_backward_uses_the_options_and_the_backend_of_the_forward() -> None:
    def step(parts: Parts, x: Tensor, fused: bool) -> Tensor:
        run: Callable[..., Any] = snn.fuse(states_by_hand, checkpoint=2) if fused else states_by_hand
        with snn.backend("loop"):
            loss = run(parts, x)[1].square().sum()
        parts.lif1.threshold = torch.tensor(9.0)
        parts.lif1.reset_mechanism = "zero"
        with snn.backend("numba"):
            loss.backward()
        return parts.fc1.weight.grad

    parts, x = parts_and_input()
    wanted = step(copy.deepcopy(parts), x, False)
    torch.testing.assert_close(step(parts, x, True), wanted)


def test_a_parameter_changed_before_the_backward_is_an_error() -> None:
    for name in ("fc1.weight", "learned.beta"):
        parts, x = parts_and_input()
        spk, _ = snn.fuse(NAMED["several_neurons"], checkpoint=3)(parts, x)
        with torch.no_grad():
            parts.get_parameter(name).mul_(0.5)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            spk.sum().backward()


def test_two_backwards_and_second_derivatives() -> None:
    def loop(parts: Parts, x: Tensor) -> Tensor:
        mem = parts.lif1.init_leaky()
        for x_t in x:
            mem = parts.lif1(parts.fc1(x_t).square(), mem)[1]
        return mem

    parts, x = parts_and_input()
    x.requires_grad_()
    results = []
    for run in (loop, snn.fuse(loop, checkpoint=2)):
        loss = run(parts, x).sum()
        first = torch.autograd.grad(loss, x, retain_graph=True)[0]
        second = torch.autograd.grad(torch.autograd.grad(loss, x, create_graph=True)[0].sum(), x)[0]
        results.append(torch.stack([first, second]))
    torch.testing.assert_close(results[1], results[0])


def test_a_network_is_freed_without_a_backward() -> None:
    def dropped() -> Any:
        parts, x = parts_and_input()
        snn.fuse(NAMED["hidden_states"], checkpoint=2)(parts, x)
        return weakref.ref(parts.hid1)

    held = [dropped() for _ in range(3)]
    gc.collect()
    assert [neuron() for neuron in held] == [None] * 3


def test_arguments_and_copies() -> None:
    for wrong, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("4", TypeError)):
        with pytest.raises(error, match="checkpoint is"):
            snn.fuse(states_by_hand, checkpoint=wrong)  # type: ignore[arg-type]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lif = snn.Leaky(0.9)

        @snn.fuse(checkpoint=2)
        def forward(self, x: Tensor) -> Tensor:
            mem = self.lif.init_leaky()
            for x_t in x:
                mem = self.lif(x_t, mem)[1]
            return mem

    x = torch.rand(T, B, IN)
    with torch.no_grad():
        assert torch.equal(snn.fuse(Net(), checkpoint=4)(x), Net()(x))
    twin: Any = copy.deepcopy(snn.fuse(Net(), checkpoint=4))
    assert twin._fused_engine.checkpoint == 4
