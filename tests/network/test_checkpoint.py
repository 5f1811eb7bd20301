"""unroll with checkpoint=K: in all a user can see it is unrolling chunk after chunk, and most often one unroll."""

import copy
import gc
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint

import spikeloom as snn
from spikeloom import functional as sf
from spikeloom.layers import SEES_TIME

from ..neurons.zoo import made, sequence
from .networks import Branches, Residual, exact, leaky, quarters

STEPS, BATCH, WIDTH = 11, 3, 6


class Chance(nn.Module):
    """Draws from three generators, and counts in a buffer that its output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.fc, self.lif = nn.Linear(WIDTH, WIDTH), leaky(output=True)

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        noise = torch.rand_like(x) + random.random() + torch.from_numpy(np.random.rand(WIDTH)).to(x)
        return self.lif(self.fc(x) + noise / 8 + self.calls / 4)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(WIDTH, WIDTH), leaky(output=True)

    def forward(self, x: Tensor, gate: dict[str, Tensor], scale: float = 1.0) -> Any:
        spk, mem = self.lif(self.fc(x) * gate["gate"] * scale)
        return {"spk": spk, "mem": [mem, None], "name": "mem"}


class CalledWithTwo(nn.Module):
    """Two inputs made of one, so that one table fits all."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = TwoInputs()

    def forward(self, x: Tensor) -> Any:
        return self.inner(x, {"gate": x.detach().abs()}, scale=0.5)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a neuron without init_hidden": lambda: snn.Leaky(beta=0.5, learn_beta=True),
    "two layers": lambda: nn.Sequential(
        nn.Linear(WIDTH, 5), leaky(learn_beta=True), nn.Linear(5, 4), leaky(output=True)
    ),
    "two states": lambda: nn.Sequential(
        nn.Linear(WIDTH, 5), snn.Synaptic(alpha=0.5, beta=0.75, init_hidden=True, learn_alpha=True, output=True)
    ),
    "recurrent": lambda: nn.Sequential(
        nn.Linear(WIDTH, 5), snn.RLeaky(beta=0.5, linear_features=5, init_hidden=True, output=True)
    ),
    "a step at a time": lambda: nn.Sequential(
        nn.Linear(WIDTH, 5), leaky(state_quant=lambda mem: (mem * 8).round() / 8)
    ),
    "residual": lambda: Residual(WIDTH),
    "branches": lambda: Branches(WIDTH),
    "two inputs": CalledWithTwo,
    "delays": lambda: nn.Sequential(snn.SynapticDelay(WIDTH, max_delay=4), nn.Linear(WIDTH, 4), leaky()),
    "norms per step": lambda: nn.Sequential(snn.BatchNormTT1d(WIDTH, 40), leaky(output=True)),
    "norm": lambda: nn.Sequential(nn.Linear(WIDTH, 5), nn.BatchNorm1d(5), leaky(output=True)),
    "dropout": lambda: nn.Sequential(nn.Linear(WIDTH, 5), nn.Dropout(0.3), leaky(), nn.Dropout(0.3), nn.Linear(5, 4)),
    "chance": Chance,
}


def chunk_by_chunk(net: nn.Module, x: Tensor, length: int, steps: int | None = None) -> Any:
    """What a user would write: unroll after unroll, the graph kept."""
    sizes = [min(length, STEPS - begin) for begin in range(0, STEPS, length)]
    parts = x.split(length) if steps is None else [x] * len(sizes)
    given = [None] * len(sizes) if steps is None else sizes
    outs = [snn.unroll(net, part, steps=size) for part, size in zip(parts, given, strict=True)]
    return tree_map(lambda *each: torch.cat(each) if isinstance(each[0], Tensor) else each[0], *outs)


def states_of(net: nn.Module) -> dict[str, Tensor]:
    return {
        f"{path}.{name}": value
        for path, module in net.named_modules()
        if isinstance(module, SEES_TIME)
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and not name.startswith("_")
    }


def backward(net: nn.Module, outputs: Any, x: Tensor, **options: Any) -> dict[str, Tensor]:
    """Gradients of a weighted sum of all outputs and of the states afterwards."""
    ends = [*tree_leaves(outputs), *states_of(net).values()]
    ends = [t for t in ends if isinstance(t, Tensor) and t.requires_grad]
    total = sum((t * torch.linspace(-1, 2, t.numel()).view(t.shape)).sum() for t in ends)
    assert isinstance(total, Tensor)
    named = {"x": x, **dict(net.named_parameters())}
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True, **options)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), found, strict=True)}


def assert_identical(got: Any, wanted: Any) -> None:
    """The same bits in every tensor, whatever else there is."""
    got, wanted = ([leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)] for tree in (got, wanted))
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("length", [1, 4, STEPS, 50], ids=lambda k: f"K = {k}")
@pytest.mark.parametrize("static", [False, True], ids=("sequence", "static"))
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_unrolling_chunk_after_chunk(name: str, static: bool, length: int):
    """Outputs, states, statistics, random numbers and gradients are the same bits."""
    snn.utils.seed(1)
    net = exact(NETWORKS[name]()).train()
    twin = copy.deepcopy(net)
    steps = STEPS if static else None
    runs = []
    for each, run in (
        (net, lambda n, x: snn.unroll(n, x, steps=steps, checkpoint=length)),
        (twin, lambda n, x: chunk_by_chunk(n, x, length, steps)),
    ):
        x = quarters(*(() if static else (STEPS,)), BATCH, WIDTH).requires_grad_()
        snn.utils.seed(5)
        outputs = run(each, x)
        drawn = (torch.rand(2), torch.tensor([random.random(), np.random.rand()]))
        buffers = {n: b.clone() for n, b in each.named_buffers()}
        gradients = backward(each, outputs, x)
        assert_identical(dict(each.named_buffers()), buffers)
        runs.append((outputs, drawn, buffers, {n: s.detach() for n, s in states_of(each).items()}, gradients))
    for got, wanted in zip(*runs, strict=True):
        assert_identical(got, wanted)


def two_layers() -> tuple[nn.Module, Tensor]:
    return exact(NETWORKS["two layers"]()), quarters(STEPS, BATCH, WIDTH).requires_grad_()


def gradients_after(between: Callable[[nn.Module], Any], checkpoint: int | None = 4) -> tuple[Tensor, ...]:
    """Of a run after which something happens, before its backward."""
    net, x = two_layers()
    start = net[1].mem = quarters(BATCH, 5, seed=2).requires_grad_()
    spk, mem = snn.unroll(net, x, checkpoint=checkpoint)
    between(net)
    return torch.autograd.grad((spk * mem).sum(), [x, start, *net.parameters()])


@pytest.mark.parametrize("length", [1, 3, 4, 11])
def test_gradients_are_those_of_one_unroll(length: int):
    torch.testing.assert_close(gradients_after(lambda net: None, length), gradients_after(lambda net: None, None))


BETWEEN: dict[str, Callable[[nn.Module], Any]] = {
    "reset": snn.utils.reset,
    "detach": snn.utils.detach,
    "evaluation": lambda net: net.eval(),
    "another run": lambda net: (snn.utils.reset(net), snn.unroll(net, quarters(5, BATCH + 1, WIDTH))),
    "another threshold": lambda net: setattr(net[1], "threshold", torch.tensor(0.25)),
    "another reset": lambda net: setattr(net[1], "reset_mechanism", "zero"),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_happens_to_the_network_before_the_backward_does_not_matter(name: str):
    assert_identical(gradients_after(BETWEEN[name]), gradients_after(lambda net: None))


def one_layer(kind: str, **options: Any) -> tuple[nn.Module, Tensor]:
    snn.utils.seed(1)
    return nn.Sequential(made(kind, init_hidden=True, **options)), sequence(kind, 8).requires_grad_()


def buffers_of_neurons() -> list[tuple[str, str]]:
    return [
        (kind, name)
        for kind in ("Leaky", "RLeaky", "Lapicque", "SLSTM", "AdLIF")
        for name, buffer in one_layer(kind)[0].named_buffers()
        if buffer.is_floating_point()
    ]


@pytest.mark.parametrize(("kind", "name"), buffers_of_neurons(), ids=str)
@pytest.mark.parametrize("way", ["checkpoint", "recomputing"])
def test_a_buffer_that_is_written_before_the_backward_is_noticed(kind: str, name: str, way: str):
    net, x = one_layer(kind)
    if way == "checkpoint":
        out = snn.unroll(net, x, checkpoint=3)
    else:
        again = snn.utils.recomputing(net)
        out = checkpoint(snn.unroll, net, x, use_reentrant=False, context_fn=again)
    net.get_buffer(name).fill_(0.75)
    with pytest.raises(RuntimeError, match=r"buffer.* was modified in place"):
        backward(net, out, x)


REPLACED: dict[str, Callable[[nn.Module], Any]] = {
    "threshold": lambda net: setattr(net[1], "threshold", torch.tensor(0.25)),
    "a learned threshold": lambda net: setattr(net[1], "threshold", nn.Parameter(torch.tensor(0.25))),
    "beta": lambda net: setattr(net[3], "beta", torch.tensor(0.25)),
    "a learned beta": lambda net: setattr(net[1], "beta", nn.Parameter(torch.tensor(0.25))),
    "a weight": lambda net: setattr(net[0], "weight", nn.Parameter(torch.zeros(5, WIDTH))),
    "reset mechanism": lambda net: setattr(net[3], "reset_mechanism", "zero"),
    "surrogate": lambda net: setattr(net[1], "spike_grad", snn.surrogate.fast_sigmoid()),
    "mode": lambda net: net.eval(),
    "a hook": lambda net: net[0].register_forward_hook(lambda module, args, out: out * 2),
    "a statistic": lambda net: net[4].running_mean.fill_(3.0),
    "output": lambda net: setattr(net[3], "output", True),
}


@pytest.mark.parametrize("name", REPLACED)
def test_what_is_replaced_before_the_backward_is_not_used_by_it(name: str):
    found = []
    for change in (lambda net: None, REPLACED[name]):
        layers = (nn.Linear(WIDTH, 5), leaky(learn_beta=True), nn.Linear(5, 4), leaky(), nn.BatchNorm1d(4), leaky())
        net, x = exact(nn.Sequential(*layers)).train(), quarters(STEPS, BATCH, WIDTH).requires_grad_()
        parameters = [*net.parameters()]
        spk = snn.unroll(net, x, checkpoint=4)
        change(net)
        found.append(torch.autograd.grad(spk.square().sum(), [x, *parameters], allow_unused=True))
    assert_identical(*found)


@pytest.mark.parametrize("change", [snn.accelerate, lambda net: net.__setitem__(1, leaky())], ids=("class", "layer"))
def test_a_layer_that_is_replaced_before_the_backward_is_noticed(change: Callable[[nn.Module], Any]):
    net, x = two_layers()
    spk, _ = snn.unroll(net, x, checkpoint=4)
    change(net)
    with pytest.raises(RuntimeError, match="a layer was replaced"):
        spk.sum().backward()


@pytest.mark.usefixtures("fresh_heap")
def test_the_outputs_hold_a_network_that_nobody_else_does():
    x = quarters(STEPS, BATCH, WIDTH).requires_grad_()
    spk, _ = snn.unroll(two_layers()[0], x, checkpoint=4)
    gc.collect()
    spk.sum().backward()
    assert x.grad is not None


@pytest.mark.usefixtures("fresh_heap")
def test_states_do_not_hold_the_network():
    net, x = two_layers()
    lif = net[1]
    snn.unroll(net, x, checkpoint=4)
    del net
    gc.collect()
    with pytest.raises(RuntimeError, match="the network that was unrolled with checkpoint was deleted"):
        lif.mem.sum().backward()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("kind", ["RLeaky", "RLeaky through Linear", "RSynaptic through Linear", "SLSTM"])
@pytest.mark.parametrize("monitored", [nn.Linear, nn.Module], ids=lambda k: k.__name__)
@pytest.mark.parametrize(
    "monitor", [sf.OutputMonitor, sf.InputMonitor, sf.GradInputMonitor, sf.GradOutputMonitor, None]
)
def test_monitors_and_taps_record_chunks_once_and_change_nothing(monitor: Any, monitored: type[nn.Module], kind: str):
    found = []
    for listens in (False, True):
        net, x = one_layer(kind)
        recorded = (snn.tap(net) if monitor is None else monitor(net, monitored)) if listens else None
        out = snn.unroll(net, x, checkpoint=3)
        count = 0 if recorded is None or monitor is None else len(recorded)
        found.append(backward(net, out, x))
        if monitor in (sf.OutputMonitor, sf.InputMonitor) and listens:
            assert recorded is not None
            assert len(recorded) == count
    torch.testing.assert_close(*found)


def test_the_backward_leaves_the_network_as_it_finds_it():
    net, x = two_layers()
    spk, _ = snn.unroll(net, x, checkpoint=4)
    snn.utils.reset(net)
    net[1].mem = kept = torch.ones(1, 5)
    snn.utils.seed(3)
    before = torch.get_rng_state()
    spk.sum().backward()
    assert net[1].mem is kept
    assert net.training
    assert torch.equal(torch.get_rng_state(), before)


def test_each_chunk_runs_again_on_the_backend_of_the_first_run():
    net, x = two_layers()
    with snn.backend("loop"):
        spk, _ = snn.unroll(net, x, checkpoint=4)
    spk.sum().backward()  # on a kernel it would save other tensors, which torch notices
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_backward_twice():
    net, x = two_layers()
    spk, mem = snn.unroll(net, x, checkpoint=4)
    first = backward(net, (spk, mem), x, retain_graph=True)
    assert_identical(backward(net, (spk, mem), x), first)
    with pytest.raises(RuntimeError, match=r"second time|already freed"):
        spk.sum().backward()


def test_a_later_run_goes_on_with_the_graph():
    """The gradient of the second run reaches the input of the first through the states."""
    found = []
    for length in (None, 4):
        net, x = two_layers()
        snn.unroll(net, x, checkpoint=length)
        _, mem = snn.unroll(net, x.detach(), checkpoint=length)
        mem.sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(*found)
    assert found[0].abs().sum() > 0


def test_without_gradients_nothing_is_run_again():
    net, x = two_layers()
    with torch.no_grad():
        spk, mem = snn.unroll(net, x, checkpoint=4)
    assert not spk.requires_grad
    assert not net[1].mem.requires_grad
    assert_identical((spk, mem), snn.unroll(two_layers()[0], x.detach(), checkpoint=4))


def test_hooks_are_called_once_per_chunk_and_again_in_the_backward():
    net, x = two_layers()
    calls: list[int] = []
    net[0].register_forward_hook(lambda module, args, output: calls.append(len(output)))
    spk, _ = snn.unroll(net, x, checkpoint=4)
    assert calls == [12, 12, 9]
    spk.sum().backward()
    assert calls == [12, 12, 9, 9, 12, 12]


def test_a_tap_records_the_steps_once():
    net, x = two_layers()
    with snn.tap(net) as record:
        spk, _ = snn.unroll(net, x, checkpoint=4)
    with snn.tap(net) as later:  # and nobody hears the backward
        spk.sum().backward()
    other, _ = two_layers()
    with snn.tap(other) as wanted:
        snn.unroll(other, x)
    assert record["1"].steps == STEPS
    assert later["1"].steps == 0
    assert_identical(record["1"].mem, wanted["1"].mem)


def test_vmap_over_a_checkpointed_run_gives_what_it_gives_without():
    net = nn.Sequential(nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True, output=True))
    x = torch.rand(5, 7, 2, 3)

    def membrane(z, checkpoint):
        snn.reset(net)
        return snn.unroll(net, z, checkpoint=checkpoint)[1]

    with torch.no_grad():
        runs = [torch.func.vmap(partial(membrane, checkpoint=length))(x) for length in (3, None)]
    snn.reset(net)
    assert torch.equal(*runs)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of torch's own, at its first use
def test_forward_mode_differentiation_of_a_checkpointed_run_is_refused():
    net = nn.Sequential(nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True, output=True))
    x = torch.rand(7, 2, 3)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward-mode differentiation"):
        snn.unroll(net, forward_ad.make_dual(x, x), checkpoint=3)
