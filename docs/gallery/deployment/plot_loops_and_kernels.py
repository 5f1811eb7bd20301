"""
Make a loop over time fast
==========================

After this script you can speed up a network whose ``forward`` loops over time, without rewriting it (``snn.fuse``), or
by letting the library run the loop (``snn.unroll``), and you can see what runs where.
"""

import statistics
import time

import matplotlib.pyplot as plt
import torch
from torch import nn

import spikeloom as snn

torch.manual_seed(0)

# %%
# The loop
# --------
# The usual form of a spiking network in PyTorch: states are passed by hand, and results are collected in lists.


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(784, 200), snn.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(200, 10), snn.Leaky(beta=0.9)

    def forward(self, x):  # [T, B, 784]
        mem1, mem2, spikes = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for x_t in x:
            spk, mem1 = self.lif1(self.fc1(x_t), mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            spikes.append(spk)
        return torch.stack(spikes)


net = Net()
x = (torch.rand(50, 32, 784) < 0.1).float()

# %%
# fuse
# ----
# ``snn.fuse`` records the operations of one call of the loop. It then computes each matrix product over all steps at
# once, and each neuron in one kernel. The parameters are shared with ``net``.

fused = snn.fuse(net)
print(snn.explain(fused, x))
print("differing spikes:", int((fused(x) != net(x)).sum()), "of", net(x).numel())

# %%
# unroll
# ------
# If the neurons store their states, no loop is needed. ``forward`` is one step, and ``snn.unroll`` runs all of them,
# layer by layer.

layers = nn.Sequential(
    nn.Linear(784, 200),
    snn.Leaky(beta=0.9, init_hidden=True),
    nn.Linear(200, 10),
    snn.Leaky(beta=0.9, init_hidden=True),
)
layers.load_state_dict(dict(zip(layers.state_dict(), net.state_dict().values(), strict=True)))
print(snn.explain(layers, x))

# %%
# accelerate
# ----------
# Only a tenth of the input is not zero. In an accelerated copy, wide enough Linear layers add up the weights of the
# active inputs instead of multiplying by zeros.

sparse = nn.Sequential(
    nn.Linear(784, 200),
    snn.Leaky(beta=0.9, init_hidden=True),
    nn.Linear(200, 10),
    snn.Leaky(beta=0.9, init_hidden=True),
)
sparse.load_state_dict(layers.state_dict())
snn.accelerate(sparse)
print(snn.explain(sparse, x))


# %%
# Time
# ----
# A training step, forward and backward. The ways take turns, and the median of 15 rounds is shown, so that another
# process on the machine disturbs all of them alike. Times are different on every machine, so compare their ratios.


def unrolled(network):
    def run():
        snn.utils.reset(network)
        return snn.unroll(network, x)

    return run


ways = {
    "loop": lambda: net(x),
    "fuse": lambda: fused(x),
    "unroll": unrolled(layers),
    "unroll, accelerated": unrolled(sparse),
}
times = {name: [] for name in ways}
for repeat in range(17):
    for name, run in ways.items():
        begun = time.perf_counter()
        run().sum().backward()
        if repeat >= 2:  # the first rounds compile kernels
            times[name].append(1e3 * (time.perf_counter() - begun))
medians = {name: statistics.median(values) for name, values in times.items()}
for name, value in medians.items():
    print(f"{name:20} {value:6.1f} ms, {medians['loop'] / value:.1f} times as fast as the loop")

figure, panel = plt.subplots(figsize=(6, 2.4))
panel.barh(list(medians), list(medians.values()))
panel.invert_yaxis()
panel.set(xlabel="milliseconds per training step", title="50 steps, 32 samples, 784-200-10")
plt.show()
