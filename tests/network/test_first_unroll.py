"""The first unroll of a network checks itself: what would be wrong raises and is named, what is right passes."""

import copy
import gc
import logging
import random
import threading
import warnings
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import spikeloom as snn
from spikeloom import spikegen
from spikeloom.network.known import is_row_by_row

from .networks import leaky

STEPS, BATCH, WIDTH = 7, 5, 6


class Net(nn.Module):
    """A forward given as a function of the module and its input, and modules by name."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.fc, self.lif, self.head = nn.Linear(WIDTH, WIDTH), leaky(threshold=0.3, beta=0.9), nn.Linear(WIDTH, WIDTH)
        self.does, self.kept, self.count = forward, 0.0, 0
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.does(self, x)

    def spikes(self, x):
        return self.lif(self.fc(x))


EDGES = torch.randint(0, BATCH, (2, 30), generator=torch.Generator().manual_seed(0))


class GraphConv(nn.Module):
    """Nodes in dimension 0."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(WIDTH, WIDTH)

    def forward(self, h):
        h = self.fc(h)
        return torch.zeros_like(h).index_add_(0, EDGES[1], h[EDGES[0]])


class OwnNorm(nn.Module):
    def forward(self, x):
        return (x - x.mean(0)) / (x.var(0) + 1e-5).sqrt()


class Trace(nn.Module):
    """A leaky integrator that somebody wrote by hand, its state in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("trace", torch.zeros(()))

    def forward(self, x):
        self.trace = 0.9 * self.trace + x
        return self.trace


def feedback(self, x):
    self.kept = self.spikes(x + self.kept)
    return self.kept


def feedback_in_a_list(self, x):
    self.memory = [*getattr(self, "memory", []), x.mean()][-2:]
    return self.spikes(x + sum(self.memory))


def feedback_in_an_object(self, x):
    self.store.last = self.spikes(x + self.store.last)
    return self.store.last


def counter(self, x):
    self.count += 1
    return self.head(self.spikes(x) * self.count)


def adaptive(self, x):
    spk = self.spikes(x)
    self.lif.threshold = self.lif.threshold + 0.1 * spk.mean()
    return spk


def only_in_training(self, x):
    spk = self.spikes(x)
    return self.head(spk - spk.mean(0) if self.training else spk)


def only_in_float32(self, x):
    spk = self.spikes(x)
    return self.head(spk - spk.mean(0) if x.dtype == torch.float32 else spk)


def later(self, x):
    """Only at the second step and later."""
    self.count += 1
    return self.spikes(x) if self.count < 2 else self.head(self.lif(self.fc(2 * x)))


WRONG = {
    "graph convolution": (lambda: nn.Sequential(GraphConv(), leaky(), GraphConv(), leaky()), "GraphConv"),
    "attention over dimension 0": (
        lambda: Net(lambda s, x: s.attention(*[s.spikes(x)] * 3)[0], attention=nn.MultiheadAttention(WIDTH, 2)),
        "'attention' .MultiheadAttention",
    ),
    "LSTM over dimension 0": (
        lambda: Net(lambda s, x: s.lstm(s.spikes(x))[0], lstm=nn.LSTM(WIDTH, WIDTH)), "'lstm' .LSTM",
    ),
    "GRU in a Sequential": (lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), leaky(), First(nn.GRU(6, 6))), "'2.layer'"),
    "transformer layer": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(WIDTH, 2, 8, 0.0), leaky()),
        "TransformerEncoderLayer|'0.self_attn'",
    ),
    "reads its membrane": (lambda: Net(lambda s, x: s.spikes(x) + s.lif.mem), "'lif' .* its mem is read"),
    "writes its membrane": (lambda: Net(lambda s, x: (setattr(s.lif, "mem", x), s.spikes(x))[1]), "mem is assigned"),
    "resets": (lambda: Net(lambda s, x: (snn.utils.reset(s), s.spikes(x))[1]), "'lif' .* it is reset"),
    "feedback": (lambda: Net(feedback), "'fc' .* another input"),
    "feedback in a list": (lambda: Net(feedback_in_a_list), "'fc' .* another input"),
    "feedback in an object": (
        lambda: Net(feedback_in_an_object, store=SimpleNamespace(last=0.0)), "'fc' .* another input",
    ),
    "feedback in a buffer": (lambda: nn.Sequential(Trace(), leaky()), "'0' .Trace"),
    "counter": (lambda: Net(counter), "'head' .* another input"),
    "threshold that adapts": (lambda: Net(adaptive), "'lif' .* other values"),
    "mean over rows": (lambda: Net(lambda s, x: s.head(s.spikes(x) - x.mean(0))), "'head' .* another input"),
    "norm by hand": (lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), OwnNorm(), leaky()), "'1' .OwnNorm"),
    "softmax over rows": (lambda: nn.Sequential(leaky(), nn.Softmax(0)), "'1' .Softmax"),
    "constant view": (
        lambda: Net(lambda s, x: s.head(s.spikes(x).view(-1, 35, 6).sum(0))), "step by step the network raises",
    ),
    "index of a row": (lambda: Net(lambda s, x: s.head(s.spikes(x) + x[0])), "'head' .* another input"),
    "index of rows": (lambda: Net(lambda s, x: s.spikes(x)[:BATCH]), "dimension 0 must be"),
    "zeros of a constant batch": (lambda: Net(lambda s, x: s.spikes(x) + torch.zeros(BATCH, WIDTH)), "must match"),
    "size that enters a value": (lambda: Net(lambda s, x: s.head(s.spikes(x) / len(x))), "'head' .* another input"),
    "sorted rows": (lambda: Net(lambda s, x: s.head(s.spikes(x).sort(0).values)), "'head' .* another input"),
    "shifted rows": (lambda: Net(lambda s, x: s.lif(s.fc(x).roll(1, 0))), "'lif' .* another input"),
    "cumulated rows": (lambda: Net(lambda s, x: s.head(s.spikes(x).cumsum(0))), "'head' .* another input"),
    "only in training": (lambda: Net(only_in_training), "'head' .* another input"),
    "only in float32": (lambda: Net(only_in_float32), "'head' .* another input"),
    "from the second step on": (lambda: Net(later), "step 0|step 1"),
    "neuron in a list": (lambda: Hidden([leaky()]), "none of its modules"),
    "neuron in a dict": (lambda: Hidden({0: leaky()}), "none of its modules"),
    "hook that mixes rows": (lambda: hooked(lambda m, args, out: out - out.mean(0)), "'0' .* other values"),
}  # fmt: skip


class First(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class Hidden(nn.Module):
    """A neuron that is no module of the network."""

    def __init__(self, neurons):
        super().__init__()
        self.fc, self.neurons = nn.Linear(WIDTH, WIDTH), neurons

    def forward(self, x):
        return self.neurons[0](self.fc(x))


def hooked(hook):
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), leaky())
    net[0].register_forward_hook(hook)
    return net


def data(static=False, steps=STEPS):
    draw = torch.Generator().manual_seed(1)
    return 2 * torch.rand(*(() if static else (steps,)), BATCH, WIDTH, generator=draw)


def unrolled(net, static=False, **options):
    return snn.unroll(net, data(static), steps=STEPS if static else None, **options)


def loop(net, static):
    return torch.stack([net(x) for x in ([data(True)] * STEPS if static else data())])


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("case", WRONG)
def test_a_network_that_would_be_wrong_raises_at_its_first_unroll(case, static):
    torch.manual_seed(0)
    make, sentence = WRONG[case]
    net, again = make(), make()
    again.load_state_dict(net.state_dict())
    if static:  # what works on a single static input, as a mean over its rows, is right
        try:
            wanted = loop(again, static)
            wanted = wanted[:, 0] if wanted.dim() == 4 else wanted
            snn.utils.reset(again)
            again = make()
            again.load_state_dict(net.state_dict())
            if torch.allclose(unrolled(again, static, check=False), wanted, atol=1e-4):
                return
        except (RuntimeError, ValueError):
            pass
    for _ in range(2):  # it goes on raising
        with pytest.raises((RuntimeError, ValueError), match=sentence):
            unrolled(net, static)


class Residual(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.body = make()

    def forward(self, x):
        return x + self.body(x)


class UNet(nn.Module):
    """[B, 6] as images of one row."""

    def __init__(self):
        super().__init__()
        self.down, self.lif1, self.mid = nn.Conv1d(1, 4, 3, padding=1), leaky(), nn.Conv1d(4, 4, 3, padding=1)
        self.lif2, self.up = leaky(), nn.ConvTranspose1d(4, 4, 2, stride=2)
        self.out = nn.Conv1d(8, 1, 1)

    def forward(self, x):
        high = self.lif1(self.down(x.unsqueeze(1)))
        low = self.lif2(self.mid(functional.max_pool1d(high, 2)))
        return self.out(torch.cat((high, self.up(low)), 1)).flatten(1)


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif, self.out = nn.Linear(WIDTH, WIDTH), leaky(output=True), leaky(output=True)

    def forward(self, x):
        spk, mem = self.lif(self.fc(x))
        return {"spk": spk, "rest": [mem, self.out(spk)[1], None], "name": "several"}


class Scheduled(Net):
    """Counts its calls, writes what it saw, and is not changed by either."""

    def forward(self, x):
        self.count += 1
        self.seen = [*getattr(self, "seen", []), x.detach()][-1:]
        return self.spikes(x)


def attention(self, x):
    tokens = self.spikes(x).view(x.size(0), 3, 2)
    return self.attention(tokens, tokens, tokens)[0].flatten(1)


def noise(self, x):
    x = x + 0.1 * torch.randn_like(x) + 0.1 * torch.rand(len(x), 1)
    mask = torch.bernoulli(torch.full_like(x, 0.5))
    return functional.dropout(self.lif(self.fc(x * mask)), 0.3, self.training)


def variational(self, x):
    mean, log = self.head(self.spikes(x)).chunk(2, 1)
    return torch.distributions.Normal(mean, log.exp()).rsample()


def wide(**options):
    return leaky(threshold=0.3, beta=0.9, **options)


RIGHT = {
    "residual": lambda: Residual(lambda: nn.Sequential(nn.Linear(6, 6), wide(), nn.Linear(6, 6))),
    "U-Net": UNet,
    "several outputs": Several,
    "dropout in training": lambda: Residual(lambda: nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), wide())),
    "dropout of channels": lambda: Residual(lambda: nn.Sequential(nn.Linear(6, 6), nn.AlphaDropout(0.3), wide())),
    "batchnorm in training": lambda: Residual(lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), wide())),
    "batchnorm without statistics": lambda: Residual(
        lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False), wide())
    ).eval(),
    "batchnorm in evaluation": lambda: Residual(lambda: nn.Sequential(nn.BatchNorm1d(6), wide())).eval(),
    "groupnorm and layernorm": lambda: Residual(lambda: nn.Sequential(nn.GroupNorm(2, 6), wide(), nn.LayerNorm(6))),
    "a noisy neuron": lambda: Residual(lambda: nn.Sequential(nn.Linear(6, 6), snn.NoisyLeaky(0.9, init_hidden=True))),
    "noise in the forward": lambda: Net(noise),
    "a sample of a distribution": lambda: Net(variational),
    "an encoder in the forward": lambda: Net(lambda s, x: s.spikes(spikegen.rate(x.clamp(0, 1), time_var_input=True))),
    "weight norm": lambda: Net(
        lambda s, x: s.head(s.spikes(x)), fc=nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
    ),
    "weight norm by a hook": lambda: Net(lambda s, x: s.head(s.spikes(x)), fc=old_weight_norm(nn.Linear(6, 6))),
    "spectral norm": lambda: Net(
        lambda s, x: s.head(s.spikes(x)), head=nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))
    ),
    "spectral norm by a hook": lambda: Net(
        lambda s, x: s.head(s.spikes(x)), head=nn.utils.spectral_norm(nn.Linear(6, 6))
    ),
    "functional calls": lambda: Net(
        lambda s, x: functional.softmax(functional.linear(s.spikes(x).relu(), s.head.weight), dim=-1)
    ),
    "attention, batch first": lambda: Net(attention, attention=nn.MultiheadAttention(2, 1, 0.2, batch_first=True)),
    "transformer, batch first": lambda: Net(
        lambda s, x: s.layer(s.spikes(x).view(x.size(0), 3, 2)).flatten(1),
        layer=nn.TransformerEncoderLayer(2, 1, 8, batch_first=True),
    ),
    "attention by hand": lambda: Net(
        lambda s, x: functional.scaled_dot_product_attention(
            *[s.spikes(x).view(-1, 1, 3, 2)] * 3, dropout_p=0.1
        ).flatten(1)
    ),
    "LSTM over features": lambda: Net(
        lambda s, x: s.lstm(s.spikes(x).unsqueeze(-1))[0][:, -1],
        lstm=nn.LSTM(1, 3, num_layers=2, dropout=0.2, batch_first=True),
    ),
    "counts its calls": lambda: Scheduled(None),
    "a recurrent neuron": lambda: Residual(
        lambda: nn.Sequential(nn.Linear(6, 6), snn.RLeaky(beta=0.9, linear_features=6, init_hidden=True))
    ),
    "an LSTM neuron": lambda: Residual(lambda: nn.Sequential(snn.SLSTM(6, 6, threshold=0.01, init_hidden=True))),
    "every kind of neuron": lambda: Residual(
        lambda: nn.Sequential(
            nn.Linear(6, 6), snn.Synaptic(alpha=0.9, beta=0.8, init_hidden=True),
            nn.Linear(6, 6), snn.Alpha(alpha=0.9, beta=0.8, init_hidden=True),
            nn.Linear(6, 6), snn.Lapicque(beta=0.8, init_hidden=True),
        )
    ),
    "delays and norms of the library": lambda: Residual(
        lambda: nn.Sequential(nn.Linear(6, 6), snn.layers.BatchNormTT1d(6, time_steps=STEPS), wide())
    ),
    "a user's own neuron": lambda: Residual(
        lambda: nn.Sequential(nn.Linear(6, 6), OwnFire(beta=0.9, init_hidden=True))
    ),
    "accelerated": lambda: snn.accelerate(Net(lambda s, x: s.head(s.spikes(x)))),
    "float64": lambda: Net(lambda s, x: s.head(s.spikes(x.double())).float()).double(),
    "bfloat16": lambda: Net(lambda s, x: s.head(s.spikes(x.bfloat16())).float()).bfloat16(),
    "holds modules, locks and files": lambda: with_objects(Net(lambda s, x: s.head(s.spikes(x)))),
}  # fmt: skip


class OwnFire(snn.Leaky):
    def fire(self, mem):
        return self.spike_grad(mem - 0.5 * self.threshold)


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(layer)


def with_objects(net):
    net.np, net.lock, net.log = np, threading.Lock(), logging.getLogger("net")
    net.file = open(__file__)  # noqa: SIM115
    weakref.finalize(net, net.file.close)
    return net


@pytest.mark.parametrize("check", [None, True])
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("case", RIGHT)
def test_a_network_that_is_right_passes(case, static, check):
    torch.manual_seed(0)
    net = RIGHT[case]()
    x, steps = data(static), STEPS if static else None
    snn.unroll(net, x, steps=steps, check=check)
    snn.utils.reset(net)
    assert not snn.explain(net, x, steps=steps).unchecked


# -- what the comparison leaves ----------------------------------------------------------------------------------------


class Everything(nn.Module):
    """Draws, counts, appends, prints into a list, normalises, writes to tensors in place and keeps states."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.lif = nn.BatchNorm1d(WIDTH), nn.Dropout(), wide()
        self.log, self.store, self.trace = [], SimpleNamespace(seen={}), torch.zeros(WIDTH)
        self.generator, self.numbers, self.python = torch.Generator(), np.random.default_rng(0), random.Random(0)

    def forward(self, x):
        self.log.append(len(x))
        self.store.seen[len(self.log)] = tuple(x.shape)
        self.trace.add_(1)
        noise = torch.rand(x.shape, generator=self.generator)
        return self.lif(self.drop(self.norm(x + noise)))


def everything(net):
    generators = net.generator.get_state().tolist(), str(net.numbers.bit_generator.state), net.python.getstate()
    kept = net.log, net.store.seen, net.trace.tolist(), net.norm.running_mean.tolist(), net.lif.mem.tolist()
    drawn = torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())
    return copy.deepcopy((generators, kept, drawn, net.norm.num_batches_tracked.item()))


@pytest.mark.parametrize("check", [None, True])
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("checkpoint", [None, 3])
def test_the_comparison_leaves_what_the_run_alone_would_leave(checkpoint, static, check):
    ends = []
    for how in (False, check):
        torch.manual_seed(0)
        net = Everything()
        out = unrolled(net, static, check=how, checkpoint=checkpoint)
        ends.append((out.tolist(), everything(net)))
    assert ends[0] == ends[1]
    assert all(m.training for m in net.modules())


def test_a_difference_leaves_the_network_as_it_was():
    net = Net(feedback_in_an_object, store=SimpleNamespace(last=0.0))
    net.list, mem = [1], net.lif.mem
    with pytest.raises(RuntimeError):
        unrolled(net)
    assert net.store.last == 0.0
    assert net.lif.mem is mem


def test_hooks_taps_and_monitors_hear_the_run_alone():
    net = RIGHT["residual"]()
    heard = []
    net.body[0].register_forward_hook(lambda module, args, out: heard.append(len(out)))
    net.body[0].register_forward_pre_hook(lambda module, args: heard.append(len(args[0])))
    with snn.tap(net) as tap:
        unrolled(net)
    assert heard == [STEPS * BATCH] * 2
    assert tap["body.1"].spk.shape == (STEPS, BATCH, WIDTH)


def test_nothing_of_the_comparison_stays_in_memory():
    net = RIGHT["residual"]()
    made = weakref.WeakSet()
    hook = net.body[1].register_forward_hook(lambda module, args, out: made.add(out))
    with torch.no_grad():
        unrolled(net)
    hook.remove()
    gc.collect()
    assert not list(made)
    network = weakref.ref(net)
    del net
    gc.collect()
    assert network() is None


def test_later_calls_are_not_compared_and_calls_of_another_kind_are():
    net = RIGHT["residual"]()
    calls = []
    net.forward = lambda x: (calls.append(len(x)), Residual.forward(net, x))[1]
    unrolled(net)
    assert calls == [35, 5, 5, 5, 15]
    for change, compared in (
        (lambda: None, False), (net.eval, True), (net.train, False), (net.double, True), (net.float, False)
    ):  # fmt: skip
        change()
        snn.utils.reset(net)
        calls.clear()
        snn.unroll(net, data().to(net.body[0].weight.dtype))
        assert (len(calls) > 1) == compared
    calls.clear()
    snn.unroll(net, data()[:, :3])  # another batch size
    snn.unroll(net, data()[:4])  # and another number of steps
    assert len(calls) == 2
    net.body.append(nn.Identity())
    snn.utils.reset(net)
    unrolled(net)
    assert len(calls) > 3


def test_check_true_compares_all_steps_and_check_false_none():
    def late(self, x):
        self.count += 1
        return self.spikes(x) * (1 if self.count < 5 else 2)

    net = Net(late)
    assert unrolled(net).shape == (STEPS, BATCH, WIDTH)
    with pytest.raises(RuntimeError, match="first at step"):
        unrolled(Net(late), check=True)
    wrong = WRONG["counter"][0]()
    assert unrolled(wrong, check=False).shape == (STEPS, BATCH, WIDTH)


def test_plain_sequentials_of_known_layers_are_not_compared():
    calls = []

    class Counting(nn.Sequential):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    layers = [nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.MaxPool1d(2), nn.Flatten(), nn.Dropout(), nn.Linear(4, 3)]
    plain = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Sequential(*layers), leaky(output=True))
    assert is_row_by_row(plain)
    for layer in (Counting(nn.Linear(6, 6)), nn.Flatten(0), nn.Softmax(-1), nn.LSTM(6, 6), nn.MultiheadAttention(6, 2)):
        assert not is_row_by_row(nn.Sequential(layer, leaky()))
    unrolled(Counting(nn.Linear(6, 6), leaky()))
    assert len(calls) > 1


@pytest.mark.parametrize(
    "run",
    [
        lambda net, x: next(snn.stream(net, x.split(4))),
        lambda net, x: snn.unroll(net, x, checkpoint=3),
        lambda net, x: snn.explain(net, x),
        lambda net, x: snn.utils.summary(net, x),
        lambda net, x: snn.diagnose(net, x),
    ],
    ids=["stream", "checkpoint", "explain", "summary", "diagnose"],
)
def test_whatever_unrolls_compares(run):
    with pytest.raises(RuntimeError, match=r"'head' .* another input"):
        run(WRONG["mean over rows"][0](), data())


def test_backprop_runs_by_steps_what_cannot_be_unrolled():
    seen = []
    net = Net(lambda s, x: (seen.append(len(x)), s.head(s.spikes(x) - x.mean(0)))[1])
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    snn.backprop.BPTT(net, [(data(), torch.zeros(BATCH))], optimizer, lambda spk, target: spk.square().mean())
    assert seen[-STEPS:] == [BATCH] * STEPS


def test_explain_says_why_there_was_no_comparison():
    class Drawing(Net):
        def forward(self, x):
            return self.spikes(x + float(np.random.rand()))

    net = Drawing(None)
    assert "random numbers outside of torch" in str(snn.explain(net, data()))
    assert not snn.explain(RIGHT["residual"](), data()).unchecked


def test_a_difference_by_rounding_is_none():
    """A step function of the user's own right behind a product: some rows flip, step by step or unrolled."""

    class Rounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif, self.calls = nn.Linear(WIDTH, WIDTH), wide(), 0

        def forward(self, x):
            current = self.fc(x)
            current = current + 1e-7 * (-1) ** (len(x) % 2) * current  # as another order of a sum would
            return self.lif((1e4 * current).frac().round())

    unrolled(Rounded())


# -- the tutorials' networks -------------------------------------------------------------------------------------------


class Tutorial5(nn.Module):
    """States by hand, and the loop in forward; `hidden` is half-way to a network for unroll."""

    def __init__(self, start=True, hidden=False):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(12, 8), snn.Leaky(beta=0.9, init_hidden=hidden)
        self.fc2, self.lif2 = nn.Linear(8, 3), snn.Leaky(beta=0.9, init_hidden=hidden, output=True)
        self.start, self.hidden = start, hidden

    def forward(self, x):
        mem1, mem2 = (self.lif1.init_leaky(), self.lif2.init_leaky()) if self.start else (torch.zeros(1),) * 2
        spikes, membranes = [], []
        for _ in range(STEPS):
            if self.hidden:
                spk2, mem2 = self.lif2(self.fc2(self.lif1(self.fc1(x))))
            else:
                spk1, mem1 = self.lif1(self.fc1(x), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes, dim=0), torch.stack(membranes, dim=0)


class Tutorial6(nn.Module):
    def __init__(self, hidden=False):
        super().__init__()
        self.conv, self.lif1 = nn.Conv2d(1, 2, 3, padding=1), snn.Leaky(beta=0.9, init_hidden=hidden)
        self.fc, self.lif2, self.hidden = nn.Linear(24, 3), snn.Leaky(beta=0.9, init_hidden=hidden, output=True), hidden

    def forward(self, x):
        if self.hidden:
            return self.lif2(self.fc(self.lif1(self.conv(x)).view(BATCH, -1)))
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk1, mem1 = self.lif1(self.conv(x), mem1)
        return self.lif2(self.fc(spk1.view(BATCH, -1)), mem2)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (Tutorial5(), (BATCH, 12)), (Tutorial5(start=False), (BATCH, 12)),
        (Tutorial5(start=False, hidden=True), (BATCH, 12)),
        (Tutorial6(), (BATCH, 1, 3, 4)), (Tutorial6(hidden=True), (BATCH, 1, 3, 4)),
    ],
    ids=["5", "5 with zeros", "5 with init_hidden", "6", "6 with init_hidden"],
)  # fmt: skip
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
def test_the_first_message_to_a_network_with_its_own_loop_says_all_that_is_to_do(net, shape, static):
    x = torch.rand(*(() if static else (STEPS,)), *shape)
    with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
        snn.unroll(net, x, steps=STEPS if static else None)
    told = "".join((str(caught.value), *caught.value.__notes__))
    for part in ("init_hidden=True", "take the loop over time out of forward", "let forward return", "x.flatten(1)",
                 "docs/from-snntorch.md"):  # fmt: skip
        assert part in told
