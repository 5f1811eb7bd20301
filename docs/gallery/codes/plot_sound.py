"""
From sound to spikes
====================

After this script you can convert sound to events, by a model of the inner ear or by a mel spectrogram, and look at the
result.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import spikeloom as snn
from spikeloom import data

snn.utils.seed(0)

# %%
# A sound
# -------
# A tone that rises from 200 to 3000 Hz within 0.4 s, a pause, and a chord of two tones.

RATE = 8000
t = np.arange(int(0.4 * RATE)) / RATE
rising = np.sin(2 * np.pi * (200 * t + (3000 - 200) / (2 * 0.4) * t**2))
chord = 0.5 * (np.sin(2 * np.pi * 400 * t) + np.sin(2 * np.pi * 1600 * t))
fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.02)  # 20 ms, so that the ends do not click
sound = np.concatenate([fade * rising, np.zeros(RATE // 10), fade * chord])
print(f"{len(sound) / RATE:.1f} s of sound")

# %%
# The inner ear
# -------------
# The basilar membrane separates frequencies: each place resonates at one. Hair cells at each place release transmitter,
# and tire under a constant tone. The bushy cells behind them are leaky integrate-and-fire neurons. This chain made the
# data sets SHD and SSC; the model here has the same stages.

ear = data.inner_ear(sound, sample_rate=RATE, channels=64)
print(f"inner ear: {len(ear)} events; fields {ear.dtype.names}")

# %%
# Mel bands
# ---------
# The simpler way: the power in 40 bands, evenly spaced in mel, and an event whenever the logarithm of a band has
# changed by a threshold since its last event (*send on delta*). Constant parts of a sound give no events.

mel = data.mel_events(sound, sample_rate=RATE, n_mels=40, delta=0.3)
print(f"mel bands: {len(mel)} events")

figure, panels = plt.subplots(3, 1, figsize=(6, 6.5), sharex=True, height_ratios=(1, 2, 2))
panels[0].plot(np.arange(len(sound)) / RATE, sound, linewidth=0.4)
panels[0].set(ylabel="sound", title="A rising tone, a pause, a chord")
panels[1].plot(ear["t"] / 1e6, ear["x"], ".", markersize=1.5)
panels[1].set(ylabel="channel", title=f"inner ear: {len(ear)} events")
panels[1].invert_yaxis()  # channel 0 has the highest frequency
for on, name in ((True, "rises"), (False, "falls")):
    some = mel[mel["p"] == on]
    panels[2].plot(some["t"] / 1e6, some["x"], ".", markersize=4, label=name)
panels[2].set(ylabel="band", xlabel="time in s", title=f"mel bands: {len(mel)} events")
panels[2].legend(loc="upper right", ncols=2, markerscale=2)
plt.show()

# %%
# The ear tires
# -------------
# Spikes per 10 ms during the chord: many at its onset, then fewer, as in the auditory nerve.

counts, edges = np.histogram(ear["t"] / 1e6, bins=np.arange(0.4, 0.95, 0.01))
figure, panel = plt.subplots()
panel.stairs(counts, edges, fill=True)
panel.set(xlabel="time in s", ylabel="spikes per 10 ms", title="The chord begins at 0.5 s")
plt.show()
onset, later = counts[12:18].mean(), counts[30:50].mean()
print(f"{onset:.0f} spikes per 10 ms in the first 60 ms, {later:.0f} after 200 ms")

# %%
# As input of a network
# ---------------------
# ``to_frames`` counts the events in windows of 5 ms. The result is a sequence ``[T, N]``, the input of any network.

x = data.to_frames(ear, (64,), time_window=5000, start=0).clamp(max=1)
net = torch.nn.Sequential(torch.nn.Linear(64, 20), snn.Leaky(beta=0.9, init_hidden=True))
with torch.no_grad():
    spk = snn.unroll(net, x[:, None])
print(f"frames {tuple(x.shape)}, {x.mean():.1%} of the values are 1; output {tuple(spk.shape)}")
