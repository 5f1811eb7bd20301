"""
Synaptic currents: Synaptic and Alpha neurons
=============================================

After this script you can choose between neurons whose membrane jumps at an input spike (:class:`spikeloom.Leaky`) and
neurons whose membrane rises over several steps (:class:`spikeloom.Synaptic`, :class:`spikeloom.Alpha`).
"""

import matplotlib.pyplot as plt
import torch

import spikeloom as snn

# %%
# The response to one spike
# -------------------------
# In a synapse, an input spike releases transmitter, and the current through the synapse decays over some milliseconds.
# ``Leaky`` ignores this: the membrane jumps at once. ``Synaptic`` adds a current as a second state:
#
# .. math::
#
#    I_t = \alpha I_{t-1} + x_t, \qquad m_t = \beta m_{t-1} + I_t - s_{t-1} \theta
#
# ``Alpha`` has an excitatory and an inhibitory current. Their difference rises smoothly and decays, like the alpha
# function, the textbook shape of a synaptic response.
#
# A high threshold keeps the neurons from firing, so that the bare response is visible.

T = 60
x = torch.zeros(T, 1)
x[5] = 1.0
silent = {"threshold": 100.0}
neurons = {
    "Leaky": snn.Leaky(beta=0.8, **silent),
    "Synaptic": snn.Synaptic(alpha=0.9, beta=0.8, **silent),
    "Alpha": snn.Alpha(alpha=0.9, beta=0.8, **silent),
}
responses = {
    name: snn.unroll(neuron, x)[-1].flatten() for name, neuron in neurons.items()
}  # the last state: mem

figure, panel = plt.subplots()
for name, response in responses.items():
    panel.plot(response / response.max(), label=name, marker="o", markersize=2.5)
    print(
        f"{name:8} peaks {response.argmax() - 5:2d} steps after the spike, at {response.max():.3f}"
    )
panel.set(
    xlabel="step", ylabel="membrane / its peak", title="Response to one input spike at step 5"
)
panel.legend()
plt.show()

# %%
# The heights differ, so a network of ``Synaptic`` neurons needs smaller weights than one of ``Leaky`` neurons, and one
# of ``Alpha`` neurons larger ones.
#
# Counting coincidences
# ---------------------
# A slow response makes a neuron less sensitive to exact times. Two input spikes arrive with a growing gap. The weight
# is set so that a single spike lifts the membrane to 0.7 of the threshold; two together can exceed it. The reset is
# switched off, to see how far.

gaps = torch.arange(0, 25)
x = torch.zeros(T, len(gaps))
x[5] = 1.0
x[5 + gaps, range(len(gaps))] += 1.0
figure, panel = plt.subplots()
linear = {"reset_mechanism": "none"}
neurons = {
    "Leaky": snn.Leaky(beta=0.8, **linear),
    "Synaptic": snn.Synaptic(alpha=0.9, beta=0.8, **linear),
    "Alpha": snn.Alpha(alpha=0.9, beta=0.8, **linear),
}
for name, neuron in neurons.items():
    mem = snn.unroll(neuron, 0.7 / responses[name].max() * x)[-1]
    peak = mem.amax(0)
    panel.plot(
        gaps, peak, marker="o", markersize=3, label=name, linestyle=":" if name == "Alpha" else "-"
    )
    print(f"{name:8} fires for gaps of up to {gaps[peak > 1].max()} steps")
panel.axhline(1, color="C6", linestyle="--", linewidth=1)
panel.set(
    xlabel="gap between the two input spikes in steps",
    ylabel="highest membrane",
    title="Two input spikes",
)
panel.legend()
plt.show()

# %%
# The states of one run
# ---------------------
# ``snn.unroll`` returns the spikes and every state. The same train of random spikes, 20 % of the steps, drives both
# neurons.

torch.manual_seed(0)
train = (torch.rand(100, 1) < 0.2).float()
spk, syn, mem = snn.unroll(snn.Synaptic(alpha=0.8, beta=0.8), 0.3 * train)
spk2, exc, inh, mem2 = snn.unroll(snn.Alpha(alpha=0.8, beta=0.7), 0.8 * train)
print(
    f"{int(train.sum())} input spikes: Synaptic fires {int(spk.sum())} times, Alpha {int(spk2.sum())} times"
)

figure, panels = plt.subplots(3, 1, figsize=(6, 5), sharex=True, height_ratios=(1, 3, 3))
panels[0].eventplot(train.flatten().nonzero().flatten(), colors="C6", linelengths=0.8)
panels[0].set(yticks=[], title="input spikes")
panels[1].plot(syn, color="C2", label="current")
panels[1].plot(mem, color="C0", label="membrane")
panels[1].set_title("Synaptic")
panels[2].plot(exc, color="C2", label="excitation")
panels[2].plot(inh, color="C3", label="inhibition")
panels[2].plot(mem2, color="C0", label="membrane")
panels[2].set(title="Alpha", xlabel="step")
for panel, fired in ((panels[1], spk), (panels[2], spk2)):
    times = fired.flatten().nonzero().flatten()
    panel.plot(times, torch.full(times.shape, 2.6), "|", color="C1", markersize=9, label="spike")
    panel.axhline(1, color="C6", linestyle="--", linewidth=1)
    panel.set_ylim(-2.1, 3)
    panel.legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 0.97), fontsize=9)
plt.show()

# %%
# ``alpha`` must be larger than ``beta`` in an ``Alpha`` neuron; then the response is positive. By default it resets all
# of its states to zero, so it needs new input spikes before it can fire again.
