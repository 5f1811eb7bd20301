"""
Fewer spikes: regularize firing rates
=====================================

After this script you can train a network that fires less, wake neurons that never fire, and read off what a spike costs
in operations.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import spikeloom as snn
from spikeloom import functional as SF

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
STEPS = 15

# %%
# A penalty on hidden spikes
# --------------------------
# On digital neuromorphic hardware every spike costs energy, so a network that fires less is cheaper. ``snn.tap`` with
# ``graph=True`` records the spikes of a hidden layer together with their gradients, so a penalty on them can be added
# to the loss:
#
# - ``l1_rate_sparsity(Lambda)``: ``Lambda`` times the number of spikes;
# - ``rate_upper_bound(bound, Lambda)``: only rates above the bound cost;
# - ``rate_lower_bound(bound, Lambda)``: only rates below the bound cost. It wakes silent neurons.


def train(*penalties, gain=1.0):
    """Return the test accuracy in %, the firing rate per neuron, and the network."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 100),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(100, 10),
        snn.Leaky(beta=0.9, init_hidden=True),
    )
    with torch.no_grad():
        net[0].weight.mul_(gain)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    loss_of = SF.ce_count_loss()
    for _ in range(5):
        for batch in torch.randperm(1400).split(64):
            snn.utils.reset(net)
            with snn.tap(net, graph=True) as record:
                spk = snn.unroll(net, images[batch], steps=STEPS)
            loss = loss_of(spk, labels[batch]) + sum(
                penalty(record["1"].spk) for penalty in penalties
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    snn.utils.reset(net)
    with torch.no_grad(), snn.tap(net) as record:
        spk = snn.unroll(net, images[1400:], steps=STEPS)
    return 100 * float(SF.accuracy_rate(spk, labels[1400:])), record["1"].spk.mean((0, 1)), net


# %%
# Accuracy against spikes
# -----------------------
# A stronger bound costs spikes first, accuracy much later.

runs = {
    "no penalty": train(),
    "at most 10 %": train(SF.rate_upper_bound(0.10, Lambda=100)),
    "at most 5 %": train(SF.rate_upper_bound(0.05, Lambda=100)),
    "at most 2 %": train(SF.rate_upper_bound(0.02, Lambda=1000)),
}
figure, panel = plt.subplots()
for name, (accuracy, rates, _) in runs.items():
    panel.plot(100 * rates.mean(), accuracy, "o", markersize=9, label=name)
    print(
        f"{name:13} hidden neurons fire at {rates.mean():.1%} of the steps, accuracy {accuracy:.1f} %"
    )
panel.set(
    xlabel="hidden spikes per neuron and step, in %",
    ylabel="test accuracy in %",
    title="The price of fewer spikes",
)
panel.set(xlim=(0, None), ylim=(80, 100))
panel.legend(loc="lower right")
plt.show()

# %%
# What it saves
# -------------
# ``snn.metrics.measure`` counts operations as NeuroBench does: an accumulate (AC) per spike and weight.

for name in ("no penalty", "at most 2 %"):
    measured = snn.metrics.measure(runs[name][2], images[1400:], labels[1400:], steps=STEPS)
    print(
        f"{name:13} {measured.synaptic_operations['Effective_ACs']:,.0f} accumulate operations per digit"
    )

# %%
# Silent neurons
# --------------
# With small initial weights some neurons never fire, and learn little. A lower bound, which holds for every neuron and
# every digit, wakes most of them. The lower and the upper bound together keep all neurons in a range.

ranges = {
    "no penalty": train(gain=0.3)[1],
    "at least 3 %": train(SF.rate_lower_bound(0.03, Lambda=20), gain=0.3)[1],
}
figure, panel = plt.subplots()
for name, rates in ranges.items():
    panel.plot(range(100), 100 * rates.sort().values, ".", label=name)
    print(f"{name:13} {(rates == 0).sum()} of 100 neurons are silent")
panel.set(
    xlabel="neuron, sorted", ylabel="spikes per step, in %", title="Rates of the hidden neurons"
)
panel.legend()
plt.show()
