"""
On a GPU
========

After this script you can move a spiking network to a GPU, see which kernels it runs there, and train in mixed
precision. The script runs on the CPU if there is no GPU, and says so.
"""

import statistics
import time

import matplotlib.pyplot as plt
import torch
from torch import nn

import spikeloom as snn

# %%
# The device
# ----------
# Nothing but the device changes. States are created on the device of the input.

device = "cuda" if torch.cuda.is_available() else "cpu"
print(
    "This run uses",
    torch.cuda.get_device_name() if device == "cuda" else "the CPU: there is no GPU here.",
)

torch.manual_seed(0)
net = nn.Sequential(
    nn.Linear(100, 128),
    snn.Leaky(beta=0.9, init_hidden=True),
    nn.Linear(128, 128),
    snn.RLeaky(beta=0.9, linear_features=128, init_hidden=True),
    nn.Linear(128, 10),
    snn.LI(init_hidden=True),
).to(device)
x = (torch.rand(100, 32, 100, device=device) < 0.1).float()
labels = torch.randint(10, (32,), device=device)

# %%
# What runs each layer
# --------------------
# On a CUDA or ROCm device the neurons run on Triton kernels, on the CPU on Numba kernels, generated from the same
# equation. A layer that falls back to the PyTorch loop shows the reason in the last column.

print(snn.explain(net, x))


# %%
# Check the kernels against the loop
# ----------------------------------
# The plain PyTorch loop over the equation is the reference on every device.


def spikes():
    snn.utils.reset(net)
    with torch.no_grad(), snn.tap(net) as record:
        snn.unroll(net, x)
    return record["1"].spk, record["3"].spk


by_kernel = spikes()
with snn.backend("loop"):
    by_loop = spikes()
for name, a, b in zip(("layer 1", "layer 3"), by_kernel, by_loop, strict=True):
    print(f"{name}: {int((a != b).sum())} of {a.numel()} spikes differ between kernel and loop")

# %%
# The recurrent layer adds up its weights in another order than PyTorch's product. A spike may differ where a membrane
# is within rounding of the threshold; here that is rare or does not happen.
#
# Mixed precision
# ---------------
# Under autocast the matrix products run in bfloat16. The membranes stay in float32, because they are sums over many
# steps: in bfloat16 they would lose small inputs.

optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)


def update(dtype):
    """Make one update in a precision, and return the loss."""
    snn.utils.reset(net)
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        out = snn.unroll(net, x)
    loss = nn.functional.cross_entropy(out.float().mean(0), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


with torch.no_grad(), torch.autocast(device, torch.bfloat16):
    snn.utils.reset(net)
    first = snn.unroll(net[:2], x)
print("spikes under autocast:", first.dtype, "- membrane:", net[1].mem.dtype)
losses = [update(torch.bfloat16) for _ in range(20)]
print(f"loss of a batch: {losses[0]:.2f} -> {losses[-1]:.2f}")

# %%
# Measure
# -------
# A GPU works in the background: ``torch.cuda.synchronize()`` waits until it has finished, and must stand before each
# look at the clock. The first calls compile kernels and are left out.


def milliseconds(dtype, repeats=10):
    samples = []
    for _ in range(2 + repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        update(dtype)
        if device == "cuda":
            torch.cuda.synchronize()
        samples.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(samples[2:])


times = {
    "float32": milliseconds(torch.float32),
    "autocast to bfloat16": milliseconds(torch.bfloat16),
}
with snn.backend("loop"):
    times["float32, loop over steps"] = milliseconds(torch.float32, repeats=3)
for name, value in times.items():
    print(f"{name:25} {value:7.1f} ms")
figure, panel = plt.subplots(figsize=(6, 2.2))
panel.barh(list(times), list(times.values()))
panel.invert_yaxis()
panel.set(
    xlabel="milliseconds per update",
    title=f"100 steps, 32 samples, on the {'GPU' if device == 'cuda' else 'CPU'}",
)
plt.show()

# %%
# On many CPUs bfloat16 is emulated and slower; it is meant for GPUs.
