"""
Surrogate gradients
===================

After this script you know why a spiking network needs a surrogate gradient, what each surrogate looks like, and which
of their properties matter in training.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import spikeloom as snn
from spikeloom import surrogate

# %%
# The problem and the trick
# -------------------------
# A neuron fires if its membrane exceeds the threshold: ``spk = H(u)`` with ``u = mem - threshold``. The derivative of
# this step is 0 everywhere except at ``u = 0``, where it does not exist. With it, no gradient would reach any weight.
# So the forward pass keeps the step, and the backward pass uses the derivative of a smooth function instead: a
# *surrogate*. It is large near the threshold, where a small change of the weights could add or remove a spike.

functions = {
    "atan()": surrogate.atan(),
    "fast_sigmoid()": surrogate.fast_sigmoid(),
    "sigmoid()": surrogate.sigmoid(),
    "triangle()": surrogate.triangle(),
    "boxcar()": surrogate.boxcar(),
    "gaussian()": surrogate.gaussian(),
    "exponential()": surrogate.exponential(),
    "straight_through_estimator()": surrogate.straight_through_estimator(),
    "SFS()": surrogate.SFS(),
    "LSO()": surrogate.LSO(),
    "heaviside()": surrogate.heaviside(),
    "no_gradient()": surrogate.no_gradient(),
}


def derivative(function, u):
    """The gradient that arrives at u if 1 arrives at the spike."""
    u = u.clone().requires_grad_()
    function(u).sum().backward()
    return u.grad


u = torch.linspace(-2, 2, 401)
figure, panels = plt.subplots(6, 2, figsize=(6, 9), sharex=True)
for panel, (name, function) in zip(panels.flat, functions.items(), strict=True):
    panel.plot(u, (u > 0).float(), color="C6", linewidth=1, linestyle="--")
    panel.plot(u, derivative(function, u), color="C1")
    panel.set_title(name, fontsize=10)
for panel in panels[-1]:
    panel.set_xlabel("membrane - threshold")
plt.show()
for name in ("atan()", "fast_sigmoid()", "sigmoid()", "triangle()"):
    slopes = derivative(functions[name], torch.tensor([0.0, 0.5, 1.0]))
    print(f"{name:15} at distances 0, 0.5, 1: " + ", ".join(f"{s:.3f}" for s in slopes))

# %%
# Dashed is the spike, orange the surrogate derivative. Heights differ, and widths too: ``sigmoid`` with its default
# slope of 25 is almost 0 at a distance of 0.5. ``SFS`` passes a gradient only beyond ``B``, by default 1.
# ``triangle`` and ``boxcar`` are exactly 0 beyond their width; then whole gradients are zero, which kernels can skip.
#
# Which one trains?
# -----------------
# A network of three layers learns scikit-learn's digits for four epochs with each surrogate, from the same weights.

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


def accuracy(spike_grad):
    torch.manual_seed(0)
    options = {"beta": 0.9, "init_hidden": True, "spike_grad": spike_grad}
    net = nn.Sequential(
        nn.Linear(64, 64),
        snn.Leaky(**options),
        nn.Linear(64, 64),
        snn.Leaky(**options),
        nn.Linear(64, 10),
        snn.LI(init_hidden=True),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(4):
        for batch in torch.randperm(1500).split(100):
            snn.utils.reset(net)
            out = snn.unroll(net, images[batch], steps=10).mean(0)
            loss = nn.functional.cross_entropy(out, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    snn.utils.reset(net)
    with torch.no_grad():
        out = snn.unroll(net, images[1500:], steps=10).mean(0)
    return 100 * (out.argmax(1) == labels[1500:]).float().mean().item()


results = {
    "atan(alpha=2)": accuracy(surrogate.atan(alpha=2.0)),
    "fast_sigmoid(25)": accuracy(surrogate.fast_sigmoid(slope=25)),
    "sigmoid(5)": accuracy(surrogate.sigmoid(slope=5)),
    "sigmoid(100)": accuracy(surrogate.sigmoid(slope=100)),
    "triangle(1)": accuracy(surrogate.triangle(width=1.0)),
    "no_gradient()": accuracy(surrogate.no_gradient()),
}
for name, value in results.items():
    print(f"{name:17} {value:.1f} % of the test digits")
figure, panel = plt.subplots(figsize=(6, 2.8))
panel.barh(list(results), list(results.values()))
panel.invert_yaxis()
panel.set(
    xlabel="test accuracy in %", title="The shape matters little, the width more", xlim=(0, 100)
)
plt.show()

# %%
# Without a gradient only the last layer learns, from random hidden neurons. A very steep surrogate learns less than the
# others, because few membranes are near enough to the threshold to pass a gradient.
#
# Your own
# --------
# A surrogate is its derivative, as a formula of ``u`` and constants. It is compiled into the kernels.


def bell(u, *, width):
    return 1 / (1 + (u / width) ** 2) ** 2


lorentz = surrogate.Spike("lorentz", bell, {"width": 0.5})
slopes = derivative(lorentz, torch.tensor([0.0, 0.5, 1.0]))
print(f"{lorentz} at distances 0, 0.5, 1: " + ", ".join(f"{s:.3f}" for s in slopes))
