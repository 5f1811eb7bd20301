"""
What every neuron does
======================

After this script you can compare all neurons of the library by three experiments: a step of current, a noisy current,
and the firing rate as a function of the current (the *f-I curve*).
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import spikeloom as snn

torch.manual_seed(0)

# %%
# The neurons
# -----------
# Each line makes a layer of ``n`` neurons and gives a current that drives it well. The neurons with weights of their
# own get weights of 1 and biases of 0, so that all neurons receive the current itself.


def plain(layer):
    """Set the input weights to 1, from each input to its own neuron, and the biases to 0."""
    for name, weight in layer.named_parameters():
        if "bias" in name:
            nn.init.zeros_(weight)
        elif "hh" not in name:
            nn.init.eye_(weight) if weight.shape[0] == weight.shape[1] else nn.init.ones_(weight)
    return layer


ROW = {"all_to_all": False, "V": -0.5}  # the neuron's own spike inhibits it one step later
ALONE = {"use_q_projection": False}
LSTM = {"threshold": 0.3, "reset_mechanism": "subtract"}
NEURONS = {
    "Leaky": (lambda n: snn.Leaky(beta=0.9), 0.2),
    "RLeaky": (lambda n: snn.RLeaky(beta=0.9, **ROW), 0.2),
    "Synaptic": (lambda n: snn.Synaptic(alpha=0.8, beta=0.9), 0.05),
    "RSynaptic": (lambda n: snn.RSynaptic(alpha=0.8, beta=0.9, **ROW), 0.05),
    "Lapicque": (lambda n: snn.Lapicque(R=5, C=2), 0.4),
    "Alpha": (lambda n: snn.Alpha(alpha=0.9, beta=0.8), 0.2),
    "DeltaLeaky": (lambda n: snn.DeltaLeaky(0.1, beta=0.9), 0.2),
    "SLSTM": (lambda n: plain(snn.SLSTM(1, 1, **LSTM)), 1.0),
    "SConv2dLSTM": (lambda n: plain(snn.SConv2dLSTM(1, 1, 1, **LSTM)), 1.0),
    "IF": (lambda n: snn.IF(), 0.1),
    "LI": (lambda n: snn.LI(), 0.1),
    "ParametricLIF": (lambda n: snn.ParametricLIF(beta=0.9), 2.0),
    "NoisyLeaky": (lambda n: snn.NoisyLeaky(beta=0.9), 0.15),
    "ALIF": (lambda n: snn.ALIF(), 0.3),
    "RALIF": (lambda n: snn.RALIF(**ROW), 0.3),
    "AdLIF": (lambda n: snn.AdLIF(), 12.0),
    "CuBaLIF": (lambda n: snn.CuBaLIF(period=8), 0.08),
    "QIF": (lambda n: snn.QIF(tau=5), 0.4),
    "EIF": (lambda n: snn.EIF(tau=5), 0.8),
    "Izhikevich": (lambda n: snn.Izhikevich(), 10.0),
    "ResonateFire": (lambda n: snn.ResonateFire(omega=0.3), 0.7),
    "StateLeaky": (lambda n: snn.StateLeaky(0.9, n), 0.12),
    "LinearLeaky": (lambda n: plain(snn.LinearLeaky(0.9, n, n)), 0.12),
    "LeakyParallel": (lambda n: plain(snn.LeakyParallel(n, n, 0.9)), 0.12),
    "AssociativeLeaky": (lambda n: plain(snn.AssociativeLeaky(1, 1, 1, 1, **ALONE)), 0.6),
}


def run(name, current):
    """Return the spikes and membranes (or None) of N neurons, for currents [T, N]."""
    T, N = current.shape
    x = current.reshape(T, 1, N)
    if name in ("SLSTM", "AssociativeLeaky"):  # one input each: the currents become samples
        x = current.reshape(T, N, 1)
    if name == "SConv2dLSTM":
        x = current.reshape(T, N, 1, 1, 1)
    with torch.no_grad(), snn.tap(layer := NEURONS[name][0](N)) as record:
        snn.unroll(layer, x)
    states = record[""].states
    return record[""].spk.reshape(T, N), states["mem"].reshape(T, N) if "mem" in states else None


# %%
# A step of current, and noise
# ----------------------------
# Left, the current is 0 for 10 steps, then constant. Right, it changes at random around the same mean. Lines are
# membranes, each panel with its own scale; ticks above them are spikes.

T = 120
step = torch.zeros(T, 1)
step[10:] = 1.0
noise = 1.0 + 1.5 * torch.randn(T, 1)


def draw(names):
    figure, panels = plt.subplots(len(names), 2, figsize=(6, 0.95 * len(names)), sharex=True)
    for row, name in zip(panels, names, strict=True):
        for panel, current in zip(row, (step, noise), strict=True):
            spk, mem = run(name, NEURONS[name][1] * current)
            if mem is not None:
                low, high = mem.min(), mem.max()
                panel.plot((mem - low) / (high - low + 1e-9), linewidth=1)
            fired = spk.flatten().nonzero().flatten()
            if name != "LI":  # its output is the membrane, not spikes
                panel.plot(fired, torch.full(fired.shape, 1.3), "|", color="C1", markersize=6)
            panel.set(ylim=(-0.1, 1.5), yticks=[])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    panels[0, 0].set_title("a step at step 10")
    panels[0, 1].set_title("noise")
    for panel in panels[-1]:
        panel.set_xlabel("step")
    plt.show()


draw(list(NEURONS)[:9])

# %%
# These are the neurons of snnTorch. ``DeltaLeaky`` has no reset: it fires while its membrane changes. Next, neurons
# from the literature:

draw(list(NEURONS)[9:21])

# %%
# ``LI`` is a readout without spikes. ``ALIF`` and ``AdLIF`` slow down (adapt). ``CuBaLIF`` rests for 8 steps after a
# spike. ``ResonateFire`` oscillates. The last four run over whole sequences and have no reset, so they fire at every
# step at which the membrane is above the threshold. ``LeakyParallel`` and ``AssociativeLeaky`` return spikes alone.

draw(list(NEURONS)[21:])

# %%
# f-I curves
# ----------
# 25 neurons per kind receive constant currents from 0 to twice the current above, for 400 steps. The rates of the last
# 200 steps are counted, after adaptation has settled.

share = torch.linspace(0, 2, 25)
figure, panels = plt.subplots(8, 3, figsize=(6, 11), sharex=True)
kinds = [name for name in NEURONS if name != "LI"]
for panel, name in zip(panels.flat, kinds, strict=True):
    spk, _ = run(name, (NEURONS[name][1] * share).expand(400, -1))
    rate = spk[200:].mean(0)
    panel.plot(share, rate)
    panel.set_title(name, fontsize=10)
    panel.set_ylim(0, max(1.15 * rate.max().item(), 0.1))
    print(f"{name:16} {rate[12]:.3f} spikes per step for a current of {NEURONS[name][1]}")
figure.supxlabel("current / the current above")
figure.supylabel("spikes per step")
plt.show()

# %%
# A leaky neuron needs a minimal current; ``IF``, which does not leak, needs none. ``CuBaLIF`` rests for 8 steps after
# each spike, so its rate stays at 0.1. The neurons without a reset jump from silence to a spike at every step.
# ``DeltaLeaky`` is silent: a constant current does not change its membrane.
