"""Networks that unroll would change, with what is said of them, and networks that it runs right."""

import itertools
import logging
import threading
import warnings
import weakref
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import spikeloom as snn
from spikeloom import spikegen

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


def array_counter(self, x):
    self.array += 1
    return self.head(self.spikes(x) * float(self.array[0]))


def iterated(self, x):
    return self.head(self.spikes(x) * next(self.values))


def hebbian(self, x):
    out = self.head(self.spikes(x))
    self.head.weight.data.add_(0.1)
    return out


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
    "threshold that adapts": (lambda: Net(adaptive), "'lif' .* (other values|another state)"),
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
    "mixes spikes that come late": (
        lambda: Net(lambda s, x: s.head(s.lif(s.fc(x)).flip(0)), lif=leaky(threshold=9.0)), "'head' .* another input",
    ),
    "feeds back spikes that come late": (lambda: Net(feedback, lif=leaky(threshold=9.0, beta=0.99)), "'fc' .* another"),
    "counter in an array": (lambda: Net(array_counter, array=np.ones(1)), "'head' .* another input"),
    "iterator that goes on": (lambda: Net(iterated, values=itertools.count(1)), "'head' .* another input"),
    "weights written in the forward": (lambda: Net(hebbian), "the network .* other values|'head' .* other values"),
    "writes to its input": (lambda: Net(lambda s, x: s.spikes(x.add_(x.mean(0)))), "(fc|network).* another input"),
    "hook that mixes rows": (lambda: hooked(lambda m, args, out: out - out.mean(0)), "'1' .* another input .* hook"),
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
    "writes to its spikes": lambda: Net(lambda s, x: s.head(s.spikes(x).mul_(2))),
    "writes to its currents": lambda: Net(lambda s, x: s.head(s.lif(s.fc(x).clamp_(0).mul_(2)))),
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
