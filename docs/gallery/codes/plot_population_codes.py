"""
Population codes
================

After this script you can encode a number by a group of neurons, read it back, and let several output neurons vote for
a class.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import spikeloom as snn
from spikeloom import functional as SF
from spikeloom import spikegen

torch.manual_seed(0)

# %%
# Receptive fields
# ----------------
# Each of ``m`` neurons prefers one value and responds less to others, along a Gaussian. Together they cover the range.

values = torch.linspace(0, 1, 201)
fields = spikegen.receptive_fields(values, num_neurons=8)
figure, panel = plt.subplots()
panel.plot(values, fields, color="C0", linewidth=1)
panel.plot(torch.full((8,), 0.4), fields[80], "o", color="C1")
panel.axvline(0.4, color="C6", linestyle="--", linewidth=1)
panel.set(xlabel="value", ylabel="response", title="8 neurons, and their responses to 0.4")
plt.show()

# %%
# Encode
# ------
# With ``code="latency"`` a neuron that responds more fires earlier, once. With ``code="rate"`` the response is its
# probability to fire at each step.

figure, panels = plt.subplots(1, 2, figsize=(6, 2.8), sharey=True)
for panel, code in zip(panels, ("latency", "rate"), strict=True):
    spk = spikegen.population(torch.tensor(0.4), num_steps=20, num_neurons=8, code=code)
    snn.spikeplot.raster(spk, panel, s=40, c="C0")
    panel.set(title=f'code="{code}"', xlim=(-1, 20))
    print(f"{code:8} {int(spk.sum())} spikes")
plt.show()

# %%
# Decode
# ------
# The mean of the preferred values, weighted by the spike counts, reads the value back. More neurons give a more exact
# answer, because their errors average out. The preferred values are the maxima of the fields.

truth = torch.rand(1000) * 0.8 + 0.1
errors = []
sizes = (4, 8, 16, 32, 64)
for m in sizes:
    grid = torch.linspace(-0.5, 1.5, 4001)
    preferred = grid[spikegen.receptive_fields(grid, num_neurons=m).argmax(0)]
    counts = spikegen.population(truth, num_steps=20, num_neurons=m, code="rate").sum(
        0
    )  # [1000, m]
    guess = (counts * preferred).sum(1) / counts.sum(1).clamp(min=1)
    errors.append((guess - truth).square().mean().sqrt().item())
    print(f"{m:2d} neurons: root mean squared error {errors[-1]:.4f}")
figure, panel = plt.subplots()
panel.loglog(sizes, errors, "o-")
panel.set(
    xlabel="number of neurons", ylabel="error", title="Reading a value from a population, 20 steps"
)
panel.set_xticks(sizes, sizes)
panel.set_yticks([0.002, 0.005, 0.01, 0.02, 0.05], [0.002, 0.005, 0.01, 0.02, 0.05])
panel.minorticks_off()
plt.show()

# %%
# A population at the output
# --------------------------
# One output neuron per class can fire at most once per step. With three steps, its count is 0, 1, 2 or 3, and ties
# are frequent. Ten neurons per class vote with counts from 0 to 30. The losses take ``population_code=True``.

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
STEPS = 3


def train(per_class):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 100),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(100, 10 * per_class),
        snn.Leaky(beta=0.9, init_hidden=True),
    )
    options = {"population_code": True, "num_classes": 10}
    loss_of = SF.ce_count_loss(**options)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    history = []
    for _ in range(8):
        for batch in torch.randperm(1500).split(64):
            snn.utils.reset(net)
            loss = loss_of(snn.unroll(net, images[batch], steps=STEPS), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        snn.utils.reset(net)
        with torch.no_grad():
            spk = snn.unroll(net, images[1500:], steps=STEPS)
        history.append(100 * float(SF.accuracy_rate(spk, labels[1500:], **options)))
    return history


history = {f"{n} neuron{'s' * (n > 1)} per class": train(n) for n in (1, 10)}
figure, panel = plt.subplots()
snn.spikeplot.learning_curve(history, panel)
panel.set(ylabel="test accuracy in %", title=f"Digits in {STEPS} steps")
plt.show()
for name, curve in history.items():
    print(f"{name}: {curve[-1]:.1f} % of the test digits")

# %%
# The population is ahead in the first epochs. With enough training, single neurons catch up on this easy task. A
# population also keeps working when some of its neurons fail.
