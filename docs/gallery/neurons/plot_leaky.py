"""
The leaky integrate-and-fire neuron
===================================

After this script you can predict when a :class:`spikeloom.Leaky` neuron fires: what its decay, its threshold and its
reset do, and which input is too weak to make it fire at all.
"""

import matplotlib.pyplot as plt
import torch

import spikeloom as snn

# %%
# One step
# --------
# The neuron has one state, the membrane. At every step it keeps the fraction ``beta`` of the membrane, adds the input
# ``x``, and fires if the result exceeds the threshold. One step after a spike, the threshold is subtracted:
#
# .. math::
#
#    m_t = \beta\, m_{t-1} + x_t - s_{t-1}\,\theta, \qquad s_t = 1 \text{ if } m_t > \theta, \text{ else } 0
#
# A call of the neuron is one step. You pass the membrane, and get the spike and the new membrane back.

lif = snn.Leaky(beta=0.8, threshold=1.0)
mem = lif.init_leaky()
for step in range(6):
    spk, mem = lif(torch.tensor([0.4]), mem)
    print(f"step {step}: membrane {mem.item():.3f}, spike {int(spk)}")

# %%
# In the first steps each increase is 0.8 times the one before. At step 3 the membrane is 1.181 and the neuron fires, so
# step 4 subtracts 1: 0.8 * 1.181 + 0.4 - 1 = 0.345.
#
# A pulse, a weak input, a strong input
# -------------------------------------
# ``snn.unroll`` runs all steps at once. Its input is a sequence ``[T, B, N]``: steps, samples, neurons. Here each of
# the three columns is the input of one neuron.

T = 60
x = torch.zeros(T, 1, 3)
x[5, :, 0] = 0.8  # one pulse
x[5:, :, 1] = 0.18  # a constant input below the rheobase
x[5:, :, 2] = 0.35  # a constant input above it
lif = snn.Leaky(beta=0.8)
spk, mem = snn.unroll(lif, x)

figure, panels = plt.subplots(3, 1, figsize=(6, 5), sharex=True)
names = ("a pulse of 0.8", "a constant input of 0.18", "a constant input of 0.35")
for n, (panel, name) in enumerate(zip(panels, names, strict=True)):
    fired = spk[:, 0, n].nonzero().flatten()
    panel.plot(mem[:, 0, n], label="membrane")
    panel.axhline(1, color="C6", linestyle="--", linewidth=1, label="threshold")
    panel.plot(fired, torch.full(fired.shape, 1.75), "|", color="C1", markersize=10, label="spike")
    panel.set(title=name, ylim=(-0.05, 1.95), ylabel="membrane")
panels[0].legend(ncols=3, loc="upper right")
panels[-1].set_xlabel("step")
plt.show()

# %%
# The pulse decays by a fifth per step. A constant input drives the membrane toward ``x / (1 - beta)``: 0.9 for the weak
# input, which is below the threshold, so this neuron never fires. The smallest input that can make it fire is called
# the *rheobase*, ``(1 - beta) * threshold``. It is 0.2 here, and at exactly 0.2
# the membrane approaches the threshold without ever exceeding it.

x = torch.linspace(0, 1, 101)
spk, mem = snn.unroll(snn.Leaky(beta=0.8), x.expand(500, 1, -1))
rate = spk.mean(0).flatten()
print(f"the smallest input with a spike: {x[rate > 0].min():.2f}")
print(f"firing rate at 0.35: {rate[35]:.3f} spikes per step")

# %%
# Three decays
# ------------
# ``beta`` can be a tensor with one value per neuron. A time constant of ``tau`` steps is a decay of
# ``exp(-1 / tau)``. The more a neuron keeps, the smaller its rheobase.

beta = torch.tensor([0.5, 0.8, 0.95])
spk, _ = snn.unroll(snn.Leaky(beta=beta), x[:, None, None].expand(-1, 500, 3).transpose(0, 1))
figure, panel = plt.subplots()
for n, b in enumerate(beta.tolist()):
    panel.plot(x, spk[:, :, n].mean(0), label=f"beta = {b:.2f}")
panel.set(
    xlabel="input per step", ylabel="spikes per step", title="The firing rate grows with the input"
)
panel.legend()
plt.show()

# %%
# Three resets, two times
# -----------------------
# ``reset_mechanism`` selects what a spike does to the membrane: ``"subtract"`` the threshold, set it to ``"zero"``, or
# ``"none"``. ``reset_delay`` selects when: one step after the spike (the default), or in the same step.

figure, panels = plt.subplots(3, 2, figsize=(6, 5), sharex=True, sharey=True)
current = torch.full((25, 1, 1), 0.45)
for row, mechanism in enumerate(("subtract", "zero", "none")):
    for column, delay in enumerate((True, False)):
        lif = snn.Leaky(beta=0.8, reset_mechanism=mechanism, reset_delay=delay)
        spk, mem = snn.unroll(lif, current)
        panel = panels[row, column]
        panel.plot(mem.flatten(), marker="o", markersize=3)
        panel.axhline(1, color="C6", linestyle="--", linewidth=1)
        panel.set_title(f'"{mechanism}", {"one step later" if delay else "at once"}')
        print(
            f"{mechanism:8} {'delayed' if delay else 'at once'}: {int(spk.sum()):2d} spikes in 25 steps"
        )
for panel in panels[:, 0]:
    panel.set_ylabel("membrane")
for panel in panels[-1]:
    panel.set_xlabel("step")
plt.show()

# %%
# With a delayed reset you see the membrane above the threshold; with an immediate one the returned membrane has
# already been reset. ``"zero"`` forgets by how much the membrane exceeded the threshold, so all its intervals are
# equal; ``"subtract"`` keeps the rest, and its intervals vary. Without a reset the neuron fires at every step from
# step 2 on, because its membrane stays above the threshold.
#
# Next: :ref:`sphx_glr_tutorials_neurons_plot_synapses.py`, and :ref:`sphx_glr_tutorials_neurons_plot_every_neuron.py`.
