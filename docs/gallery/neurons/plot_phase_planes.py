"""
Phase planes
============

After this script you can read a phase plane: you see from one picture whether a neuron rests, fires, adapts or
oscillates.
"""

import matplotlib.pyplot as plt
import torch

import spikeloom as snn

# %%
# One state: a line
# -----------------
# A call of a neuron is one step, for any membrane that you pass. So its change per step can be drawn as a function of
# the membrane. Where the curve crosses zero from above, the membrane rests; where it crosses from below, it is pushed
# away.

mem = torch.linspace(-0.4, 1.3, 300)
figure, panel = plt.subplots()
for neuron, current in (
    (snn.Leaky(beta=0.9), 0.05),
    (snn.QIF(tau=5), 0.05),
    (snn.EIF(tau=5, threshold=1.5), 0.3),
):
    spk, after = neuron(torch.full_like(mem, current), mem)
    name = type(neuron).__name__
    change = torch.where(
        (spk > 0) | (mem > neuron.threshold), torch.nan, after - mem
    )  # leave out spikes and resets
    panel.plot(mem, change, label=f"{name}, current {current}")
    crossings = mem[:-1][(change[:-1] * change[1:]) < 0]
    print(f"{name:5} changes sign at", ", ".join(f"{m:.2f}" for m in crossings.tolist()))
panel.axhline(0, color="C6", linewidth=1)
panel.set(xlabel="membrane", ylabel="change in one step", title="Resting and critical membranes")
panel.legend()
plt.show()

# %%
# ``Leaky`` has one crossing: it rests at 0.5 for this current, from whatever membrane it starts. ``QIF`` and ``EIF``
# have a second one, the critical membrane. Above it they rise to a spike without further input.
#
# Two states: a plane
# -------------------
# With two states the neuron is a point in a plane. Gray arrows show the direction of one step from each point. On the
# orange curve the first state does not change, on the green curve the second does not: these are the *nullclines*. The
# neuron rests where they cross. The blue line is the path of one run.


def step(neuron, current, first, second):
    """Return the spike and the change of both states in one step, at every point."""
    spk, after, after2 = neuron(torch.full_like(first, current), first, second)
    return spk, after - first, after2 - second


def plane(panel, neuron, current, horizontal, vertical, steps=300):
    """Draw arrows, nullclines and the path of a run from the initial states."""
    for points in (15, 301):
        a, b = torch.meshgrid(
            torch.linspace(*horizontal, points), torch.linspace(*vertical, points), indexing="xy"
        )
        spk, da, db = step(neuron, current, a, b)
        da, db = (torch.where(spk > 0, torch.nan, d) for d in (da, db))
        if points == 15:
            da, db = da / (horizontal[1] - horizontal[0]), db / (vertical[1] - vertical[0])
            length = (da**2 + db**2).sqrt() + 1e-9
            panel.quiver(a, b, da / length, db / length, color="0.75", scale=24, width=0.004)
        else:
            panel.contour(a, b, da, [0], colors="C1")
            panel.contour(a, b, db, [0], colors="C2")
    snn.utils.reset(neuron)
    spk, first, second = snn.unroll(neuron, torch.full((steps, 1), current))
    panel.plot(first, second, color="C0", linewidth=1)
    panel.plot(first[0], second[0], "o", color="C0")
    panel.set(xlim=horizontal, ylim=vertical)
    panel.set_title(f"current {current:g}: {int(spk.sum())} spikes")
    return int(spk.sum())


def two_currents(neuron, currents, horizontal, vertical, xlabel, ylabel):
    figure, panels = plt.subplots(1, 2, figsize=(6, 3.2), sharey=True)
    spikes = [
        plane(p, neuron, c, horizontal, vertical) for p, c in zip(panels, currents, strict=True)
    ]
    for panel in panels:
        panel.set_xlabel(xlabel)
    panels[0].set_ylabel(ylabel)
    plt.show()
    for current, count in zip(currents, spikes, strict=True):
        print(f"{type(neuron).__name__} with a current of {current:g}: {count} spikes in 300 steps")


# %%
# The Izhikevich neuron
# ---------------------
# Without current the nullclines cross twice, and the left crossing is stable: the neuron rests. A current of 10 lifts
# the parabola above the line. There is no crossing left, so the neuron fires for ever. Each spike jumps back to -65 mV
# and up by 8, which delays the next one.

two_currents(
    snn.Izhikevich(), (0.0, 10.0), (-85.0, 30.0), (-20.0, 10.0), "membrane in mV", "recovery"
)

# %%
# Adaptation by a current
# -----------------------
# In ``AdLIF`` the second state is a current that grows with the membrane and with each spike, and counteracts the
# input. For a current of 3.5 the neuron fires three times, then the path spirals into the crossing, and the neuron
# rests. For a current of 6 the crossing would be beyond the threshold, and the neuron keeps firing.

two_currents(
    snn.AdLIF(a=0.2, b=0.3), (3.5, 6.0), (-0.6, 1.6), (-0.5, 6.0), "membrane", "adaptation"
)

# %%
# Adaptation by a threshold
# -------------------------
# In ``ALIF`` the second state raises the threshold to ``threshold + kappa * adapt``. Each spike moves the adaptation
# up by one, until it decays as much between two spikes. The neuron would rest only on the orange line at the top of
# the left panel, where the threshold is above the membrane of 1.5 that the current leads to; the spikes do not raise
# it that far.

two_currents(snn.ALIF(rho=0.95), (0.15, 0.4), (-0.2, 2.2), (-0.3, 9.0), "membrane", "adaptation")

# %%
# An oscillator
# -------------
# The two states of ``ResonateFire`` rotate. Inputs at the right moment of the rotation add up, others cancel. The
# constant current of the left panel moves the center of the rotation, but does not reach the threshold of 1.

two_currents(
    snn.ResonateFire(omega=0.3), (0.15, 0.4), (-1.2, 1.4), (-0.8, 1.3), "current", "membrane"
)

# %%
# Two decays
# ----------
# In ``Synaptic`` the first state is a current that decays on its own, so its nullcline is a vertical line. The membrane
# follows it with a delay.

two_currents(
    snn.Synaptic(alpha=0.8, beta=0.9),
    (0.015, 0.06),
    (-0.05, 0.4),
    (-0.4, 1.3),
    "synaptic current",
    "membrane",
)
