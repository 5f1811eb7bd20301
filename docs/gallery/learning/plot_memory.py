"""
Recurrence and memory
=====================

After this script you can choose neurons for a task that needs memory: you compare feed-forward, recurrent and adaptive
neurons on a question whose answer was given long ago.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import spikeloom as snn

# %%
# The task
# --------
# A cue of 10 steps comes on one of two groups of inputs. Then there is only noise, and at the end a third group asks:
# which cue was it? The silence lasts longer than a leaky membrane remembers.

CUE, ASK, GROUP = 10, 10, 10


def samples(batch, delay):
    """Spikes [T, B, 30] and labels [B]."""
    labels = torch.randint(2, (batch,))
    rate = torch.full((CUE + delay + ASK, batch, 3, GROUP), 0.02)
    rate[:CUE, torch.arange(batch), labels] = 0.4
    rate[-ASK:, :, 2] = 0.4
    return torch.bernoulli(rate).flatten(2), labels


torch.manual_seed(0)
x, labels = samples(1, delay=40)
figure, panel = plt.subplots()
groups = {"cue 0": x[:, 0, :10], "cue 1": x[:, 0, 10:20], "question": x[:, 0, 20:]}
snn.spikeplot.raster(groups, panel)
panel.set_title(f"A sample: the answer is {labels.item()}")
plt.show()

# %%
# Four networks
# -------------
# All have 60 hidden neurons. ``Leaky`` with ``beta=0.9`` forgets with a time constant of about 10 steps. ``RLeaky``
# adds weights from every neuron to every other. ``ALIF`` has an adaptive threshold instead: with ``rho=0.99`` it
# remembers for about 100 steps how much it has fired, without firing. ``RALIF`` has both.

N = 60
HIDDEN = {
    "Leaky": lambda: snn.Leaky(beta=0.9, init_hidden=True),
    "RLeaky": lambda: snn.RLeaky(beta=0.9, linear_features=N, init_hidden=True),
    "ALIF": lambda: snn.ALIF(beta=0.9, rho=0.99, kappa=0.5, init_hidden=True),
    "RALIF": lambda: snn.RALIF(beta=0.9, rho=0.99, kappa=0.5, linear_features=N, init_hidden=True),
}


def train(kind, delay, updates=100):
    """Return the accuracies during training and the trained network."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(30, N, bias=False),
        HIDDEN[kind](),
        nn.Linear(N, 2),
        snn.LI(beta=0.9, init_hidden=True),
    )
    with torch.no_grad():
        net[0].weight.mul_(4)  # spikes are rare, so the initial weights are too small
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    history = []
    for _ in range(updates):
        x, labels = samples(64, delay)
        snn.utils.reset(net)
        out = snn.unroll(net, x)[-ASK:].mean(0)
        loss = nn.functional.cross_entropy(out, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(100 * (out.argmax(1) == labels).float().mean().item())
    return history, net


# %%
# A delay of 40 steps is four time constants of the membrane.

curves, nets = {}, {}
for kind in HIDDEN:
    curves[kind], nets[kind] = train(kind, delay=40)
    print(
        f"{kind:6} {sum(curves[kind][-20:]) / 20:.0f} % of the answers in the last 20 updates are right"
    )
figure, panel = plt.subplots()
for kind, curve in curves.items():
    smooth = torch.tensor(curve).unfold(0, 10, 1).mean(1)
    panel.plot(range(10, 101), smooth, label=kind)
panel.axhline(50, color="C6", linestyle="--", linewidth=1)
panel.set(
    xlabel="update",
    ylabel="right answers in %",
    title="After a delay of 40 steps (dashed: guessing)",
)
panel.legend()
plt.show()

# %%
# Where the memory is
# -------------------
# The mean adaptation of the ``ALIF`` neurons after cue 0 minus that after cue 1. It lasts through the delay, in which
# these neurons hardly fire: a memory in the thresholds, which costs no spikes.

torch.manual_seed(2)
x, labels = samples(200, delay=40)
snn.utils.reset(nets["ALIF"])
with torch.no_grad(), snn.tap(nets["ALIF"]) as record:
    snn.unroll(nets["ALIF"], x)
adapt = record["1"].states["adapt"]
difference = adapt[:, labels == 0].mean(1) - adapt[:, labels == 1].mean(1)  # [T, N]
order = difference[CUE + 20].argsort()
figure, panels = plt.subplots(2, 1, figsize=(6, 4.5), sharex=True, height_ratios=(2, 1))
limit = difference.abs().max().item()
shown = panels[0].imshow(
    difference[:, order].T, aspect="auto", cmap="PuOr", vmin=-limit, vmax=limit
)
panels[0].set(ylabel="neuron, sorted", title="Adaptation after cue 0 minus that after cue 1")
figure.colorbar(shown, ax=panels[0])
panels[1].plot(record["1"].spk.mean((1, 2)))
panels[1].set(xlabel="step", ylabel="spikes per step", title="Activity")
plt.show()
print(f"mean difference at the end of the delay: {difference[CUE + 39].abs().mean():.2f}")
