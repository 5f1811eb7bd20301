"""
STDP: learning without a loss
=============================

After this script you can train a neuron by spike timing alone: it finds, without labels, the inputs that fire together.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import spikeloom as snn
from spikeloom.functional.stdp_learner import STDPLearner

torch.manual_seed(0)

# %%
# The rule
# --------
# An input spike shortly *before* a spike of the neuron may have caused it: the weight grows. An input spike shortly
# *after* cannot have: the weight shrinks. The change falls off exponentially with the time between both. Here it is
# measured by a pair of spikes at each distance; the neuron's spikes are forced by a strong second input.

offsets = torch.arange(-40, 41)
changes = []
for offset in offsets.tolist():
    fc, neuron = nn.Linear(2, 1, bias=False), snn.Leaky(beta=0.0, init_hidden=True)
    with torch.no_grad():
        fc.weight.copy_(
            torch.tensor([[0.0, 5.0]])
        )  # the first input has no influence, the second forces a spike
    learner = STDPLearner(fc, neuron, 15.0, 15.0, f_pre=lambda w: 0.012, f_post=lambda w: 0.01)
    x = torch.zeros(100, 1, 2)
    x[50 - offset, 0, 0] = 1.0  # the input spike, `offset` steps before the spike of the neuron
    x[50, 0, 1] = 1.0
    with torch.no_grad():
        snn.unroll(nn.Sequential(fc, neuron), x)
    changes.append(learner.step(on_grad=False)[0, 0].item())
figure, panel = plt.subplots()
panel.axhline(0, color="C6", linewidth=1)
panel.plot(offsets, changes, "o", markersize=3)
panel.set(
    xlabel="spike of the neuron - spike of the input, in steps",
    ylabel="change of the weight",
    title="The window",
)
plt.show()
print(
    f"input 5 steps before: {changes[45]:+.4f}; 5 steps after: {changes[35]:+.4f}; together: {changes[40]:+.4f}"
)

# %%
# Inputs that fire together
# -------------------------
# A neuron has 100 inputs. All fire at the same mean rate, but the first 30 follow a common, hidden signal: they often
# fire within the same few steps. No label says so.

N, GROUP, T, RATE = 100, 30, 500, 0.04


def inputs():
    common = (torch.rand(T) < 0.05).float()
    rate = torch.full((T, N), RATE)
    rate[:, :GROUP] = 0.4 * RATE + 0.6 * RATE / 0.05 * common[:, None]  # the same mean rate
    return torch.bernoulli(rate)[:, None]  # [T, B = 1, N]


x = inputs()
print(
    f"mean rates: {x[..., :GROUP].mean():.3f} in the group, {x[..., GROUP:].mean():.3f} elsewhere"
)
figure, panel = plt.subplots()
snn.spikeplot.raster({"group": x[:150, 0, :GROUP], "others": x[:150, 0, GROUP:]}, panel)
panel.set_title("150 steps of the input: columns appear in the group")
plt.show()

# %%
# Learn
# -----
# ``STDPLearner`` records the spikes before and after the layer, also of an unrolled run. ``step()`` computes the
# change and subtracts it from the gradient, so that an optimizer with learning rate 1 applies it. The window for
# weakening is a little larger than that for strengthening, so a weight whose spikes are unrelated to those of the
# neuron shrinks.

fc, neuron = nn.Linear(N, 1, bias=False), snn.Leaky(beta=0.8, init_hidden=True)
net = nn.Sequential(fc, neuron)
with torch.no_grad():
    fc.weight.uniform_(0.15, 0.25)
learner = STDPLearner(fc, neuron, 10.0, 10.0, f_pre=lambda w: 0.0022, f_post=lambda w: 0.002)
optimizer = torch.optim.SGD(fc.parameters(), lr=1.0)
history, rates = [fc.weight[0].detach().clone()], []
for _ in range(60):
    for chunk in inputs().split(50):  # the weights change after every 50 steps
        with torch.no_grad():
            spk = snn.unroll(net, chunk)
        optimizer.zero_grad()
        learner.step()
        optimizer.step()
        fc.weight.data.clamp_(0, 0.5)
        rates.append(spk.mean().item())
    history.append(fc.weight[0].detach().clone())
weights = torch.stack(history)
print(
    f"mean weight of the group:  {weights[0, :GROUP].mean():.2f} -> {weights[-1, :GROUP].mean():.2f}"
)
print(
    f"mean weight of the others: {weights[0, GROUP:].mean():.2f} -> {weights[-1, GROUP:].mean():.2f}"
)

figure, panels = plt.subplots(1, 2, figsize=(6, 3), sharey=True, width_ratios=(2, 1))
panels[0].plot(weights[:, GROUP:], color="C1", linewidth=0.6, alpha=0.5)
panels[0].plot(weights[:, :GROUP], color="C0", linewidth=0.6, alpha=0.5)
panels[0].set(xlabel="500 steps each", ylabel="weight", title="Weights over time")
for part, color, name in ((slice(0, GROUP), "C0", "group"), (slice(GROUP, N), "C1", "others")):
    panels[1].hist(
        weights[-1, part],
        bins=20,
        range=(0, 0.5),
        orientation="horizontal",
        color=color,
        label=name,
        alpha=0.7,
    )
panels[1].set(xlabel="inputs", title="At the end")
panels[1].legend()
plt.show()

# %%
# The neuron has selected the group: it now fires on the hidden signal.
