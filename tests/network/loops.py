"""Loops over time as people write them: functions of a network and an input, for the tests of `fuse`.

Each takes the parts of a `Parts` network, so that few kernels are compiled, and an input x of [T, B, 6].
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn

T, B, IN, N, OUT = 7, 3, 6, 8, 4
Loop = Callable[[Any, Tensor], Any]


class Parts(nn.Module):
    """The layers from which the loops take what they need."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.back = nn.Linear(IN, N), nn.Linear(N, OUT), nn.Linear(OUT, N)
        self.same = nn.Linear(N, N)
        self.lif1, self.lif2 = snn.Leaky(beta=0.9, threshold=0.5), snn.Leaky(beta=0.8, threshold=0.3)
        self.lif3 = snn.Leaky(beta=0.9, threshold=0.5)
        self.hid1 = snn.Leaky(beta=0.9, threshold=0.5, init_hidden=True)
        self.hid2 = snn.Leaky(beta=0.8, threshold=0.3, init_hidden=True, output=True)
        self.learned = snn.Leaky(beta=torch.full((N,), 0.8), threshold=0.5, learn_beta=True, learn_threshold=True)
        self.syn = snn.Synaptic(alpha=0.7, beta=0.9, threshold=0.5)
        self.rec = snn.RLeaky(beta=0.9, threshold=0.5, linear_features=N)
        self.one = snn.RLeaky(beta=0.9, threshold=0.5, V=0.4, all_to_all=False)
        self.lstm = snn.SLSTM(N, N, threshold=0.1)
        self.norm, self.norms = nn.BatchNorm1d(N), nn.ModuleList([nn.BatchNorm1d(N) for _ in range(T)])
        self.drop, self.layer_norm = nn.Dropout(0.4), nn.LayerNorm(N)
        self.start, self.gain = nn.Parameter(torch.full((N,), 0.2)), nn.Parameter(torch.full((N,), 1.1))
        self.conv, self.pool = nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(2 * 2 * 3, N), nn.ReLU(), nn.Linear(N, OUT))
        self.tuple: Any = None
        self.stored: list[Tensor] = []


def states_by_hand(p: Parts, x: Tensor) -> Any:
    mem1, mem2, spks, mems = p.lif1.init_leaky(), p.lif2.init_leaky(), [], []
    for step in range(T):
        spk1, mem1 = p.lif1(p.fc1(x[step]), mem1)
        spk2, mem2 = p.lif2(p.fc2(spk1), mem2)
        spks.append(spk2)
        mems.append(mem2)
    return torch.stack(spks), torch.stack(mems)


def static_input(p: Parts, x: Tensor) -> Any:
    mem1, mem2, mems = p.lif1.init_leaky(), p.lif2.init_leaky(), []
    for _ in range(T):
        spk1, mem1 = p.lif1(p.fc1(x[0]), mem1)
        mem2 = p.lif2(p.fc2(spk1), mem2)[1]
        mems.append(mem2)
    return torch.stack(mems, dim=0)


def hidden_states(p: Parts, x: Tensor) -> Any:
    snn.utils.reset(p)
    return torch.stack([p.hid2(p.fc2(p.hid1(p.fc1(x_t))))[0] for x_t in x])


def mixed_states(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for step, x_t in enumerate(x):
        spk, mem = p.lif1(p.fc1(x_t) * (1 + step % 2), mem)
        out.append(p.hid2(p.fc2(spk))[1])
    return torch.stack(out), mem


def batch_first(p: Parts, x: Tensor) -> Any:
    x, mem, out = x.transpose(0, 1), p.lif1.init_leaky(), []
    for step in range(x.size(1)):
        spk, mem = p.lif1(p.fc1(x[:, step]), mem)
        out.append(spk)
    return torch.stack(out, dim=1)


def unbound(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for x_t, y_t in zip(x.unbind(0), x.flip(0), strict=True):
        spk, mem = p.lif1(p.fc1(x_t) - p.fc1(y_t), mem)
        out += [spk]
    return torch.cat(out), torch.stack(out, 1)


def in_a_while(p: Parts, x: Tensor) -> Any:
    mem, step, total = p.lif1.init_leaky(), 0, 0
    while step < len(x):
        spk, mem = p.lif1(p.fc1(x[step]), mem)
        total, step = total + spk, step + 1
    return total, mem


def encoder_decoder(p: Parts, x: Tensor) -> Any:
    mem1, mem2, code = p.lif1.init_leaky(), p.lif3.init_leaky(), 0
    for x_t in x:
        spk, mem1 = p.lif1(p.fc1(x_t), mem1)
        code = code + spk
    out = []
    for _ in range(5):
        spk, mem2 = p.lif3(p.same(code / T), mem2)
        out.append(p.fc2(spk))
    return torch.stack(out)


def nested(p: Parts, x: Tensor) -> Any:
    mem1, mem2, out = p.lif1.init_leaky(), p.lif3.init_leaky(), []
    for x_t in x:
        for _ in range(3):
            spk, mem1 = p.lif1(p.fc1(x_t), mem1)
        spk, mem2 = p.lif3(p.same(spk), mem2)
        out.append(spk)
    return torch.stack(out)


def loop_over_samples(p: Parts, x: Tensor) -> Any:
    every = []
    for sample in range(B):
        mem, total = p.lif1.init_leaky(), torch.zeros(1, N)
        for x_t in x[:, sample : sample + 1]:
            spk, mem = p.lif1(p.fc1(x_t), mem)
            total += spk
        every.append(total)
    return torch.cat(every)


def shared_linear(p: Parts, x: Tensor) -> Any:
    mem1, mem2, mem3, out = p.lif1.init_leaky(), p.lif3.init_leaky(), p.lif3.init_leaky(), []
    for x_t in x:
        spk, mem1 = p.lif1(p.fc1(x_t), mem1)
        spk, mem2 = p.lif3(p.same(spk), mem2)
        spk, mem3 = p.lif3(p.same(spk), mem3)  # and a shared neuron, with states of its own
        out.append(spk)
    return torch.stack(out)


def residuals(p: Parts, x: Tensor) -> Any:
    mem1, mem2, out = p.lif1.init_leaky(), p.lif3.init_leaky(), []
    for x_t in x:
        cur = p.fc1(x_t)
        spk, mem1 = p.lif1(cur, mem1)
        other, mem2 = p.lif3(p.same(spk) + cur, mem2)
        out.append(torch.cat((spk, other, cur.detach()), 1))
    return torch.stack(out)


def several_neurons(p: Parts, x: Tensor) -> Any:
    syn, mem1 = p.syn.init_synaptic()
    spk2, mem2 = p.rec.init_rleaky()
    spk3, mem3 = p.one.init_rleaky()
    mem4, out = p.learned.init_leaky(), []
    for x_t in x:
        spk, syn, mem1 = p.syn(p.fc1(x_t), syn, mem1)
        spk2, mem2 = p.rec(spk, spk2, mem2)
        spk3, mem3 = p.one(spk2, spk3, mem3)
        spk, mem4 = p.learned(p.same(spk3) + spk2, mem4)
        out.append((spk, mem4))
    return torch.stack([spk for spk, _ in out]), [mem for _, mem in out]


def lstm(p: Parts, x: Tensor) -> Any:
    syn, mem = p.lstm.init_slstm()
    out = []
    for x_t in x:
        spk, syn, mem = p.lstm(p.fc1(x_t), syn, mem)
        out.append(spk)
    return torch.stack(out), syn


def preallocated(p: Parts, x: Tensor) -> Any:
    out, mems, mem = torch.zeros(T, B, N), x.new_zeros(T + 1, B, N), p.lif1.init_leaky()
    for step in range(T):
        spk, mem = p.lif1(p.fc1(x[step]), mem)
        out[step] = spk
        mems[step + 1] = mem
    return out, mems


def running_sums(p: Parts, x: Tensor) -> Any:
    mem, total, most = p.lif1.init_leaky(), torch.zeros(B, N), torch.full((B, N), -1.0)
    for x_t in x:
        spk, mem = p.lif1(p.fc1(x_t), mem)
        total += spk
        most = torch.maximum(most, mem)
    return total / T, most


def last_step_alone(p: Parts, x: Tensor) -> Any:
    mem1, mem2 = p.lif1.init_leaky(), p.lif2.init_leaky()
    for x_t in x:
        spk, mem1 = p.lif1(p.fc1(x_t), mem1)
        spk, mem2 = p.lif2(p.fc2(spk), mem2)
    return {"spk": spk, "mem": mem2}


def conditions_on_the_step(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for step in range(T):
        cur = p.fc1(x[step])
        if step < 2:
            cur = cur * 0.5
        if step % 3 == 0:
            cur = cur + p.gain
        spk, mem = p.lif1(cur, mem)
        if step >= 4:
            out.append(p.fc2(spk))
    return torch.stack(out)


def learned_start(p: Parts, x: Tensor) -> Any:
    mem, out = p.start.expand(B, N), []
    for x_t in x:
        spk, mem = p.lif1(p.fc1(x_t), mem)
        out.append(spk)
    return out, mem


def starts_of_all_kinds(p: Parts, x: Tensor) -> Any:
    mem1, mem2, out = torch.zeros(B, N), torch.rand(B, N), []
    for x_t in x:
        spk, mem1 = p.lif1(p.fc1(x_t), mem1)
        spk, mem2 = p.lif3(spk, mem2)
        out.append(spk)
    return torch.stack(out)


def from_earlier_calls(p: Parts, x: Tensor) -> Any:
    mem = p.lif1.init_leaky() if p.tuple is None else p.tuple.detach()
    for x_t in x:
        spk, mem = p.lif1(p.fc1(x_t), mem)
    p.tuple = mem
    return spk


def encoder_in_the_loop(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for _ in range(T):
        spk, mem = p.lif1(p.fc1(snn.spikegen.rate(x[0].sigmoid(), num_steps=1)[0]), mem)
        out.append(spk)
    return torch.stack(out)


def own_noise(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for x_t in x:
        cur = p.fc1(x_t)
        spk, mem = p.lif1(cur + 0.3 * torch.randn_like(cur), mem)
        out.append(spk * (torch.rand(B, N) < 0.5))
    return torch.stack(out)


def truncated(p: Parts, x: Tensor) -> Any:
    mem, out = p.lif1.init_leaky(), []
    for step, x_t in enumerate(x):
        _, mem = p.lif1(p.fc1(x_t), mem)
        if step % 3 == 2:
            mem.detach_()
        out.append(mem.clone())
    return torch.stack(out)


def truncated_by_detach(p: Parts, x: Tensor) -> Any:
    out = []
    for step, x_t in enumerate(x):
        out.append(p.hid2(p.fc2(p.hid1(p.fc1(x_t))))[1])
        if step % 3 == 2:
            snn.utils.detach(p)
    return torch.stack(out)


COMMON_LOOPS: list[Loop] = [
    *(states_by_hand, static_input, hidden_states, mixed_states, batch_first, unbound, in_a_while),
    *(encoder_decoder, nested, loop_over_samples, shared_linear, residuals, several_neurons, lstm),
    *(preallocated, running_sums, last_step_alone, conditions_on_the_step, learned_start),
    *(starts_of_all_kinds, from_earlier_calls, encoder_in_the_loop, own_noise, truncated),
    *(truncated_by_detach,),
]
"""The table."""
