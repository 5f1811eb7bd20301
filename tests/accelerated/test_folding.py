"""A BatchNorm in evaluation behind an accelerated Linear or convolution runs as a part of it, to the same results."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.accelerated import SpikeSequential

from ..oracle import assert_close
from .conftest import routes
from .test_accelerate import spikes


@pytest.fixture(autouse=True)
def any_norm(every_size: None, tuned) -> None:
    """Norms of small layers become parts of them."""
    tuned(fold_least_values=0, fold_least_share=0)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every norm that ran by itself."""
    rows, norm = [], nn.functional.batch_norm
    monkeypatch.setattr(
        nn.functional, "batch_norm", lambda x, *args, **how: rows.append(len(x)) or norm(x, *args, **how)
    )
    return rows


def network(kind: str, biased: bool = True, shifted: bool = True, **how: Any) -> nn.Sequential:
    """A product and a norm that has seen something."""
    net = nn.Sequential(*(
        [nn.Linear(70, 33, biased), nn.BatchNorm1d(33, **how)]
        if kind == "Linear"
        else [nn.Conv2d(4, 20, 3, bias=biased), nn.BatchNorm2d(20, **how)]
    ))  # fmt: skip
    if not shifted:  # the constructor of some releases has no such argument
        net[1].register_parameter("bias", None)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for t in (*net[1].parameters(), net[1].running_mean, net[1].running_var):
            if t is not None:
                t.copy_(torch.rand(t.shape, generator=draw) + 0.5)
    return net.eval()


def images(kind: str, density: float = 0.1) -> Tensor:
    return spikes(*((300, 70) if kind == "Linear" else (6, 4, 9, 8)), density=density)


def run(net: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, then the gradients of the input and of all parameters."""
    x = x.detach().requires_grad_()
    out = net(x)
    pull = torch.rand(out.shape, generator=torch.Generator().manual_seed(4)).to(out)
    return [out, *torch.autograd.grad(out, [x, *net.parameters()], pull)]


def compare(net: nn.Sequential, x: Tensor) -> None:
    """The accelerated network against a plain copy."""
    got, wanted = run(net, x), run(snn.accelerate(copy.deepcopy(net), False), x)
    for ours, theirs in zip(got, wanted, strict=True):
        assert_close(ours, theirs, "folded")
    assert got[0].stride() == wanted[0].stride()


@pytest.mark.parametrize("kind", ["Linear", "Conv2d"])
@pytest.mark.parametrize("how", [{}, {"affine": False}, {"shifted": False}, {"eps": 0.1}])
@pytest.mark.parametrize(("biased", "density", "dtype"), [
    (True, 0.1, torch.float32), (False, 0.1, torch.float64), (True, 0.9, torch.float64), (False, 0.9, torch.float32),
])  # fmt: skip
def test_results_and_gradients_are_those_of_both_layers(
    kind: str, how: dict[str, Any], biased: bool, density: float, dtype: torch.dtype, alone: list[int]
) -> None:
    net, x = snn.accelerate(network(kind, biased, **how).to(dtype)), images(kind, density).to(dtype)
    out = net(x)
    assert (routes(net, x), alone) == (["sparse" if density < 0.5 else "dense", "folded"], [])
    compare(net, x)
    with torch.no_grad():
        assert torch.equal(net(x), out)


def test_channels_stay_last(alone: list[int]) -> None:
    for density in (0.1, 0.9):
        x = images("Conv2d", density).contiguous(memory_format=torch.channels_last)
        compare(snn.accelerate(network("Conv2d")).to(memory_format=torch.channels_last), x)
        compare(snn.accelerate(network("Conv2d")), x)
    assert len(alone) == 4  # those of the plain networks


def learned(net: nn.Sequential, x: Tensor) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    net(x).square().sum().backward()
    optimizer.step()


CHANGES: dict[str, Callable[[nn.Sequential, Tensor], Any]] = {
    "statistics are gathered": lambda net, x: (net.train()(x + 1), net.eval()),
    "a checkpoint is loaded": lambda net, x: net.load_state_dict({k: v * 2 for k, v in net.state_dict().items()}),
    "the optimizer takes a step": learned,
    "the norm is another": lambda net, x: net.__setitem__(1, nn.BatchNorm2d(20).eval()),
    "the dtype is another": lambda net, x: net.double(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_between_calls_count(change: str, alone: list[int]) -> None:
    net, x = snn.accelerate(network("Conv2d")), images("Conv2d")
    before = net(x)
    CHANGES[change](net, x)
    x = x.to(net[0].weight)
    alone.clear()
    after = net(x)
    assert not alone
    assert (after - before).abs().max() > 0.01 or change == "the dtype is another"
    compare(net, x)


class Own(nn.BatchNorm2d):
    """A norm of one's own."""


APART: dict[str, Callable[[nn.Sequential], Any]] = {
    "in training": lambda net: net[1].train(),
    "without running statistics": lambda net: net.__setitem__(1, nn.BatchNorm2d(20, track_running_stats=False).eval()),
    "of a class of one's own": lambda net: net.__setitem__(1, Own(20).eval()),
    "behind a layer with a hook": lambda net: net[0].register_forward_hook(lambda *_: None),
    "with a hook": lambda net: net[1].register_forward_pre_hook(lambda *_: None),
    "with a hook of the backward": lambda net: net[1].register_full_backward_hook(lambda *_: None),
    "with another forward": lambda net: vars(net[1]).update(forward=net[1].forward),
    "compiled by itself": lambda net: vars(net[1]).update(_compiled_call_impl=net[1]._call_impl),
    "behind a strict layer": lambda net: snn.accelerate(net, strict=True),
}


@pytest.mark.parametrize("why", APART)
def test_a_norm_runs_by_itself(why: str, alone: list[int]) -> None:
    net, x = snn.accelerate(network("Conv2d")), images("Conv2d")
    APART[why](net)
    assert (routes(net, x)[1], alone) == ("torch", [6])


def test_so_it_does_where_kernels_cannot(alone: list[int]) -> None:
    net, x = snn.accelerate(network("Conv2d")), images("Conv2d")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net(x)
    with snn.backend("loop"):
        net(x)
    for name in ("fold_least_values", "fold_least_share"):
        with snn.tuning(**{name: 1 << 40}):
            net(x)
    assert alone == [6] * 4
    net(x)
    assert alone == [6] * 4


def test_what_does_not_go_together_is_torchs_matter(alone: list[int]) -> None:
    rows = snn.accelerate(nn.Sequential(nn.Linear(70, 5), nn.BatchNorm1d(5)).eval())
    rows(spikes(4, 5, 70, density=0.1))  # whose norm is over dimension 1
    assert alone == [4]
    net, x = snn.accelerate(network("Conv2d")), images("Conv2d")
    net[1].double()
    with pytest.raises(RuntimeError, match="mixed dtype"):
        net(x)
    net[1] = nn.BatchNorm2d(1).eval()
    with pytest.raises(RuntimeError, match="running_mean should contain 20 elements"):
        net(x)


def test_explain_tells_and_who_listens_to_all_modules_hears_all(alone: list[int]) -> None:
    net = snn.accelerate(network("Conv2d").append(snn.Leaky(0.5, init_hidden=True)))
    x = spikes(5, 6, 4, 9, 8, density=0.1)
    assert [row.backend for row in snn.explain(net, x).rows[:2]] == ["sparse", "folded"]
    assert alone == [30]
    alone.clear()
    snn.unroll(net, x)
    assert not alone
    assert snn.explain(snn.accelerate(net, False), x).rows[1].backend == "torch"


@pytest.mark.parametrize("wrapped", [False, True])  # whether unroll sees at once what is static
def test_a_static_input_passes_once(wrapped: bool, alone: list[int]) -> None:
    class Wrapped(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x)
            return out

    net = network("Conv2d").append(snn.Leaky(0.5, init_hidden=True))
    net = snn.accelerate(Wrapped(net) if wrapped else net)
    x = images("Conv2d")
    rows = snn.explain(net, x, steps=7).rows
    assert [(row.backend, row.static) for row in rows] == [("sparse", True), ("folded", True), ("numba", True)]
    alone.clear()
    spk = snn.unroll(net, x, steps=7)
    assert not alone
    snn.utils.reset(net)
    assert torch.equal(spk, snn.unroll(net, x.expand(7, *x.shape)))


def test_a_residual_around_a_neuron_is_seen() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.lif = network("Conv2d"), snn.Leaky(0.5, init_hidden=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.block(x)
            spk: Tensor = self.lif(x) + x
            return spk

    net, x = snn.accelerate(Residual().eval()), images("Conv2d")
    snn.unroll(net, x, steps=7)
    assert "joins a tensor that is the same at every step" in snn.explain(net, x, steps=7).repeated


@pytest.mark.compile
def test_it_compiles_as_one_graph() -> None:
    net, x = snn.accelerate(network("Conv2d")), images("Conv2d")
    assert_close(torch.compile(net, fullgraph=True, backend="eager")(x), net(x), "compiled")


def test_it_stays_a_sequential_and_is_taken_back() -> None:
    net = network("Conv2d")
    names = list(net.state_dict())
    for twin in (snn.accelerate(net), net[:2], copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert (type(twin), list(twin.state_dict())) == (SpikeSequential, names)
    net(images("Conv2d"))
    assert type(snn.accelerate(net, False)) is nn.Sequential
