"""
Event data: from a simulated camera to a trained network
========================================================

After this script you can read events, turn them into frames, batch recordings of different lengths, augment them, and
train a network on them. The events come from a simulated camera, so nothing is downloaded; files of N-MNIST, SHD and
others are read by ``snn.data.read_nmnist``, ``read_shd`` and so on, into the same form.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import spikeloom as snn
from spikeloom import data

snn.utils.seed(0)

# %%
# A camera that reports changes
# -----------------------------
# Each pixel of an event camera works alone. It sends an event when the logarithm of its brightness has changed by a
# threshold since its last event: *on* if it became brighter, *off* if darker. A still image gives no events, so the
# image is moved along a small triangle, as in the recording of N-MNIST.

images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
large = nn.functional.interpolate(images, scale_factor=2, mode="bilinear").clamp(0, 1)[
    :, 0
]  # 16 x 16 pixels
camera = data.EventCamera(threshold=0.3, noise_rate=0.1)
events = camera(
    data.saccades(large[2], steps=30), times=3000
)  # 3000 microseconds from frame to frame
print(f"{len(events)} events in {np.ptp(events['t']) / 1000:.0f} ms; fields {events.dtype.names}")
print(events[:3])

# %%
# Events are points in space and time. Two short pieces of time, as images:

frames = data.to_frames(events, sensor_size=(16, 16, 2), n_time_bins=9)
print(f"frames [T, polarity, height, width]: {tuple(frames.shape)}")
figure, panels = plt.subplots(1, 4, figsize=(6, 2))
panels[0].imshow(large[2], cmap="gray")
panels[0].set_title("image")
for panel, t in zip(panels[1:], (1, 4, 7), strict=True):
    panel.imshow(frames[t, 1] - frames[t, 0], cmap="PuOr", vmin=-3, vmax=3)  # on and off
    panel.set_title(f"frame {t}")
for panel in panels:
    panel.set(xticks=[], yticks=[])
plt.show()

figure, panel = plt.subplots()
for polarity, name in ((True, "on"), (False, "off")):
    some = events[events["p"] == polarity]
    panel.plot(some["t"] / 1000, some["y"] * 16 + some["x"], ".", markersize=2, label=name)
panel.set(xlabel="time in ms", ylabel="pixel", title="The three movements")
panel.legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2, markerscale=4)
plt.show()

# %%
# A dataset
# ---------
# 600 digits are recorded once. The recordings are events; the frames are made when a sample is loaded, so that the
# augmentation differs from epoch to epoch: ``EventDrop`` leaves out a tenth, ``SpatialShift`` moves by up to a pixel.

recordings = [camera(data.saccades(image, steps=18), times=3000) for image in large[:600]]
shift, drop = data.SpatialShift((16, 16, 2), max_shift=1), data.EventDrop(0.1, "any")


class Digits(torch.utils.data.Dataset):
    def __init__(self, rows, augment):
        self.rows, self.augment = rows, augment

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        events = recordings[self.rows[index]]
        if self.augment:
            events = drop(shift(events))
        return data.to_frames(events, (16, 16, 2), n_time_bins=8, binary=True), int(
            labels[self.rows[index]]
        )


train = torch.utils.data.DataLoader(
    Digits(range(500), True), 50, shuffle=True, collate_fn=data.collate
)
test = torch.utils.data.DataLoader(Digits(range(500, 600), False), 100, collate_fn=data.collate)
x, y, lengths = next(iter(train))
print(f"a batch: {tuple(x.shape)}, time first; {x.mean():.1%} of the values are 1")

# %%
# Train
# -----
# The spikes of the camera are the input of the network, step by step.

net = nn.Sequential(
    nn.Conv2d(2, 12, 5, padding=2),
    nn.MaxPool2d(2),
    snn.Leaky(beta=0.7, threshold=0.5, init_hidden=True),
    nn.Flatten(),
    nn.Linear(12 * 8 * 8, 10),
    snn.Leaky(beta=0.9, init_hidden=True),
)
snn.accelerate(net)  # skips the zeros of the input
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
loss_of = snn.functional.ce_count_loss()
history = {"train": [], "test": []}
for _ in range(6):
    for name, loader in (("train", train), ("test", test)):
        right = 0
        for x, y, lengths in loader:
            snn.utils.reset(net)
            with torch.set_grad_enabled(name == "train"):
                spk = snn.unroll(net, x)
                loss = loss_of(spk, y, lengths=lengths)
            if name == "train":
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            right += snn.functional.accuracy_rate(spk, y, lengths=lengths) * len(y)
        history[name].append(100 * right / len(loader.dataset))
figure, panel = plt.subplots()
snn.spikeplot.learning_curve(history, panel)
panel.set(ylabel="accuracy in %", title="Digits seen by an event camera")
plt.show()
print(f"{history['test'][-1]:.0f} % of 100 test recordings after {len(history['test'])} epochs")
