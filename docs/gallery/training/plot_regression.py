"""
Regression: forecast a chaotic signal
=====================================

After this script you can train a spiking network to output numbers that change over time, instead of a class.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import spikeloom as snn
from spikeloom import functional as SF

snn.utils.seed(0)

# %%
# The signal
# ----------
# The Mackey-Glass equation describes a quantity that is fed back with a delay. For a delay of 17 its solution never
# repeats:
#
# .. math::
#
#    \dot x(t) = \frac{0.2\, x(t - 17)}{1 + x(t - 17)^{10}} - 0.1\, x(t)

DT, DELAY = 0.1, 170  # ten steps of Euler per unit of time
series = [1.2] * (DELAY + 1)
for _ in range(30_000):
    old = series[-1 - DELAY]
    series.append(series[-1] + DT * (0.2 * old / (1 + old**10) - 0.1 * series[-1]))
signal = torch.tensor(series[DELAY + 1 :: 20])  # a sample every two units of time
signal = (signal - signal.mean()) / signal.std()
print(f"{len(signal)} samples")

# %%
# The task
# --------
# The network reads one sample per step, and its output at this step is the forecast of the sample ``AHEAD`` steps
# later. Windows of 100 steps are the training sequences; the last 300 steps are never seen in training.

AHEAD, T = 5, 100
starts = torch.arange(0, 1000, 8)
index = starts + torch.arange(T)[:, None]  # [T, B]
x, y = signal[index][..., None], signal[index + AHEAD][..., None]  # [T, B, 1]

# %%
# The network
# -----------
# ``snn.LI`` is a leaky integrator without spikes: its membrane is the output. Neurons with different decays give it
# spikes on different time scales. ``RLeaky`` neurons also excite and inhibit each other, one step later.


def network(recurrent):
    torch.manual_seed(0)
    beta = torch.linspace(0.3, 0.95, 100)
    if recurrent:
        neurons = snn.RLeaky(beta=beta, linear_features=100, init_hidden=True)
    else:
        neurons = snn.Leaky(beta=beta, init_hidden=True)
    return nn.Sequential(
        nn.Linear(1, 100), neurons, nn.Linear(100, 1), snn.LI(beta=0.6, init_hidden=True)
    )


def run(net, x):
    snn.utils.reset(net)
    return snn.unroll(net, x)


# %%
# ``mse_membrane_loss`` compares membranes with targets at every step. The first 20 steps, in which the network has seen
# too little, are left out by a mask.

loss_of = SF.mse_membrane_loss(time_var_targets=True)
mask = (torch.arange(T) >= 20)[:, None]
histories, nets = {}, {"feed-forward": network(False), "recurrent": network(True)}
for name, net in nets.items():
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
    histories[name] = []
    for _ in range(120):
        batch = torch.randint(len(starts), (32,))
        loss = loss_of(run(net, x[:, batch]), y[:, batch], mask=mask.expand(T, 32))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        histories[name].append(loss.item())
figure, panel = plt.subplots()
for name, history in histories.items():
    panel.semilogy(history, label=name)
panel.set(xlabel="update", ylabel="squared error", title="Training")
panel.legend()
plt.show()

# %%
# The forecast
# ------------
# The signal has variance 1, so an error of 1 is that of the mean. Repeating the last sample is a stronger rival.

test = signal[-300:]
target = test[AHEAD:][20:]
figure, panel = plt.subplots(figsize=(6, 3.3))
panel.plot(range(20 + AHEAD, 300), target, color="C6", label="signal", linewidth=3, alpha=0.5)
for name, net in nets.items():
    with torch.no_grad():
        forecast = run(net, test[:-AHEAD, None, None])[20:, 0, 0]
    panel.plot(range(20 + AHEAD, 300), forecast, label=name)
    print(f"{name:13} test error {(forecast - target).square().mean():.3f}")
print(f"last sample   test error {(test[20:-AHEAD] - target).square().mean():.3f}")
panel.set(
    xlabel="step",
    ylabel="signal",
    title=f"Forecasts, {AHEAD} steps ahead",
    xlim=(20, 170),
    ylim=(None, 3.4),
)
panel.legend(ncols=3, loc="upper center")
plt.show()
