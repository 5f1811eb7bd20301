"""
Exchange networks by NIR
========================

After this script you can pass a trained network to another framework or to neuromorphic hardware, read one back, and
know beforehand whether it will fire the same spikes. It needs ``pip install 'spikeloom[nir]'``.
"""

import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import nir
import torch
from torch import nn

import spikeloom as snn

torch.manual_seed(0)

# %%
# A network that NIR can express
# ------------------------------
# NIR (Neuromorphic Intermediate Representation) describes neurons by differential equations. A spike sets the membrane
# to zero in the same step, so the network must be trained with this reset.

reset = {"reset_mechanism": "zero", "reset_delay": False}
net = nn.Sequential(
    nn.Linear(20, 50),
    snn.Leaky(beta=0.9, init_hidden=True, **reset),
    nn.Linear(50, 5),
    snn.Leaky(beta=0.8, init_hidden=True, **reset),
)
x, labels = torch.rand(40, 60, 20), torch.arange(60) % 5  # [T, B, 20]
x[:, torch.arange(60), labels] += 0.6  # the class is the input that is larger on average
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
for _ in range(25):
    snn.utils.reset(net)
    loss = nn.functional.cross_entropy(snn.unroll(net, x).sum(0), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
snn.utils.reset(net)
with torch.no_grad():
    spk = snn.unroll(net, x)
print(f"{(spk.sum(0).argmax(1) == labels).float().mean():.0%} of the training samples")

# %%
# Write it
# --------
# The second argument is the input of one step. The graph has a node per layer, with the parameters as arrays.

graph = snn.export_to_nir(net, x[0])
path = Path(tempfile.mkdtemp()) / "net.nir"
nir.write(path, graph)
for name, node in graph.nodes.items():
    print(f"{name:7} {type(node).__name__}")
print("edges:", ", ".join(f"{a}->{b}" for a, b in graph.edges))
print(
    f"tau of the first neurons: {graph.nodes['1'].tau[0]:.4f} s for a step of 0.1 ms; beta = 1 - 0.1 ms / tau = 0.9"
)

# %%
# Read it
# -------
# ``import_from_nir`` makes a network of layers of the library. Its outputs equal those of the original.

again = snn.import_from_nir(nir.read(path))
with torch.no_grad():
    out, _ = snn.unroll(again, x)
print(f"{int((out != spk).sum())} of {spk.numel()} spikes differ after reading the file")

# %%
# Other frameworks read the same file in their own ways: some ignore a parameter, some reset by subtraction. ``target``
# names the framework, and the graph is written so that it computes the same spikes there, or an error says why that is
# impossible.

for target in ("norse", "snntorch", "spikingjelly", "sinabs"):
    try:
        snn.export_to_nir(net, x[0], target=target)
        print(f"{target:13} the same spikes")
    except ValueError as error:
        print(f"{target:13} {str(error)[:90]} ...")

# %%
# A network that NIR cannot express
# ---------------------------------
# The default neuron subtracts the threshold one step later. No NIR graph does that, so the export is refused. With
# ``allow_approximate=True`` the nearest graph is written, and a warning counts what that changes.

default = nn.Sequential(nn.Linear(20, 5), snn.Leaky(beta=0.9, init_hidden=True))
with torch.no_grad():
    default[0].weight.abs_()
try:
    snn.export_to_nir(default, x[0])
except ValueError as error:
    print(str(error)[:160], "...")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    graph = snn.export_to_nir(default, x[0], allow_approximate=True, validation=x)
print(str(caught[-1].message).rsplit(". ", 1)[-1])

# %%
# The two in one picture: the same weights, once with the reset of the network, once with that of NIR.

approximate = snn.import_from_nir(graph, reset="zero")
snn.utils.reset(default)
with torch.no_grad(), snn.tap(default) as mine, snn.tap(approximate) as theirs:
    snn.unroll(default, x)
    snn.unroll(approximate, x)
(other,) = theirs.values()
figure, panel = plt.subplots()
for record, name, row in (
    (mine["1"], "subtract, one step later", 0),
    (other, "to zero, at once (NIR)", 1),
):
    panel.plot(record.mem[:, 0, 0], label=name)
    fired = record.spk[:, 0, 0].nonzero().flatten()
    panel.plot(
        fired, torch.full(fired.shape, -0.35 - 0.3 * row), "|", color=f"C{row}", markersize=9
    )
    print(f"{name:24} {len(fired)} spikes of this neuron")
panel.axhline(1, color="C6", linestyle="--", linewidth=1)
panel.set(xlabel="step", ylabel="membrane (below: spikes)", ylim=(-0.9, None))
panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
plt.show()
