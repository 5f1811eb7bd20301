"""The gradient of the input is written over the trace of the membrane in the last use of that, if nobody sees it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeloom as snn
from spikeloom.engine.cpu import launch
from spikeloom.engine.jit import buffer_pool

from ...neurons.zoo import made, sequence

SHAPE = (32, 160)
STEPS = 64  # 1.25 MiB for each sequence
NEURONS = ["Leaky", "Synaptic", "Alpha", "RLeaky", "ResonateFire", "CuBaLIF"]


def run(name: str, after: Callable[[Tensor], None], shape: tuple[int, ...] = SHAPE, **options: Any) -> list[Tensor]:
    """Outputs of a neuron, then the gradients of its input and parameters, of a backward made by `after`."""
    lif = made(name, learn=True, init_hidden=True, **options)
    x = sequence(name, STEPS, shape=shape).requires_grad_()
    outputs = snn.unroll(lif, x)
    outs = outputs if isinstance(outputs, tuple) else (outputs,)
    values = [out.detach().clone() for out in outs]
    after(sum((out * torch.linspace(0, 1, STEPS).view(-1, 1, 1)).sum() for out in outs))
    assert all(torch.equal(out, value) for out, value in zip(outs, values, strict=True))
    assert x.grad is not None
    return [*outs, x.grad, *(p.grad for p in lif.parameters() if p.grad is not None)]


def backward(loss: Tensor) -> None:
    loss.backward()


def backward_twice(loss: Tensor) -> None:
    """The first may not spoil the second, which may write over the trace."""
    loss.backward(retain_graph=True)
    (loss * 0).backward()


@pytest.fixture
def made_for_gradients(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much memory each backward takes from the arena, in sequences of one step."""
    taken: list[int] = []
    empty, adjoint = buffer_pool.empty, launch.backward

    def watched(*args: Any, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(buffer_pool, "empty", lambda shape, like: taken.append(shape[0]) or empty(shape, like))
            return adjoint(*args, **options)

    monkeypatch.setattr(launch, "backward", watched)
    return taken


@pytest.mark.parametrize("name", NEURONS)
def test_it_is_the_gradient_that_fresh_memory_gets(name: str, made_for_gradients: list[int]):
    """Compared with a backward that keeps the graph, which may not write over it."""
    got = run(name, backward)
    assert made_for_gradients == []
    wanted = run(name, backward_twice)
    assert made_for_gradients == [STEPS]
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other)
    assert got[-1].isfinite().all()


def seen_by_hooks(run_it: Callable[[], Any]) -> list[tuple[Tensor, Tensor]]:
    """What autograd saves, and copies of it."""
    seen: list[tuple[Tensor, Tensor]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append((t, t.clone())) or t, lambda t: t):
        run_it()
    return seen


OTHERS = {
    "outputs": {"output": True},
    "rows off the beat of 64 bytes": {"shape": (31, 161)},
    "small": {"shape": (2, 16)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_seen_or_would_not_gain_gets_memory_of_its_own(name: str, made_for_gradients: list[int]):
    run("Leaky", backward, **OTHERS[name])
    assert made_for_gradients == [STEPS]


def test_what_hooks_of_the_user_have_seen_stays_as_it_was(made_for_gradients: list[int]):
    seen = seen_by_hooks(lambda: run("Leaky", backward))
    assert made_for_gradients == [STEPS]
    assert max(t.numel() for t, _ in seen) == STEPS * SHAPE[0] * SHAPE[1]
    assert all(torch.equal(t, copy) for t, copy in seen)


def test_a_tap_keeps_what_it_heard(made_for_gradients: list[int]):
    lif, x = made("Leaky", init_hidden=True), sequence("Leaky", STEPS, shape=SHAPE).requires_grad_()
    with snn.tap(lif) as record:
        spk = snn.unroll(lif, x)
    mem = record[""].mem
    kept = mem.clone()
    spk.sum().backward()
    assert made_for_gradients == [STEPS]
    assert torch.equal(mem, kept)


def test_a_backward_that_failed_is_not_taken_up_again():
    """What it has written over is gone; without a word the second would compute with it."""
    x = sequence("Leaky", STEPS, shape=SHAPE).requires_grad_()
    loss = snn.unroll(made("Leaky", init_hidden=True), x).sum()
    node = loss.grad_fn
    while node.name() != "_ScanBackward":
        node = node.next_functions[0][0]
    handle = node.register_hook(lambda *grads: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loss.backward()
    handle.remove()
    with pytest.raises(RuntimeError, match="Run the forward again"):
        loss.backward()
