"""
My network does not learn
=========================

After this script you can find out why a spiking network does not learn, with ``snn.diagnose``, and you have repaired
one.
"""

import textwrap

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import spikeloom as snn
from spikeloom import surrogate

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images, dtype=torch.float32), torch.tensor(labels)
STEPS = 10

# %%
# A network with four mistakes
# ----------------------------
# It looks like any other network. Its loss does not fall.


def network(threshold=8.0, spike_grad=None):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 64),
        snn.Leaky(beta=0.9, init_hidden=True, spike_grad=spike_grad),
        nn.Linear(64, 64),
        snn.Leaky(beta=0.9, threshold=threshold, init_hidden=True, spike_grad=spike_grad),
        nn.Linear(64, 10),
        snn.LI(init_hidden=True),
    )


def train(net, images, lr, epochs=3):
    """Return the test accuracy after each epoch."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    accuracies = []
    for _ in range(epochs):
        for batch in torch.randperm(1400).split(100):
            snn.utils.reset(net)
            loss = nn.functional.cross_entropy(
                snn.unroll(net, images[batch], steps=STEPS).mean(0), labels[batch]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        snn.utils.reset(net)
        with torch.no_grad():
            right = snn.unroll(net, images[1400:], steps=STEPS).mean(0).argmax(1) == labels[1400:]
        accuracies.append(100 * right.float().mean().item())
    return accuracies


steep = surrogate.fast_sigmoid(slope=1000)
curves = {"four mistakes": train(network(spike_grad=steep), images, lr=1.0)}
print("test accuracy in %:", [round(a) for a in curves["four mistakes"]])

# %%
# The diagnosis
# -------------
# Pass a batch, the loss of your training, and the optimizer. The diagnosis runs one batch forward and backward, and
# leaves the network as it was. The findings are in the order of causes: fix the first one first.


def diagnose(net, images, lr):
    snn.utils.reset(net)

    def loss(out):
        return nn.functional.cross_entropy(out.mean(0), labels[:100])

    return snn.diagnose(
        net,
        images[:100],
        steps=STEPS,
        loss=loss,
        optimizer=torch.optim.Adam(net.parameters(), lr=lr),
    )


diagnosis = diagnose(network(spike_grad=steep), images, lr=1.0)
for line in str(diagnosis).splitlines():
    print(line if "  " in line else textwrap.fill(line, 90))  # the table, then sentences

# %%
# First: the input
# ----------------
# The pixels are between 0 and 16. Divided by 16, they no longer saturate the first layer.

scaled = images / 16
for finding in diagnose(network(spike_grad=steep), scaled, lr=1.0).findings:
    print(textwrap.fill(f"- {finding}", 90, subsequent_indent="  "))

# %%
# Second: the threshold
# ---------------------
# The second hidden layer never fires, because its threshold of 8 is out of reach. Third, the surrogate: with a slope of
# 1000 almost no membrane is near enough to the threshold to pass a gradient. Fourth, the learning rate. Each cure is
# one argument. The diagnosis after each:

for threshold, spike_grad, lr in (
    (1.0, steep, 1.0),
    (1.0, surrogate.atan(), 1.0),
    (1.0, surrogate.atan(), 5e-3),
):
    found = diagnose(network(threshold, spike_grad), scaled, lr).findings
    print(
        f"threshold {threshold}, {spike_grad}, learning rate {lr}:",
        [f.problem for f in found] or "no finding",
    )

# %%
# Now it learns
# -------------

repaired = network(threshold=1.0, spike_grad=surrogate.atan())
curves["repaired"] = train(repaired, scaled, lr=5e-3)
figure, panel = plt.subplots()
snn.spikeplot.learning_curve(curves, panel)
panel.set(ylabel="test accuracy in %", title="The same network, repaired", ylim=(0, 100))
plt.show()
print("test accuracy in %:", [round(a) for a in curves["repaired"]])

# %%
# What the diagnosis measures
# ---------------------------
# ``diagnosis.plot()`` draws the numbers behind the findings. Here are two of them, before and after: the share of
# neurons and steps at which the surrogate passes a gradient, and the norm of the gradient at each layer.

figure, panels = plt.subplots(1, 2, figsize=(6, 2.6), sharey=True)
after = diagnose(network(threshold=1.0, spike_grad=surrogate.atan()), scaled, lr=5e-3)
for offset, (name, rows) in enumerate((("before", diagnosis.rows), ("after", after.rows))):
    places = [2 * k + 0.7 * offset for k in range(len(rows))]
    panels[0].barh(places, [100 * row.passes for row in rows], 0.6, label=name)
    panels[1].barh(places, [row.gradient_norm for row in rows], 0.6, label=name)
panels[0].set_yticks([0.35, 2.35, 4.35], ["layer 1", "layer 3", "readout"])
panels[0].set(xlabel="passes gradient, in %")
panels[1].set(xlabel="gradient norm", xscale="log", xlim=(1e-11, 1), xticks=[1e-10, 1e-5, 1])
panels[0].invert_yaxis()
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
plt.show()
