"""
Train your first spiking network
================================

After this script you can train a spiking classifier: the loop, the loss, the accuracy, and what the trained network
does. It needs ``pip install 'spikeloom[demo]'``.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import spikeloom as snn
from spikeloom import functional as SF

snn.utils.seed(0)

# %%
# The data
# --------
# 1,797 handwritten digits of 8 x 8 pixels come with scikit-learn. The first 1,400 are used for training.

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
train = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=64, shuffle=True)
test_images, test_labels = images[1400:], labels[1400:]

# %%
# The network
# -----------
# Each image is shown for 20 steps. The pixels are constant currents of the first layer, so they need no spike code. The
# output neuron that fires most is the answer. ``output=True`` returns the membranes of the last layer too.

STEPS = 20
net = nn.Sequential(
    nn.Linear(64, 128),
    snn.Leaky(beta=0.9, init_hidden=True),
    nn.Linear(128, 10),
    snn.Leaky(beta=0.9, init_hidden=True, output=True),
)


def run(x):
    snn.utils.reset(net)  # every batch starts from membranes of zero
    return snn.unroll(net, x, steps=STEPS)  # spikes and membranes, [T, B, 10]


# %%
# Before training, the answers are guesses:

with torch.no_grad():
    spk, mem = run(test_images)
print(f"before training: {SF.accuracy_rate(spk, test_labels):.1%} of the test digits")
print(snn.utils.summary(net, test_images, steps=STEPS))

# %%
# The loop
# --------
# It is the loop of any PyTorch network. ``ce_count_loss`` is the cross-entropy of the spike counts. Gradients flow back
# through all layers and all steps; at each spike the backward pass uses the surrogate derivative.

optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
loss_of = SF.ce_count_loss()
history = {"training": [], "test": []}
for epoch in range(8):
    right = 0
    for x, y in train:
        spk, mem = run(x)
        loss = loss_of(spk, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right += SF.accuracy_rate(spk, y) * len(y)
    with torch.no_grad():
        spk, mem = run(test_images)
    history["training"].append(100 * right / 1400)
    history["test"].append(100 * float(SF.accuracy_rate(spk, test_labels)))
    print(f"epoch {epoch + 1}: test accuracy {history['test'][-1]:.1f} %")

figure, panel = plt.subplots()
snn.spikeplot.learning_curve(history, panel)
panel.set(ylabel="accuracy in %", title="Learning")
plt.show()

# %%
# One decision
# ------------
# The spikes and membranes of the output layer for one test digit. The neuron of the right class fires most.

n = 7
figure, panels = plt.subplots(1, 3, figsize=(6, 2.6), width_ratios=(1, 2, 2))
panels[0].imshow(test_images[n].reshape(8, 8), cmap="gray_r")
panels[0].set(xticks=[], yticks=[], title=f"a {test_labels[n]}")
snn.spikeplot.raster(spk[:, n], panels[1], s=25, c="C0")
panels[1].set(title="spikes", ylabel="class", yticks=range(10))
for c in range(10):
    chosen = c == test_labels[n]
    panels[2].plot(mem[:, n, c], color="C1" if chosen else "0.75", zorder=2 + int(chosen))
panels[2].axhline(1, color="C6", linestyle="--", linewidth=1)
panels[2].set(title=f"membranes ({test_labels[n]}: orange)", xlabel="step")
plt.show()
print("spikes per class:", spk[:, n].sum(0).int().tolist())

# %%
# Which digits are confused
# -------------------------

figure, panel = plt.subplots(figsize=(6, 4.5))
snn.spikeplot.confusion_matrix(spk.sum(0).argmax(1), test_labels, panel)
plt.show()

# %%
# How early could it decide?
# --------------------------
# The counts grow over time. Counting only the first steps costs accuracy at first, then hardly any: after five steps
# most answers are clear.

early = [100 * float(SF.accuracy_rate(spk[:t], test_labels)) for t in range(1, STEPS + 1)]
figure, panel = plt.subplots()
panel.plot(range(1, STEPS + 1), early, "o-")
panel.set(
    xlabel="steps that are counted",
    ylabel="test accuracy in %",
    title="Accuracy over time",
    xticks=range(0, 21, 5),
)
plt.show()
print(f"accuracy after 5, 10 and 20 steps: {early[4]:.1f}, {early[9]:.1f}, {early[19]:.1f} %")

# %%
# Next: :ref:`sphx_glr_tutorials_training_plot_convolutions.py`, :ref:`sphx_glr_tutorials_training_plot_spike_times.py`,
# and :ref:`sphx_glr_tutorials_learning_plot_firing_rates.py`.
