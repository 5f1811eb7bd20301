"""
Learned delays
==============

After this script you can let a network learn *when* spikes arrive, not only how strongly they count.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import spikeloom as snn

snn.utils.seed(0)

# %%
# A pattern in time
# -----------------
# Twenty inputs fire once each, at times that never change: a rhythm. A second rhythm has the same spikes in another
# order. Every input fires exactly once in both, so counting spikes cannot tell them apart.

N, T, LATEST = 20, 70, 30
rhythm_a, rhythm_b = torch.randint(0, LATEST, (2, N))


def spikes_of(times):
    x = torch.zeros(T, 1, N)
    x[times, 0, torch.arange(N)] = 1.0
    return x


x = torch.cat([spikes_of(rhythm_a), spikes_of(rhythm_b)], 1)  # [T, B = 2, N]

# %%
# Delays make spikes coincide
# ---------------------------
# A leaky neuron with a short memory fires only if many spikes arrive together. ``SynapticDelay`` holds back each input
# by its own number of steps. If early inputs have long delays and late inputs short ones, all spikes of the rhythm
# arrive at once. The weights are fixed at 0.1; only the 20 delays are learned.

delay = snn.SynapticDelay(N, max_delay=LATEST, learn_delay=True)
neuron = snn.Leaky(beta=0.6, threshold=1.2, init_hidden=True, output=True)
add = nn.Linear(N, 1, bias=False).requires_grad_(False)
add.weight.fill_(0.1)
net = nn.Sequential(delay, add, neuron)
before = delay.delay.detach().clone()


def run():
    snn.utils.reset(net)
    return snn.unroll(net, x)


# %%
# The loss asks for a high membrane at step 30 of rhythm A. The delays are real numbers that are rounded in the forward
# pass; their gradient comes from a window of steps around each delay. A wide window finds distant delays, a narrow one
# refines them, so ``sigma`` shrinks during training.

optimizer = torch.optim.Adam(net.parameters(), lr=0.3)
peaks = []
for update in range(150):
    delay.sigma = max(0.5, 8 * (1 - update / 120))
    spk, mem = run()
    loss = -mem[30, 0].sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    delay.delay.data.clamp_(0, LATEST)
    peaks.append(mem[..., 0].amax(0).tolist())
figure, panel = plt.subplots()
for values, name in zip(zip(*peaks, strict=True), ("rhythm A", "rhythm B"), strict=True):
    panel.plot(values, label=name)
panel.axhline(1.2, color="C6", linestyle="--", linewidth=1, label="threshold")
panel.set(xlabel="update", ylabel="peak of the membrane", title="Only the delays are learned")
panel.legend()
plt.show()

# %%
# Before and after
# ----------------

figure, panels = plt.subplots(2, 2, figsize=(6, 4.5), sharex=True, height_ratios=(2, 1))
for column, (delays, title) in enumerate(
    ((before, "initial delays"), (delay.delay.detach().clone(), "learned delays"))
):
    delay.delay.data.copy_(delays)
    with torch.no_grad():
        spk, mem = run()
    top, bottom = panels[:, column]
    for times, color in ((rhythm_a, "C0"), (rhythm_b, "C1")):
        top.plot(times + delays.round(), torch.arange(N), "o", markersize=4, color=color)
    top.set(title=title, ylabel="input" if column == 0 else None)
    bottom.plot(mem[:, 0], color="C0", label="A")
    bottom.plot(mem[:, 1], color="C1", label="B")
    bottom.axhline(1.2, color="C6", linestyle="--", linewidth=1)
    bottom.set(xlabel="step", ylim=(-0.7, 2.2))
    arrival = (rhythm_a + delays.round()).float()
    print(
        f"{title}: the spikes of A arrive within {arrival.max() - arrival.min() + 1:.0f} steps;",
        end=" ",
    )
    print(
        f"the neuron fires {int(spk[:, 0].sum())} times for A, {int(spk[:, 1].sum())} times for B"
    )
panels[1, 0].set_ylabel("membrane")
panels[1, 0].legend(ncols=2, loc="lower right")
plt.show()

# %%
# The blue points are the arrivals of rhythm A. They line up at step 30, so the neuron fires for A, and not for B.
#
# ``SynapticDelay`` has one delay per input (the axon). ``snn.DelayedLinear`` has a weight and a delay per connection,
# and replaces an ``nn.Linear``.
