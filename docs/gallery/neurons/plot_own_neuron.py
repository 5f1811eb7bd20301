"""
Your own neuron
===============

After this script you can turn an equation of a paper, or of your own, into a layer that is trained like any other and
runs in a compiled kernel.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import spikeloom as snn
from spikeloom import ops

# %%
# The equation
# ------------
# Synapses tire: each presynaptic spike uses up a part of the transmitter, which recovers slowly (short-term depression,
# Tsodyks and Markram, 1997). Here the stock of each neuron scales its input:
#
# .. math::
#
#    m_t = \beta m_{t-1} + a_{t-1} x_t, \qquad
#    a_t = a_{t-1} + r (1 - a_{t-1}) - u\, a_{t-1} s_t
#
# ``@snn.cell`` makes a layer class of a function of one step. The arguments are the input, then the states with their
# initial values, then after ``*`` the parameters. It returns the spikes and the new states. ``ops.spike`` is the step
# function with the surrogate gradient of the layer. ``decays`` names the parameters that must stay between 0 and 1.


@snn.cell(decays=("beta", "recovery", "use"))
def Tiring(x, mem, stock=1.0, *, beta=0.9, recovery=0.02, use=0.3, threshold=1.0):
    """A leaky neuron that uses up a part of its stock of transmitter at each spike."""
    mem = beta * mem + stock * x
    spk = ops.spike(mem - threshold)
    fired = ops.detach(spk)
    stock = stock + recovery * (1 - stock) - use * stock * fired
    return spk, mem - fired * threshold, stock


# %%
# Its response to a step
# ----------------------
# The layer is an ``nn.Module``. ``snn.unroll`` runs it over all steps and returns the states in the order of the
# equation.

x = torch.zeros(200, 1)
x[20:150] = 0.6
spk, mem, stock = snn.unroll(Tiring(), x)
times = spk.flatten().nonzero().flatten()
print(f"{len(times)} spikes; intervals {times.diff().tolist()}")

figure, panels = plt.subplots(2, 1, figsize=(6, 4), sharex=True)
panels[0].plot(mem.flatten())
panels[0].eventplot(times, colors="C1", lineoffsets=1.25, linelengths=0.25)
panels[0].set(ylabel="membrane", title="The intervals grow while the stock is used up")
panels[1].plot(stock.flatten(), color="C2")
panels[1].set(ylabel="stock", xlabel="step", ylim=(0, 1.05))
plt.show()

# %%
# It runs in a kernel
# -------------------
# ``snn.explain`` says what runs each layer, and why not something faster. The plain PyTorch loop over the equation is
# the reference: its spikes are the same.

x = torch.rand(100, 16, 64)
print(snn.explain(Tiring(), x))
with snn.backend("loop"):
    reference = snn.unroll(Tiring(), x)
equal = torch.equal(snn.unroll(Tiring(), x)[0], reference[0])
print(f"the spikes of the kernel equal those of the loop: {equal}")

# %%
# Train its parameters
# --------------------
# ``learn`` names the parameters that are learned, here one value of each per neuron. ``snn.LI`` is a readout: its
# membranes are the output. ``decay="sigmoid"`` keeps the learned values between 0 and 1. The data are scikit-learn's
# handwritten digits, 8 x 8 pixels, each shown for 20 steps.

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
parameters = {"recovery": torch.full((64,), 0.02), "use": torch.full((64,), 0.3)}
net = nn.Sequential(
    nn.Linear(64, 64),
    Tiring(**parameters, learn=("recovery", "use"), decay="sigmoid", init_hidden=True),
    nn.Linear(64, 10),
    snn.LI(init_hidden=True),
)
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)


def scores(x):
    snn.utils.reset(net)
    return snn.unroll(net, x, steps=20).mean(0)


for epoch in range(5):
    for batch in torch.randperm(1500).split(64):
        loss = nn.functional.cross_entropy(scores(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = (scores(images[1500:]).argmax(1) == labels[1500:]).float().mean()
    print(f"epoch {epoch}: {right:.1%} of the test digits")

# %%
# What was learned
# ----------------
# The neurons have become different from each other. Most recover faster than at first and use less per spike: for still
# images, tiring is of little use.

figure, panel = plt.subplots()
panel.axvline(0.3, color="C6", linestyle="--", linewidth=1)
panel.axhline(0.02, color="C6", linestyle="--", linewidth=1, label="initial values")
panel.plot(net[1].use.detach(), net[1].recovery.detach(), "o", label="a neuron")
panel.set(
    xlabel="share of the stock that a spike uses",
    ylabel="recovery per step",
    title="64 learned neurons",
)
panel.legend()
plt.show()
