"""
A network that is not trained: how spikes travel
================================================

After this script you can build a feed-forward network, run it over time, record every layer, and set its weights so
that the activity neither dies out nor saturates.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import spikeloom as snn
from spikeloom import spikegen

torch.manual_seed(0)

# %%
# Layers
# ------
# A layer is an ``nn.Linear``, which turns spikes into currents, and neurons, which turn currents into spikes. With
# ``init_hidden=True`` a neuron stores its own membrane, so the network is a plain ``nn.Sequential``.

T = 100
x = spikegen.rate(
    torch.full((1, 100), 0.1), num_steps=T
)  # 100 inputs, each fires at a tenth of the steps


def network(gain):
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(100, 50, bias=False),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(50, 50, bias=False),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(50, 10, bias=False),
        snn.Leaky(beta=0.9, init_hidden=True),
    )
    with torch.no_grad():
        for layer in net[::2]:
            layer.weight.mul_(gain)
    return net


# %%
# Record a run
# ------------
# ``snn.tap`` records the spikes and the states of all spiking layers, named by their place in the network.

net = network(gain=4.0)
with torch.no_grad(), snn.tap(net) as record:
    spk = snn.unroll(net, x)
print("input ", tuple(x.shape), "output", tuple(spk.shape), "- steps, samples, neurons")
for name, layer in record.items():
    print(
        f"layer {name}: {int(layer.spk.sum()):4d} spikes, {layer.spk.mean():.1%} of all steps and neurons"
    )

figure, panel = plt.subplots(figsize=(6, 4.5))
layers = {
    "input": x,
    "layer 1": record["1"].spk,
    "layer 3": record["3"].spk,
    "output": record["5"].spk,
}
snn.spikeplot.raster({name: spikes[:, 0] for name, spikes in layers.items()}, panel)
panel.set_title("Spikes of all layers, from the input at the bottom to the output")
plt.show()

# %%
# A step at a time
# ----------------
# A call of the network is one step. A loop over the steps gives the same spikes as ``snn.unroll``, which runs each
# layer over all steps before the next layer begins. ``snn.utils.reset`` sets all membranes to their initial values.

snn.utils.reset(net)
with torch.no_grad():
    looped = torch.stack([net(x[t]) for t in range(T)])
print(f"the loop gives the same spikes: {torch.equal(looped, spk)}")

# %%
# What one output neuron sees
# ---------------------------

busiest = record["5"].spk[:, 0].sum(0).argmax()
mem, fired = record["5"].mem[:, 0, busiest], record["5"].spk[:, 0, busiest]
figure, panel = plt.subplots()
panel.plot(mem, label="membrane")
panel.axhline(1, color="C6", linestyle="--", linewidth=1, label="threshold")
panel.plot(
    fired.nonzero().flatten(),
    torch.full((int(fired.sum()),), 3.2),
    "|",
    color="C1",
    markersize=10,
    label="spike",
)
panel.set(xlabel="step", ylabel="membrane", title=f"Output neuron {busiest}", ylim=(None, 4.6))
panel.legend(ncols=3, loc="upper center")
plt.show()

# %%
# The gain of the weights
# -----------------------
# PyTorch's initial weights are made for real-valued activations. Spikes are sparse, so currents are smaller, and the
# activity decays from layer to layer: a network that looks ready may be silent. The picture shows the firing rate of
# each layer as a function of a factor on all weights.

gains = torch.linspace(1, 10, 19)
rates = []
for gain in gains.tolist():
    with torch.no_grad(), snn.tap(net := network(gain)) as record:
        snn.unroll(net, x)
    rates.append([layer.spk.mean().item() for layer in record.values()])
rates = torch.tensor(rates)
figure, panel = plt.subplots()
for n, name in enumerate(("layer 1", "layer 3", "output")):
    panel.plot(gains, rates[:, n], label=name)
panel.set(
    xlabel="factor on the initial weights",
    ylabel="spikes per neuron and step",
    title="Silent or active",
)
panel.legend()
plt.show()
silent = gains[rates[:, 2] == 0].max()
print(f"the output is silent up to a factor of {silent:.1f}; at 6 its rate is {rates[10, 2]:.1%}")

# %%
# ``snn.diagnose`` reports silent and saturated layers of any network, with advice; see
# :ref:`sphx_glr_tutorials_learning_plot_does_not_learn.py`.
# Training is next: :ref:`sphx_glr_tutorials_training_plot_first_network.py`.
