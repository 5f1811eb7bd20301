"""
Decide by the first spike
=========================

After this script you can train a network whose answer is the neuron that fires *first*: it decides after a few steps
and with few spikes.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import spikeloom as snn
from spikeloom import functional as SF
from spikeloom import spikegen

# %%
# Spikes in, a spike out
# ----------------------
# Each pixel fires once, the brighter the earlier (latency code). Two networks of the same size learn the digits. One
# counts output spikes; its loss is the cross-entropy of the counts. The other is trained on times: the loss is the
# cross-entropy of the first spike times, so that the right neuron learns to be first.

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
T = 20
spikes = spikegen.latency(
    images, num_steps=T, normalize=True, linear=True, clip=True
)  # [T, 1797, 64]
print(f"{spikes.sum((0, 2)).mean():.0f} input spikes per digit")


def train(loss_of, accuracy_of):
    """Return the accuracies per epoch, and the output spikes of the test digits."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 100),
        snn.Leaky(beta=0.95, init_hidden=True),
        nn.Linear(100, 10),
        snn.Leaky(beta=0.95, init_hidden=True),
    )
    with torch.no_grad():
        net[0].weight.mul_(2)  # one spike per input is little
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    history = []
    for _ in range(8):
        for batch in torch.randperm(1400).split(64):
            snn.utils.reset(net)
            loss = loss_of(snn.unroll(net, spikes[:, batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        snn.utils.reset(net)
        with torch.no_grad():
            spk = snn.unroll(net, spikes[:, 1400:])
        history.append(100 * float(accuracy_of(spk, labels[1400:])))
    return history, spk


runs = {
    "most spikes": train(SF.ce_count_loss(), SF.accuracy_rate),
    "first spike": train(SF.ce_temporal_loss(), SF.accuracy_temporal),
}
figure, panel = plt.subplots()
snn.spikeplot.learning_curve({name: history for name, (history, _) in runs.items()}, panel)
panel.set(ylabel="test accuracy in %", title="Digits")
plt.show()

# %%
# When is the answer there?
# -------------------------
# With the temporal loss the answer is known at the first output spike; nothing after it need be computed. The network
# waits for more evidence where it needs it. The price is a few percent of accuracy.

first = {
    name: (spk.cumsum(0) > 0).any(2).float().argmax(0).float() for name, (_, spk) in runs.items()
}
for name, (history, spk) in runs.items():
    print(
        f"{name}: {history[-1]:.1f} %, {spk.sum((0, 2)).mean():.1f} output spikes per digit,",
        end=" ",
    )
    print(f"the first at step {first[name].mean():.1f} on average")
figure, panel = plt.subplots()
panel.hist(first["first spike"], bins=torch.arange(-0.5, T + 0.5), rwidth=0.8)
panel.set(
    xlabel="step of the first output spike",
    ylabel="test digits",
    title="Time of the decision",
    xlim=(-0.5, T),
    xticks=range(0, T, 5),
)
plt.show()

# %%
# One digit
# ---------
# The output spikes of both networks for the first test digit that both get right; gray: its class.

digits = torch.arange(397)
counted, timed = (spk for _, spk in runs.values())
right = counted.sum(0).argmax(1) == labels[1400:]
right &= (
    timed[first["first spike"].long(), digits, labels[1400:]] > 0
)  # its neuron fires at the first output spike
n = int(right.nonzero()[0])
figure, panels = plt.subplots(1, 2, figsize=(6, 2.8), sharex=True, sharey=True)
for panel, (name, (_, spk)) in zip(panels, runs.items(), strict=True):
    snn.spikeplot.raster(spk[:, n], panel, s=25, c="C0")
    panel.axhspan(labels[1400 + n] - 0.4, labels[1400 + n] + 0.4, color="0.9", zorder=0)
    panel.set(title=name, ylabel="class", yticks=range(10), xlim=(-1, T))
plt.show()
