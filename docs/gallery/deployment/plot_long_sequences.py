"""
Long sequences and streams
==========================

After this script you can train on sequences that do not fit in memory, and run a network on a stream that never ends.
"""

import resource

import matplotlib.pyplot as plt
import torch
from torch import nn

import spikeloom as snn

snn.utils.seed(0)
net = nn.Sequential(
    nn.Linear(8, 64),
    snn.Leaky(beta=0.95, init_hidden=True),
    nn.Linear(64, 3),
    snn.LI(beta=0.95, init_hidden=True),
)

# %%
# Three ways, one network
# -----------------------
# Training needs the membranes of all steps for the backward pass, so memory grows with the length of the sequence.
#
# - ``snn.unroll(net, x)``: all steps, exact gradients;
# - ``snn.unroll(net, x, checkpoint=K)``: the same gradients; only the states at every ``K``-th step are stored, and the
#   rest is computed again in the backward pass;
# - ``snn.stream(net, chunks)``: chunk by chunk, with an update after each. Gradients stop at the border of a chunk
#   (truncated backpropagation), the states go on.

x, target = torch.rand(2000, 4, 8), torch.rand(2000, 4, 3)


def gradient(**options):
    snn.utils.reset(net)
    net.zero_grad()
    nn.functional.mse_loss(snn.unroll(net, x, **options), target).backward()
    return net[0].weight.grad.clone()


exact, recomputed = gradient(), gradient(checkpoint=50)
difference = (exact - recomputed).abs().max() / exact.abs().max()
print(f"largest difference of the gradients, relative to the largest gradient: {difference:.1e}")


# %%
# Memory
# ------
# The tensors that autograd saves can be counted with a hook. (Without hooks, the library stores some spikes as bits,
# which takes less.)


def saved_megabytes(steps, **options):
    seen = {}

    def pack(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    snn.utils.reset(net)
    sequence = torch.rand(steps, 4, 8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        snn.unroll(net, sequence, **options)
    return sum(seen.values()) / 1e6


lengths = (1000, 2000, 4000, 8000)
figure, panel = plt.subplots()
panel.plot(lengths, [saved_megabytes(T) for T in lengths], "o-", label="unroll: the whole sequence")
panel.plot(
    lengths, [saved_megabytes(500) for T in lengths], "o-", label="stream: a chunk of 500 steps"
)
panel.set(
    xlabel="steps of the sequence",
    ylabel="saved for backward in MB",
    title="Memory of a training step",
    ylim=(0, None),
)
panel.legend()
plt.show()
print(
    f"8000 steps: {saved_megabytes(8000):.1f} MB at once, {saved_megabytes(500):.1f} MB in chunks of 500"
)

# %%
# Train on a stream
# -----------------
# The source is a generator that could be a file or a sensor: a noisy signal whose source, one of three, changes every
# 200 steps. The network says at every step which it is. Nothing longer than a chunk is ever in memory.


def source(chunks, length=100):
    """Yield chunks [t, B, 8] and labels [t, B]."""
    means = torch.rand(3, 8, generator=torch.Generator().manual_seed(5))
    for number in range(chunks):
        if number % 2 == 0:
            state = torch.randint(3, (16,))
        labels = state.expand(length, 16)
        yield means[labels] + 0.6 * torch.randn(length, 16, 8), labels


def inputs_of(pairs, seen):
    for x, labels in pairs:
        seen.append(labels)
        yield x


optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
snn.utils.reset(net)
seen, accuracy, peaks = [], [], []
for out in snn.stream(net, inputs_of(source(300), seen)):
    labels = seen.pop()
    loss = nn.functional.cross_entropy(out.flatten(0, 1), labels.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    accuracy.append(100 * (out.argmax(2) == labels).float().mean().item())
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(f"30,000 steps: {sum(accuracy[-50:]) / 50:.0f} % right in the last 5,000")
print(
    f"the memory of the process grew by {peaks[-1] - peaks[20]:.0f} MB after the first 2,000 steps"
)

figure, panel = plt.subplots()
panel.plot(torch.arange(1, 301) * 100, accuracy, linewidth=1)
panel.set(xlabel="step", ylabel="right in %", title="One pass over a stream", ylim=(0, 100))
plt.show()

# %%
# The signal changes before every second chunk, and the network needs some steps to notice; hence the zigzag.
#
# Use it
# ------
# Without gradients, ``stream`` stores nothing at all. The result is that of one ``unroll`` over the whole sequence.

snn.utils.reset(net)
with torch.no_grad():
    parts = torch.cat(list(snn.stream(net, x.split(150))))
    snn.utils.reset(net)
    whole = snn.unroll(net, x)
print(f"largest difference between stream and unroll: {(parts - whole).abs().max():.1e}")
