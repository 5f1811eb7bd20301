"""
Deploy to C
===========

After this script you can turn a trained network into one C file for a microcontroller, in floating point or in 8-bit
integers, and check that it computes the same spikes. It needs ``pip install 'spikeloom[demo]'``; if there is a C
compiler, it also compiles and runs the file.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import spikeloom as snn

snn.utils.seed(0)

# %%
# A trained network
# -----------------

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
STEPS = 15
net = nn.Sequential(
    nn.Linear(64, 64),
    snn.Leaky(beta=0.9, init_hidden=True),
    nn.Linear(64, 10),
    snn.Leaky(beta=0.9, init_hidden=True),
)


def run(x):
    snn.utils.reset(net)
    return snn.unroll(net, x, steps=STEPS)


optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
for _ in range(5):
    for batch in torch.randperm(1400).split(64):
        loss = nn.functional.cross_entropy(run(images[batch]).sum(0), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
with torch.no_grad():
    spk = run(images[1400:])
print(f"{(spk.sum(0).argmax(1) == labels[1400:]).float().mean():.1%} of the test digits")

# %%
# Export
# ------
# The second argument is an example of the input. The file needs ``math.h`` alone and allocates no memory. What it
# prints are its sizes, and what it leaves out.

folder = Path(tempfile.mkdtemp())
made = snn.export_c(net, images[1400:1404], folder / "net.c", steps=STEPS)
print(str(made).replace(str(folder), "."))

# %%
# The code follows the equation of the neuron:

source = (folder / "net.c").read_text()
begin = source.index("/* '1' (Leaky)")
print(source[begin : source.index("\n}", begin) + 2])

# %%
# Compile and test
# ----------------
# The file contains a test: it runs the example and compares every output with that of the network.


def compiled(name, *flags):
    """The path of the compiled program, or None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    program = folder / "program"
    subprocess.run(
        [compiler, "-std=c99", "-O2", *flags, folder / name, "-lm", "-o", program], check=True
    )
    return program


test = compiled("net.c", "-DNET_TEST")
if test is None:
    print("no C compiler found; with one, the generated test runs here")
else:
    print(subprocess.run([test], capture_output=True, text=True, check=False).stdout.strip())

# %%
# Integers
# --------
# ``number="int8"`` uses 8-bit weights and inputs and 32-bit states, without floating point. ``simulate_int8`` computes
# the same integers in Python, so you see before deployment what they cost.

small = snn.export_c(net, images[:64], folder / "small.c", "int8", steps=STEPS)
spk8 = snn.export.simulate_int8(net, images[1400:], steps=STEPS, calibration=images[:64])
print(f"int8: {(spk8.sum(0).argmax(1) == labels[1400:]).float().mean():.1%} of the test digits")
print(
    f"{(spk8 != spk).float().mean():.2%} of the output spikes differ from those in floating point"
)

# %%
# Where they differ
# -----------------
# The spike counts of the output neurons, in both number formats.

figure, panels = plt.subplots(1, 2, figsize=(6, 3))
exact, rounded = spk.sum(0).flatten(), spk8.sum(0).flatten()
jitter = 0.25 * torch.randn(2, len(exact))
panels[0].plot(exact + jitter[0], rounded + jitter[1], ".", markersize=2)
panels[0].set(
    xlabel="spikes in float", ylabel="spikes in int8", title="A point per digit and class"
)
n = int((spk8 != spk).sum((0, 2)).argmax())  # the digit with the most differences
both = spk[:, n] + 2 * spk8[:, n]
for value, color, name in ((3, "C6", "both"), (1, "C0", "float only"), (2, "C1", "int8 only")):
    steps, neurons = (both == value).nonzero(as_tuple=True)
    panels[1].plot(steps, neurons, "o", color=color, markersize=4, label=name)
panels[1].set(xlabel="step", ylabel="class", yticks=range(10), title="The worst digit")
figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %%
# Other ways out: :ref:`sphx_glr_tutorials_deployment_plot_export_onnx.py`
# and :ref:`sphx_glr_tutorials_deployment_plot_nir.py`.
