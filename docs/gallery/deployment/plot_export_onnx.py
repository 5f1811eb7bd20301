"""
Deploy by ONNX
==============

After this script you can write a trained network to an ONNX file and run it without PyTorch: on a server, on a phone,
in a browser, over whole sequences or step by step. It needs ``pip install 'spikeloom[onnx]' onnxruntime``.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import torch
from torch import nn

import spikeloom as snn

torch.manual_seed(0)

# %%
# Export
# ------
# The example fixes the shape of a step. The number of steps and the batch size stay free. (The weights here are random;
# with a trained network nothing else changes.)

net = nn.Sequential(
    nn.Linear(10, 40),
    snn.Synaptic(alpha=0.6, beta=0.8, init_hidden=True),
    nn.Linear(40, 4),
    snn.Leaky(beta=0.9, threshold=0.5, init_hidden=True, output=True),
)
x = (torch.rand(50, 8, 10) < 0.3).float()
path = Path(tempfile.mkdtemp()) / "net.onnx"
done = snn.export_onnx(net, x, path)
print(str(done).replace(str(path.parent), "."))

# %%
# Run it
# ------
# onnxruntime takes and returns NumPy arrays. Another length and another batch size work too.

session = onnxruntime.InferenceSession(path)
longer = (torch.rand(200, 3, 10) < 0.3).float()
spk, mem = session.run(None, {"x": longer.numpy()})
snn.utils.reset(net)
with torch.no_grad():
    wanted, _ = snn.unroll(net, longer)
print(
    f"{spk.shape}: {int((spk != wanted.numpy()).sum())} of {spk.size} spikes differ from the network's"
)

# %%
# What is in the file
# -------------------
# Linear layers run over all steps at once. Each neuron is a ``Scan``: a loop over time whose body is one step of its
# equation, in standard operators.

import onnx

model = onnx.load(path)
for node in model.graph.node:
    body = [a.g for a in node.attribute if a.name == "body"]
    inside = f" of {', '.join(sorted({n.op_type for n in body[0].node}))}" if body else ""
    print(f"{node.op_type}{inside}")

# %%
# A stream
# --------
# With ``states="external"`` the states are inputs and outputs of the file. Each call goes on where the last one ended,
# with any number of steps, even one.

stream = snn.export_onnx(net, x, path.with_name("stream.onnx"), states="external")
session = onnxruntime.InferenceSession(path.with_name("stream.onnx"))
names = [output.name for output in session.get_outputs()]
states, spikes, membranes = stream.initial_states(batch=3), [], []
for chunk in longer.split(30):
    results = dict(zip(names, session.run(None, {"x": chunk.numpy(), **states}), strict=True))
    states = {name: results[after] for name, after in stream.states.items()}
    spikes.append(results["spk"])
    membranes.append(results["mem"])
print(
    f"in chunks of 30 steps: {int((np.concatenate(spikes) != wanted.numpy()).sum())} spikes differ"
)
print("states:", ", ".join(f"{name} {value.shape}" for name, value in states.items()))

figure, panel = plt.subplots()
panel.plot(np.concatenate(membranes)[:, 0, :2])
for border in range(30, 200, 30):
    panel.axvline(border, color="C6", linewidth=0.7, linestyle=":")
panel.axhline(0.5, color="C6", linestyle="--", linewidth=1)
panel.set(
    xlabel="step", ylabel="membrane", title="Two output neurons in onnxruntime; dotted: calls"
)
plt.show()
