"""diagnose finds what was planted, says nothing of a healthy network, and leaves no trace."""

import random
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import spikeloom as snn

from ..network.networks import NETWORKS, stepped
from ..neurons.sequences import LAYERS, B, N, T, drawn, every_layer
from ..neurons.zoo import ZOO, made, sequence

PLACES = (1, 3, 5)


def network(depth: int = 3, **options) -> nn.Sequential:
    """64 inputs, hidden layers of 100, 10 outputs; weights that let every layer fire. `options` are of the middle."""
    sizes = [64, *[100] * (depth - 1), 10]
    layers: list[nn.Module] = []
    for i, (n, m) in enumerate(pairwise(sizes)):
        fc = nn.Linear(n, m)
        with torch.no_grad():
            fc.weight.mul_(1.5).add_(0.5 / n)
        layers += [fc, snn.Leaky(beta=0.9, init_hidden=True, output=i == depth - 1, **(options if i == 1 else {}))]
    return nn.Sequential(*layers)


def batch() -> torch.Tensor:
    return torch.rand(16, 64)


def findings(net: nn.Module, **options) -> tuple[str, ...]:
    return snn.diagnose(net, batch(), steps=20, **options).findings


def test_nothing_is_said_of_a_healthy_network():
    diagnosis = snn.diagnose(network(), batch(), steps=20)
    assert diagnosis.findings == ()
    assert str(diagnosis).endswith("No problems found.")
    assert repr(diagnosis) == str(diagnosis)


def test_nothing_is_said_of_a_network_that_has_learned():
    """A task that it masters: which quarter of the inputs is the brightest."""
    net = network()
    x = torch.rand(200, 64) * 0.6
    y = torch.randint(0, 4, (200,))
    for quarter in range(4):
        x[y == quarter, 16 * quarter : 16 * quarter + 16] += 0.4
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(25):
        snn.utils.reset(net)
        counts = snn.unroll(net, x, steps=20)[0].sum(0)
        optimizer.zero_grad()
        F.cross_entropy(counts, y).backward()
        optimizer.step()
    assert (counts.argmax(1) == y).float().mean() > 0.9
    assert snn.diagnose(net, x, steps=20, loss=lambda out: F.cross_entropy(out[0].sum(0), y)).findings == ()


def test_a_dead_layer_is_found():
    first, *others = findings(network(threshold=60.0))
    assert first.startswith("layer '3' (Leaky): 100 % of its neurons never fire; lower its threshold or raise the gain")
    assert "its threshold is 60" in first
    assert any(line.startswith("layer '5'") and "fix the silent layer '3' (Leaky) first" in line for line in others)


def test_a_partly_dead_layer_is_found():
    net = network()
    with torch.no_grad():
        net[2].bias[:80] = -50.0
    diagnosis = snn.diagnose(net, batch(), steps=20)
    assert diagnosis.rows[1].dead >= 0.8
    assert diagnosis.findings[0].startswith(f"layer '3' (Leaky): {diagnosis.rows[1].dead:.0%}".replace("%", " %"))


def test_a_saturated_layer_is_found():
    net = network()
    with torch.no_grad():
        net[2].bias += 20.0
    message = findings(net)
    assert message[0].startswith("layer '3' (Leaky): 100 % of its neurons fire at nearly every step")
    assert not any("never fire" in line for line in message[:1])


def test_a_vanishing_gradient_is_found():
    net = network()
    with torch.no_grad():
        net[4].weight *= 1e-5
        net[4].bias += 0.3
    (message,) = findings(net)
    assert message.startswith("layers '1', '3': the gradient vanishes")
    assert "lost at the spikes of layer '3' (Leaky)" in message


def test_a_surrogate_that_is_too_narrow_is_found():
    message = findings(network(spike_grad=snn.surrogate.fast_sigmoid(slope=5000)))
    assert any("layer '3'" in line and "for fast_sigmoid(slope=5000) to pass gradient" in line for line in message)


def test_a_disabled_surrogate_is_found():
    message = findings(network(surrogate_disable=True))
    assert "layer '3' (Leaky): its spikes pass no gradient because of surrogate_disable=True" in message
    assert any(line.startswith("layers '1', '3': the gradient is zero") for line in message)


class Detaching(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net[2:](self.net[:2](x).detach())


def test_a_detach_is_found():
    message = findings(Detaching())
    assert "layer 'net.1': the gradient is missing or NaN; check whether a later layer detaches its input" in message
    assert (
        "net.0.weight, net.0.bias: no gradient; the loss does not depend on it, or a tensor is detached on the way"
        in message
    )


def test_a_loss_without_any_gradient_is_found():
    message = findings(network(), loss=lambda out: out[0].argmax().float())
    assert any(line.startswith("layers '1', '3', '5': the gradient is missing or NaN") for line in message)


def test_nan_is_found():
    net = network()
    with torch.no_grad():
        net[0].weight[0, 0] = torch.nan
    assert "for NaN and inf" in findings(net)[0]


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_run():
    net, x = network(), torch.rand(7, 5, 64)
    diagnosis = snn.diagnose(net, x)
    with snn.tap(net, inputs=True, graph=True) as record:
        spk, _ = snn.unroll(net, x)
    currents = [record[str(layer)].given()[0] for layer in PLACES]
    grads = torch.autograd.grad(spk.sum(), currents)
    for row, layer, grad in zip(diagnosis.rows, PLACES, grads, strict=True):
        fired, mem = record[str(layer)].spk, record[str(layer)].mem.detach()
        assert (row.path, row.kind, row.neurons) == (str(layer), "Leaky", fired.shape[2])
        assert row.rate == pytest.approx(fired.mean().item(), rel=1e-6)
        assert row.dead == pytest.approx((fired.sum((0, 1)) == 0).float().mean().item())
        assert row.saturated == pytest.approx((fired.mean((0, 1)) > 0.9).float().mean().item())
        assert row.membrane == pytest.approx((mem.min().item(), mem.mean().item(), mem.max().item()), rel=1e-5)
        slope = 1 / (1 + (torch.pi * (mem - 1)) ** 2)
        assert row.passes == pytest.approx((slope >= 0.01).float().mean().item(), abs=1e-3)
        assert row.gradient_norm == pytest.approx(grad.norm().item(), rel=1e-4)
    assert f"{diagnosis.rows[0].rate:.1%}" in str(diagnosis)


def test_steps_and_unrolled_give_the_same_numbers():
    net, x = network(), torch.rand(7, 5, 64)
    unrolled, looped = snn.diagnose(net, x), snn.diagnose(net, x, forward=stepped)
    for ours, theirs in zip(unrolled.rows, looped.rows, strict=True):
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-3)
        assert ours.rate == pytest.approx(theirs.rate)
        assert ours.membrane == pytest.approx(theirs.membrane, rel=1e-3)


class LoopsByItself(nn.Module):
    """As in snnTorch's tutorials: the forward has the loop, and hands the states over."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 30), snn.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(30, 10), snn.Leaky(beta=0.9, threshold=100.0)

    def forward(self, x):
        mem1, mem2, spikes = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for _ in range(10):
            spk, mem1 = self.lif1(self.fc1(x), mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            spikes.append(spk)
        return torch.stack(spikes)


def test_a_forward_with_its_own_loop_can_be_diagnosed():
    diagnosis = snn.diagnose(LoopsByItself(), batch(), forward=lambda net, x: net(x))
    assert [row.path for row in diagnosis.rows] == ["lif1", "lif2"]
    assert diagnosis.findings[0].startswith("layer 'lif2' (Leaky): 100 % of its neurons never fire")


def test_a_neuron_that_fires_by_another_rule():
    net = nn.Sequential(nn.Linear(64, 10), snn.DeltaLeaky(0.05, beta=0.9, init_hidden=True))
    (row,) = snn.diagnose(
        net, torch.rand(7, 5, 64), forward=lambda net, x: torch.stack([net(x_t)[0] for x_t in x])
    ).rows
    assert 0 < row.rate < 1
    assert row.passes != row.passes
    assert row.threshold_text() == "-"


def test_a_readout_that_does_not_fire_is_left_alone():
    net = nn.Sequential(*network(2)[:3], snn.LI(beta=0.9, init_hidden=True))
    diagnosis = snn.diagnose(net, batch(), steps=20)
    assert diagnosis.findings == ()
    assert all(
        value != value for value in (diagnosis.rows[1].rate, diagnosis.rows[1].dead, diagnosis.rows[1].saturated)
    )
    assert diagnosis.plot() is not None


@every_layer
@pytest.mark.parametrize("forward", [None, lambda net, x: net(x)], ids=["unrolled", "plain"])
def test_every_layer_that_takes_whole_sequences_can_be_diagnosed(name, forward):
    (row,) = snn.diagnose(LAYERS[name](), drawn(T, B, N), forward=forward).rows
    assert row.gradient_norm > 0
    assert (row.membrane is None) == (row.membrane_text() == "-") == name.startswith(("LeakyP", "Assoc"))


def test_a_silent_layer_that_returns_no_membrane():
    diagnosis = snn.diagnose(snn.LeakyParallel(N, 5, 0.8, threshold=1e3), drawn(T, B, N))
    (message,) = diagnosis.findings
    assert message.startswith(
        "the LeakyParallel: 100 % of its neurons never fire; lower its threshold or raise the gain"
    )
    assert "membranes" not in message
    assert diagnosis.plot() is not None


def test_the_membrane_of_an_equation_of_the_users_is_its_last_state():
    @snn.charge
    def charging(x, u, v):
        u = 0.5 * u + x
        return u, 0.5 * v + u

    (row,) = snn.diagnose(charging(init_hidden=True), drawn(T, B, N)).rows
    assert row.membrane is not None
    assert row.passes > 0


@pytest.mark.parametrize("kind", ZOO)
def test_every_neuron_can_be_diagnosed(kind):
    (row,) = snn.diagnose(made(kind, init_hidden=True), sequence(kind)).rows
    assert row.gradient_norm > 0
    assert (row.passes == row.passes) == (row.threshold_text() != "-")


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "no neurons"])
def test_every_network_can_be_diagnosed(name):
    net = NETWORKS[name]()
    for x, steps in ((torch.rand(4, 6), 5), (torch.rand(5, 4, 6), None)):
        assert len(snn.diagnose(net, x, steps=steps).rows) >= 1


def test_without_gradients_and_in_inference_mode_too():
    net = network()
    with torch.no_grad():
        wanted = snn.diagnose(net, torch.ones(2, 64), steps=5)
    with torch.inference_mode():
        assert snn.diagnose(net, torch.ones(2, 64), steps=5).rows == wanted.rows
    assert wanted.rows[0].gradient_norm > 0


# -- no trace ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["unrolled", "by steps"])
def test_it_changes_nothing(way):
    net = nn.Sequential(nn.BatchNorm1d(64), nn.Dropout(), *network())
    snn.unroll(net, torch.rand(5, 4, 64))[1].sum().backward()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    states = [m.mem for m in net.modules() if isinstance(m, snn.Leaky)]
    grads = [p.grad.clone() for p in net.parameters()]
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    versions = [b._version for b in net.buffers()]
    hooks = [dict(m._forward_hooks) for m in net.modules()]
    snn.diagnose(net, torch.rand(5, 4, 64, generator=torch.Generator()), forward=stepped if way == "by steps" else None)
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert random.getstate() == drawn[1]
    assert np.array_equal(np.random.get_state()[1], drawn[2])
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert versions == [b._version for b in net.buffers()]
    assert all(a is b.mem for a, b in zip(states, (m for m in net.modules() if isinstance(m, snn.Leaky)), strict=True))
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, net.parameters(), strict=True))
    assert hooks == [dict(m._forward_hooks) for m in net.modules()]


def test_a_refusal_changes_nothing_either():
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    buffers = dict(net.named_buffers())
    for bad, kind, message in (
        (lambda: snn.diagnose(net, torch.rand(5, 4, 6)), ValueError, "no spiking neurons"),
        (lambda: snn.diagnose([], torch.rand(5, 4, 6)), TypeError, "got list; pass a network"),
        (lambda: snn.diagnose(network(), torch.rand(0, 4, 64)), ValueError, "at least one of each"),
        (lambda: snn.diagnose(network(), batch(), steps=2, loss=lambda out: 1.0), TypeError, "return a tensor"),
    ):
        with pytest.raises(kind, match=message):
            bad()
    assert all(buffers[name] is b for name, b in net.named_buffers())


# -- the ways to run it ------------------------------------------------------------------------------------------------


class Looping(nn.Module):
    """A network with the loop in its forward and the states by hand."""

    def __init__(self, net: nn.Sequential):
        super().__init__()
        self.fc1, self.lif1, self.fc2, self.lif2 = net

    def forward(self, x, steps=20):
        mem1, mem2, out = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for _ in range(steps):
            spk, mem1 = self.lif1(self.fc1(x), mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            out.append(spk)
        return torch.stack(out)


def by_hand(**options) -> Looping:
    net = network(2)
    net[1], net[3] = snn.Leaky(beta=0.9, **options), snn.Leaky(beta=0.9)
    return Looping(net)


def test_a_fused_loop_is_diagnosed_like_the_loop():
    """Also where a fused network is only a part; the gradient at every call of a neuron is known."""
    torch.manual_seed(0)
    for net, problem in ((by_hand(), None), (by_hand(threshold=60.0), "dead layer")):
        x = batch()
        plain = snn.diagnose(net, x, forward=lambda net, x: net(x))
        fused = snn.fuse(net)
        assert next((f.problem for f in plain.findings), None) == problem
        assert str(snn.diagnose(fused, x)) == str(plain)
        assert str(snn.diagnose(fused, x, steps=20)) == str(plain)
        assert str(snn.diagnose(fused, x, forward=lambda net, x: net(x))) == str(plain)
        part = snn.diagnose(nn.Sequential(nn.Identity(), fused), x, forward=lambda net, x: net(x))
        assert tuple(f.problem for f in part.findings) == tuple(f.problem for f in plain.findings)


def test_both_names_of_the_number_of_steps_are_read_alike():
    net, x = network(2), batch()
    assert str(snn.diagnose(net, x, num_steps=20)) == str(snn.diagnose(net, x, steps=20))
    same = x[:1].expand(16, -1)  # as a sequence, swapped axes would be a finding
    assert "swapped axes" not in [f.problem for f in snn.diagnose(net, same.expand(8, 16, 64), num_steps=4).findings]


# -- the picture -------------------------------------------------------------------------------------------------------


def test_the_plot_shows_the_rows():
    pytest.importorskip("matplotlib")
    diagnosis = snn.diagnose(network(surrogate_disable=True), batch(), steps=20)
    figure = diagnosis.plot()
    neurons, membranes, passes, gradients = figure.axes
    assert [label.get_text() for label in neurons.get_yticklabels()] == ["1  Leaky", "3  Leaky", "5  Leaky"]
    assert [bar.get_width() for bar in neurons.containers[0]] == [row.dead for row in diagnosis.rows]
    assert [bar.get_width() for bar in passes.containers[0]] == [row.passes for row in diagnosis.rows]
    assert list(membranes.lines[0].get_xdata()) == [row.membrane[1] for row in diagnosis.rows]
    assert gradients.lines[0].get_xdata()[2] == diagnosis.rows[2].gradient_norm
    assert [text.get_text() for text in gradients.texts] == ["0", "0"]


def test_the_plot_fits_a_column_a_page_and_the_number_of_layers():
    pytest.importorskip("matplotlib")
    rows = snn.diagnose(network(), batch(), steps=5).rows
    rows = (replace(rows[0], path="a.long.path.of.a.block.in.the.network"), *rows[1:])
    few, many = (snn.Diagnosis(rows * times, ()).plot() for times in (1, 4))
    assert few.axes[0].get_yticklabels()[0].get_text() == "...he.network  Leaky"
    assert few.get_figwidth() == many.get_figwidth() == pytest.approx(3.3)
    assert few.get_figheight() < many.get_figheight()
    for figsize in (5, (3,), (0, 2), ("a", 2)):
        with pytest.raises(ValueError, match=r"figsize=.*; pass \(width, height\) in inches"):
            snn.Diagnosis(rows, ()).plot(figsize=figsize)
    with pytest.raises(ValueError, match="no spiking layer"):
        snn.Diagnosis((), ()).plot()
    for figure, across in ((few, 2), (many, 2), (snn.Diagnosis(rows, ()).plot(figsize=(7, 2)), 4)):
        figure.draw_without_rendering()
        texts = [[panel.title, panel.xaxis.label, *panel.get_yticklabels()] for panel in figure.axes]
        boxes = [text.get_window_extent() for panel in texts for text in panel if text.get_text()]
        assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
        assert len({round(panel.get_position().x0, 2) for panel in figure.axes}) == across


def test_without_matplotlib_the_plot_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"spikeloom\[plot\]"):
        snn.diagnose(network(), batch(), steps=2).plot()
