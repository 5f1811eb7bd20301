"""
From numbers to spikes
======================

After this script you can choose a spike code for your data: rate, latency, delta, phase, burst or population.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

import spikeloom as snn
from spikeloom import spikegen

torch.manual_seed(0)

# %%
# One image in four codes
# -----------------------
# A spiking network reads spikes over time, so an image must become a sequence ``[T, ...]``. Each function of
# ``spikegen`` takes values between 0 and 1, and adds the time dimension in front.

image = torch.tensor(load_digits().images[2] / 16, dtype=torch.float32)  # a 2, 8 x 8 pixels
T = 25
codes = {
    "rate": spikegen.rate(image, num_steps=T),
    "latency": spikegen.latency(image, num_steps=T, normalize=True, linear=True, clip=True),
    "phase": spikegen.phase(image, num_steps=T, period=8, weighted=False),
    "burst": spikegen.burst(image, num_steps=T, max_spikes=6),
}
figure, panels = plt.subplot_mosaic(
    [["image", "image"], ["rate", "latency"], ["phase", "burst"]],
    figsize=(6, 7),
    height_ratios=(1, 1.3, 1.3),
)
panels["image"].imshow(image, cmap="gray_r")
panels["image"].set(xticks=[], yticks=[], title="64 pixels")
for name, spk in codes.items():
    snn.spikeplot.raster(spk, panels[name])
    panels[name].set(title=name, ylabel="pixel")
    print(f"{name:8} {int(spk.count_nonzero()):4d} spikes, {tuple(spk.shape)}")
plt.show()

# %%
# - **rate**: a pixel fires at each step with its brightness as the probability. Robust, but needs many spikes.
# - **latency**: a pixel fires once, the brighter the earlier. ``clip`` drops black pixels. Few spikes, fast decisions.
# - **phase**: the binary digits of the value, most significant first, repeated every 8 steps.
# - **burst**: a brighter pixel fires more often, at shorter intervals.
#
# How long must a rate code run?
# ------------------------------
# The share of steps with a spike estimates the value. Its standard error falls with the square root of the number of
# steps, so ten times the accuracy costs a hundred times the steps.

steps = torch.tensor([5, 10, 25, 50, 100, 250, 500, 1000])
spk = spikegen.rate(torch.full((2000,), 0.3), num_steps=1000)  # 2000 neurons with the same value
errors = torch.stack([(spk[:t].mean(0) - 0.3).std() for t in steps.tolist()])
figure, panel = plt.subplots()
panel.loglog(steps, errors, "o", label="measured")
panel.loglog(
    steps, (0.3 * 0.7 / steps) ** 0.5, color="C6", linewidth=1, label="(p (1 - p) / T) ** 0.5"
)
panel.set(
    xlabel="steps T", ylabel="standard error of the rate", title="Reading 0.3 from a rate code"
)
panel.set_yticks([0.02, 0.05, 0.1, 0.2], [0.02, 0.05, 0.1, 0.2])
panel.minorticks_off()
panel.legend()
plt.show()
for t, error in zip(steps.tolist(), errors.tolist(), strict=True):
    print(f"{t:4d} steps: 0.3 +- {error:.3f}")

# %%
# Latency, linear or logarithmic
# ------------------------------
# The logarithmic latency is the time at which a leaky membrane with this input reaches the threshold. It spreads dark
# values; ``linear=True`` spreads all values evenly.

values = torch.linspace(0, 1, 60)
figure, panel = plt.subplots()
for linear in (False, True):
    spk = spikegen.latency(values, num_steps=100, normalize=True, linear=linear)
    panel.plot(
        values, spk.argmax(0), "o", markersize=3, label="linear" if linear else "logarithmic"
    )
panel.set(xlabel="value", ylabel="step of the spike", title="Brighter is earlier")
panel.legend()
plt.show()

# %%
# Changes of a signal
# -------------------
# ``delta`` fires where a sequence has risen by the threshold since the step before, and with ``off_spike=True`` sends
# -1 where it has fallen. A constant signal costs nothing.

t = torch.linspace(0, 4 * torch.pi, 200)
signal = torch.sin(t) * torch.exp(-0.15 * t)
spk = spikegen.delta(signal, threshold=0.015, padding=True, off_spike=True)
figure, panels = plt.subplots(2, 1, sharex=True, height_ratios=(3, 1))
panels[0].plot(signal)
panels[0].set(
    ylabel="signal", title=f"{int((spk > 0).sum())} spikes up, {int((spk < 0).sum())} down"
)
for sign, color in ((1, "C1"), (-1, "C2")):
    panels[1].eventplot(
        (spk == sign).nonzero().flatten(), colors=color, lineoffsets=0.5 * sign, linelengths=0.9
    )
panels[1].set(yticks=[0.5, -0.5], yticklabels=["up", "down"], xlabel="step")
plt.show()

# %%
# Targets
# -------
# Labels become spikes too. ``targets_rate`` lets the neuron of the right class fire often and the others rarely, and
# ``to_one_hot`` gives the plain one-hot vectors.

targets = spikegen.targets_rate(
    torch.tensor([2]), num_classes=4, num_steps=20, correct_rate=0.8, incorrect_rate=0.1
)
print("spikes per class for the label 2:", targets[:, 0].sum(0).int().tolist())

# %%
# Next: :ref:`sphx_glr_tutorials_codes_plot_population_codes.py`, :ref:`sphx_glr_tutorials_codes_plot_event_camera.py`,
# and :ref:`sphx_glr_tutorials_codes_plot_sound.py`.
