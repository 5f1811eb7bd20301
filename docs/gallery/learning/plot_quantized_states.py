"""
Quantized states
================

After this script you can train and test neurons whose membranes have only a few levels, as on digital hardware.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import spikeloom as snn
from spikeloom.functional.quant import state_quant

# %%
# Levels
# ------
# ``state_quant(num_bits)`` rounds a membrane to one of ``2 ** num_bits`` levels after every step. Uniform levels are
# evenly spaced. Others lie densely around the threshold, where a small difference decides between a spike and none.

figure, panel = plt.subplots(figsize=(6, 2.6))
kinds = {
    "uniform": {},
    "around the threshold": {"uniform": False},
    "around zero": {"uniform": False, "thr_centered": False},
}
for row, (name, options) in enumerate(kinds.items()):
    levels = state_quant(num_bits=4, **options).levels()
    panel.plot(levels, torch.full(levels.shape, float(row)), "|", markersize=18, markeredgewidth=2)
    print(f"{name:21} 16 levels from {levels.min():.2f} to {levels.max():.2f}")
panel.axvline(1, color="C6", linestyle="--", linewidth=1)
panel.set_yticks(range(3), kinds)
panel.set(xlabel="membrane (dashed: threshold)", ylim=(2.6, -0.6), title="The levels of 4 bits")
plt.show()

# %%
# The membrane of a quantized neuron
# ----------------------------------

torch.manual_seed(0)
x = 0.25 * torch.rand(80, 1, 1)
figure, panel = plt.subplots()
for bits in (None, 3):
    quantizer = state_quant(num_bits=bits) if bits else False
    spk, mem = snn.unroll(snn.Leaky(beta=0.9, state_quant=quantizer), x)
    name = f"{bits} bits" if bits else "float32"
    panel.plot(mem.flatten(), label=name, drawstyle="steps-post" if bits else "default")
    print(f"{name}: {int(spk.sum())} spikes")
panel.axhline(1, color="C6", linestyle="--", linewidth=1)
panel.set(xlabel="step", ylabel="membrane", title="8 levels")
panel.legend(loc="upper left", bbox_to_anchor=(0.6, 1.2), ncols=2)
plt.show()

# %%
# Accuracy against bits
# ---------------------
# *After training*: a network is trained in float32, then its states are quantized. *In training*: the states are
# quantized from the start, and the gradient passes through the rounding unchanged (straight-through). A quantized
# neuron runs in a PyTorch loop, so this takes longer per step.

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
STEPS = 8


def network(bits=None):
    torch.manual_seed(0)
    options = {
        "beta": 0.9,
        "init_hidden": True,
        "state_quant": state_quant(bits) if bits else False,
    }
    return nn.Sequential(
        nn.Linear(64, 100), snn.Leaky(**options), nn.Linear(100, 10), snn.LI(init_hidden=True)
    )


def scores(net, x):
    snn.utils.reset(net)
    return snn.unroll(net, x, steps=STEPS).mean(0)


def train(net):
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(4):
        for batch in torch.randperm(1400).split(100):
            loss = nn.functional.cross_entropy(scores(net, images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


def accuracy(net):
    with torch.no_grad():
        right = scores(net, images[1400:]).argmax(1) == labels[1400:]
    return 100 * right.float().mean().item()


full = train(network())
widths = (1, 2, 3, 4, 6, 8)
after, during = [], []
for bits in widths:
    converted = network(bits)
    converted.load_state_dict(full.state_dict())
    after.append(accuracy(converted))
    during.append(accuracy(train(network(bits))))
    print(
        f"{bits} bits: {after[-1]:.1f} % quantized after training, {during[-1]:.1f} % in training"
    )
print(f"float32: {accuracy(full):.1f} %")

figure, panel = plt.subplots()
panel.plot(widths, after, "o-", label="after training")
panel.plot(widths, during, "o-", label="in training")
panel.axhline(accuracy(full), color="C6", linestyle="--", linewidth=1, label="float32")
panel.set(xlabel="bits per membrane", ylabel="test accuracy in %", title="Digits", xticks=widths)
panel.legend()
plt.show()

# %%
# Two bits are nearly enough here. With one bit, training with the quantization pays off; with more, rounding only adds
# noise to these few epochs.
