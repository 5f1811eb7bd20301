"""
Adaptive neurons
================

After this script you can use neurons that fire less the longer a stimulus lasts, and recognize the firing patterns of
the Izhikevich neuron by their four parameters.
"""

import matplotlib.pyplot as plt
import torch

import spikeloom as snn

# %%
# A current that stays the same
# -----------------------------
# The input is 0 for 20 steps, then constant. ``Leaky`` fires at a constant rate. ``ALIF`` raises its threshold at every
# spike, and the threshold decays back slowly. ``AdLIF`` subtracts a current instead, which grows with the spikes.

T = 300
x = torch.zeros(T, 1)
x[20:] = 1.0
runs = {
    "Leaky": (snn.Leaky(beta=0.9), 0.4 * x),
    "ALIF": (snn.ALIF(beta=0.9, rho=0.98, kappa=0.3), 0.4 * x),
    "AdLIF": (snn.AdLIF(beta=0.9, rho=0.98, a=0.0, b=0.3), 4.0 * x),
}


def intervals(spk):
    """Steps between consecutive spikes."""
    return spk.flatten().nonzero().flatten().diff()


figure, panels = plt.subplots(3, 1, figsize=(6, 4.5), sharex=True)
for panel, (name, (neuron, current)) in zip(panels, runs.items(), strict=True):
    spk, mem, *rest = snn.unroll(neuron, current)
    times = spk.flatten().nonzero().flatten()
    panel.plot(mem.flatten(), linewidth=1)
    threshold = 1 + 0.3 * rest[0].flatten() if name == "ALIF" else torch.ones(T)
    panel.plot(threshold, color="C6", linestyle="--", linewidth=1)
    panel.eventplot(
        times,
        colors="C1",
        lineoffsets=1.25 * max(mem.max(), threshold.max()).item(),
        linelengths=0.4,
    )
    panel.set(title=name, ylabel="membrane")
    gaps = intervals(spk).tolist()
    print(f"{name:6} intervals between spikes: {gaps[:4]} at first, {gaps[-4:]} at last")
panels[-1].set_xlabel("step")
plt.show()

# %%
# The dashed line is the threshold. Adaptation saves spikes, and it is a memory: the threshold of ``ALIF`` tells how
# much the neuron has fired within the last ``1 / (1 - rho)``, here 50, steps.
#
# A change is more interesting than a level
# -----------------------------------------
# The input rises in four stairs. The rate of ``Leaky`` follows the level. ``ALIF`` fires most right after
# each stair, then falls back. The rates are those of 200 neurons with a little noise, in windows of 10 steps.

torch.manual_seed(0)
T, N = 400, 200
stairs = 0.1 + 0.1 * torch.arange(4.0).repeat_interleave(T // 4)
noisy = stairs[:, None] + 0.2 * torch.randn(T, N)
rates = {}
for name, neuron in (
    ("Leaky", snn.Leaky(beta=0.9)),
    ("ALIF", snn.ALIF(beta=0.9, rho=0.97, kappa=1.0)),
):
    spk = snn.unroll(neuron, noisy)[0]
    rates[name] = spk.reshape(T // 10, 10 * N).mean(1)
figure, panel = plt.subplots()
for name, rate in rates.items():
    panel.plot(torch.arange(5, T, 10), rate, label=name)
panel.plot(stairs, color="C6", linestyle="--", linewidth=1, label="input")
panel.set(xlabel="step", ylabel="spikes per step", title="A rising input")
panel.legend()
plt.show()
for name, rate in rates.items():
    print(
        f"{name:5}: {rate[30]:.3f} spikes per step right after the last stair, {rate[35:].mean():.3f} later"
    )

# %%
# Firing patterns of the Izhikevich neuron
# ----------------------------------------
# Its recovery variable has four parameters: ``a`` is its rate, ``b`` its sensitivity to the membrane, ``c`` the
# membrane after a spike, and ``d`` the increase per spike. The sets below are those of Izhikevich (2003). Each
# parameter takes one value per neuron, so one layer runs all patterns. A step is half a millisecond.

patterns = {
    "regular spiking": (0.02, 0.2, -65.0, 8.0),
    "intrinsically bursting": (0.02, 0.2, -55.0, 4.0),
    "chattering": (0.02, 0.2, -50.0, 2.0),
    "fast spiking": (0.1, 0.2, -65.0, 2.0),
}
a, b, c, d = torch.tensor(list(patterns.values())).T
layer = snn.Izhikevich(a=a, b=b, c=c, d=d, dt=0.5)
current = torch.zeros(600, len(patterns))
current[40:] = 10.0
spk, mem, recovery = snn.unroll(layer, current)

figure, panels = plt.subplots(4, 1, figsize=(6, 6), sharex=True, sharey=True)
for n, (panel, name) in enumerate(zip(panels, patterns, strict=True)):
    voltage = torch.where(
        spk[:, n] > 0, 30.0, mem[:, n]
    )  # the returned membrane is the one after the reset
    panel.plot(0.5 * torch.arange(600), voltage, linewidth=1)
    panel.set(title=name, ylabel="mV")
    print(f"{name:23} {int(spk[:, n].sum()):3d} spikes in 280 ms")
panels[-1].set_xlabel("time in ms")
plt.show()

# %%
# What adaptation is good for in a network: :ref:`sphx_glr_tutorials_learning_plot_memory.py`.
