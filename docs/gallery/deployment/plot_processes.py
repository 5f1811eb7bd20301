"""
Train in several processes
==========================

After this script you can train one network in several processes, on one machine or many, with PyTorch's own tools. It
starts two processes on the CPU.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

# %%
# The training script
# -------------------
# Each process trains a copy of the network on its part of every batch. ``DistributedDataParallel`` (DDP) averages the
# gradients, so that all copies make the same update. Spiking networks need one thing: DDP must wrap a module whose
# ``forward`` runs *all* steps, so that gradients are averaged once per batch, not once per step. The membranes are
# neither parameters nor buffers; each process has those of its own samples.

SCRIPT = """
import json, sys
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import spikeloom as snn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(64, 100), snn.Leaky(beta=0.9, init_hidden=True, learn_beta=True),
            nn.Linear(100, 10), snn.Leaky(beta=0.9, init_hidden=True))

    def forward(self, x):
        snn.utils.reset(self.net)
        return snn.unroll(self.net, x, steps=15).sum(0)    # spike counts


torch.set_num_threads(1)
dist.init_process_group("gloo")            # "nccl" on GPUs
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
net = DistributedDataParallel(Classifier())
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
accuracies = []
for epoch in range(3):
    order = torch.randperm(1400)           # the same in all processes, from the same seed
    for batch in order.split(64):
        mine = batch[rank::size]           # a part of the batch
        loss = nn.functional.cross_entropy(net(images[mine]), labels[mine])
        optimizer.zero_grad()
        loss.backward()                    # averages the gradients
        optimizer.step()
    with torch.no_grad():
        right = net.module(images[1400:]).argmax(1) == labels[1400:]
    accuracies.append(100 * right.float().mean().item())
weights = torch.cat([p.detach().flatten() for p in net.parameters()])
gathered = [torch.zeros_like(weights) for _ in range(size)]
dist.all_gather(gathered, weights)
if rank == 0:
    equal = all(torch.equal(weights, other) for other in gathered)
    json.dump({"size": size, "accuracies": accuracies, "equal": equal}, open(sys.argv[1], "w"))
dist.destroy_process_group()
"""
folder = Path(tempfile.mkdtemp())
(folder / "train.py").write_text(SCRIPT)

# %%
# Start it
# --------
# ``torchrun`` starts the processes and tells each its rank. On a command line::
#
#     torchrun --standalone --nproc_per_node 2 train.py result.json
#
# ``--nnodes`` and ``--rdzv_endpoint`` are for several machines.


def run(processes):
    result = folder / f"{processes}.json"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, folder / "train.py", result], check=True, capture_output=True, env=environment
    )
    return json.loads(result.read_text())


results = [run(1), run(2)]
figure, panel = plt.subplots()
for result, style in zip(results, ("o-", "s--"), strict=True):
    name = f"{result['size']} process{'es' * (result['size'] > 1)}"
    panel.plot(range(1, 4), result["accuracies"], style, label=name)
    print(f"{name}: {result['accuracies'][-1]:.1f} % of the test digits")
panel.set(
    xlabel="epoch", ylabel="test accuracy in %", title="The same training", xticks=range(1, 4)
)
panel.set_ylim(0, 100)
panel.legend(loc="lower right")
plt.show()
print(f"both processes have the same weights: {results[1]['equal']}")

# %%
# Both runs make the same updates up to rounding: the gradient of a batch is the mean of those of its parts, if these
# have the same size. Rounding flips single spikes, so the curves separate after some updates.
#
# For networks that do not fit into one device, ``fully_shard`` (FSDP) distributes the parameters;
# ``snn.distributed.scalars`` and ``average_gradients`` help with learned decays, which are too small to be distributed.
