"""
Convolutional spiking networks
==============================

After this script you can build a convolutional network of spiking neurons, look at its feature maps, and see from a
table how each of its layers is computed.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import spikeloom as snn
from spikeloom import functional as SF
from spikeloom import surrogate

snn.utils.seed(0)

# %%
# The network
# -----------
# Neurons take tensors of any shape: after an ``nn.Conv2d`` there is one neuron per pixel and channel. Pooling comes
# before the neurons, so that it pools currents. ``snn.accelerate`` lets convolutions and Linear layers skip the zeros
# between spikes where that is faster, and runs the pools in kernels. The network is otherwise the same.

images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
images = nn.functional.interpolate(images, scale_factor=2, mode="bilinear").clamp(
    0, 1
)  # 16 x 16 pixels
labels = torch.tensor(labels)
STEPS = 10

options = {"beta": 0.7, "init_hidden": True, "spike_grad": surrogate.atan(alpha=2)}
net = nn.Sequential(
    nn.Conv2d(1, 8, 5, padding=2),
    nn.MaxPool2d(2),
    snn.Leaky(**options, threshold=0.5),
    nn.Conv2d(8, 16, 5, padding=2),
    nn.MaxPool2d(2),
    snn.Leaky(**options, threshold=0.5),
    nn.Flatten(),
    nn.Linear(16 * 4 * 4, 10),
    snn.Leaky(**options),
)
snn.accelerate(net)
print(snn.explain(net, images[:64], steps=STEPS))

# %%
# The image is the same at every step, so ``unroll`` computes the first convolution and pool once, not ten times
# (*static* in the table). *density* is the share of outputs that are not zero. The last column says why a layer does
# not skip zeros: these are so small that PyTorch's dense product is faster.
#
# Train
# -----


def run(x):
    snn.utils.reset(net)
    return snn.unroll(net, x, steps=STEPS)


optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
loss_of = SF.ce_count_loss()
for epoch in range(3):
    for batch in torch.randperm(1400).split(64):
        loss = loss_of(run(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        spk = run(images[1400:])
    print(f"epoch {epoch + 1}: {SF.accuracy_rate(spk, labels[1400:]):.1%} of the test digits")

# %%
# Feature maps
# ------------
# The firing rates of the eight channels of the first layer, for one digit: edges and strokes of different directions.

with torch.no_grad(), snn.tap(net) as record:
    run(images[1400:])
n = 11
rates = record["2"].spk[:, n].mean(0)
figure, panels = plt.subplots(2, 5, figsize=(6, 2.7))
panels[0, 0].imshow(images[1400 + n, 0], cmap="gray_r")
panels[0, 0].set_title("input")
panels[1, 0].axis("off")
for channel, panel in enumerate(panels[:, 1:].flat):
    shown = panel.imshow(rates[channel], vmin=0, vmax=1)
    panel.set_title(f"map {channel}")
for panel in panels.flat:
    panel.set(xticks=[], yticks=[])
figure.colorbar(shown, ax=panels, label="spikes per step", shrink=0.9)
plt.show()

# %%
# Over time
# ---------
# Few neurons fire at any step. Wider layers, from 64 channels on, gain from skipping the others.

figure, panel = plt.subplots()
for name, layer in record.items():
    panel.plot(layer.spk.flatten(1).mean(1) * 100, "o-", label=f"layer {name}")
    print(f"layer {name}: {layer.spk.mean():.1%} of the neurons fire at a step")
panel.set(
    xlabel="step", ylabel="active neurons in %", title="Activity of the layers on the test digits"
)
panel.set_ylim(0)
panel.legend()
plt.show()
