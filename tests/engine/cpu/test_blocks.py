"""How a scan is cut into blocks, and whether it writes past the caches, changes no bit."""

from types import SimpleNamespace

import pytest
import torch

import spikeloom as snn
from spikeloom.engine.cpu import launch

from ...oracle import assert_close

NEURONS = {
    "spikes alone": lambda: snn.Leaky(beta=0.9, init_hidden=True),
    "and a trace": lambda: snn.Leaky(beta=0.9, init_hidden=True, output=True),
    "and two": lambda: snn.Synaptic(alpha=0.8, beta=0.9, init_hidden=True, output=True),
}


@pytest.fixture(autouse=True)
def shared(tuned) -> None:
    """Threads for the least of work."""
    tuned(serial_below=0)


def run(neuron: str, x: torch.Tensor, steps: int | None) -> list[torch.Tensor]:
    """The outputs and the gradient of the input."""
    x = x.clone().requires_grad_()
    outs = snn.unroll(NEURONS[neuron](), x, steps=steps)
    outs = outs if isinstance(outs, tuple) else (outs,)
    sum(out.sum() for out in outs).backward()
    return [*outs, x.grad]


def assert_like_the_loop(got: list[torch.Tensor], neuron: str, x: torch.Tensor, steps: int | None) -> None:
    with snn.backend("loop"):
        wanted = run(neuron, x, steps)
    for i, pair in enumerate(zip(got, wanted, strict=True)):
        assert_close(*pair, f"result {i}", exact=i == 0)


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 32), (3, 67), (1, 5), (3, 1500)], ids=str)
def test_what_is_written_past_the_caches_is_the_same(neuron, dtype, shape, tuned):
    """Rows that begin with a line of the cache, rows that do not, none that fills one, and more than a block."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    plain = run(neuron, x, 9)
    tuned(stream_stores_from=0)
    streamed = run(neuron, x, 9)
    assert all(map(torch.equal, streamed, plain))
    assert_like_the_loop(streamed, neuron, x, 9)


@pytest.mark.parametrize("block", [16, 48, 1 << 20])
def test_blocks_of_any_length_give_the_same(block, monkeypatch):
    x = torch.rand(9, 3, 67, generator=torch.Generator().manual_seed(1))
    whole = run("and two", x, None)
    monkeypatch.setattr(launch, "block_for", lambda sequence: block)
    in_blocks = run("and two", x, None)
    assert all(map(torch.equal, in_blocks, whole))
    assert_like_the_loop(in_blocks, "and two", x, None)


@pytest.mark.parametrize(("steps", "static", "streams"), [(9, True, True), (8, True, False), (9, False, False)])
def test_large_sequences_of_a_static_input_are_written_so(steps, static, streams, monkeypatch, tuned):
    """That of 9 steps is as large as the limit."""
    seen, kernel = [], launch.kernel

    def noted(*which):
        run = kernel(*which).run
        return SimpleNamespace(run=lambda **given: seen.append(given) or run(**given))

    monkeypatch.setattr(launch, "kernel", noted)
    tuned(stream_stores_from=9 * 64 * 4)
    snn.unroll(NEURONS["spikes alone"](), torch.rand((64,) if static else (steps, 64)), steps=steps if static else None)
    assert [given["strips"] is not None for given in seen] == [streams]
