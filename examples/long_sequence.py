"""Train on a sequence of 100,000 steps, in memory that does not grow with its length.

    python examples/long_sequence.py                    # truncated backpropagation, one update per 500 steps
    python examples/long_sequence.py --way checkpoint   # one update, with gradients through all steps

The input has 32 channels of spikes in three groups, one of which fires most. That group changes at random times; the
network classifies it at every step. It requires tqdm (`pip install tqdm`).
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import spikeloom as snn

BATCH, GROUPS, CHANNELS, HIDDEN = 16, 3, 32, 64
STAY = 0.995  # probability that the group stays the same at a step


def network() -> nn.Sequential:
    """Spikes [T, B, 32] to membranes of three readout neurons [T, B, 3], the scores of the groups."""
    return nn.Sequential(
        nn.Linear(CHANNELS, HIDDEN),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(HIDDEN, GROUPS),
        snn.LI(beta=0.95, init_hidden=True),
    )


def signal(steps: int, length: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Generate chunks of `length` steps: spikes [t, B, 32], and the group that fires most, [t, B]."""
    draw = torch.Generator().manual_seed(seed)
    member = torch.arange(CHANNELS) % GROUPS
    group = torch.randint(GROUPS, (BATCH,), generator=draw)
    for begin in range(0, steps, length):
        labels = torch.empty(min(length, steps - begin), BATCH, dtype=torch.int64)
        change = torch.rand(labels.shape, generator=draw) > STAY
        others = torch.randint(GROUPS, labels.shape, generator=draw)
        for t in range(len(labels)):
            group = labels[t] = torch.where(change[t], others[t], group)
        rate = torch.where(labels.unsqueeze(-1) == member, 0.10, 0.02)
        yield (torch.rand(rate.shape, generator=draw) < rate).float(), labels


def loss_and_hits(scores: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """The mean loss over all steps, and the accuracy."""
    flat, wanted = scores.flatten(0, 1), labels.flatten()
    return cross_entropy(flat, wanted), (flat.argmax(1) == wanted).float().mean().item()


def train_by_chunks(
    net: nn.Module, optimizer: torch.optim.Optimizer, steps: int, length: int, seed: int
) -> list[float]:
    """Make one update per chunk; return the accuracy of each chunk."""
    labels: list[Tensor] = []
    hits = []

    def inputs() -> Iterator[Tensor]:
        for spikes, groups in signal(steps, length, seed):
            labels.append(groups)
            yield spikes

    for scores in tqdm(snn.stream(net, inputs()), total=-(-steps // length), unit="chunk"):
        loss, right = loss_and_hits(scores, labels.pop())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        hits.append(right)
    return hits


def whole(steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """The same signal at once: [T, B, 32] and [T, B]."""
    spikes, labels = torch.empty(steps, BATCH, CHANNELS), torch.empty(steps, BATCH, dtype=torch.int64)
    filled = 0
    for chunk, groups in signal(steps, 500, seed):
        spikes[filled : filled + len(chunk)], labels[filled : filled + len(chunk)] = chunk, groups
        filled += len(chunk)
    return spikes, labels


def train_at_once(
    net: nn.Module, optimizer: torch.optim.Optimizer, spikes: Tensor, labels: Tensor, checkpoint: int | None
) -> list[float]:
    """Make one update from all steps; return the accuracy."""
    scores = snn.unroll(net, spikes, checkpoint=checkpoint)
    loss, right = loss_and_hits(scores, labels)
    loss.backward()
    optimizer.step()
    return [right]


def peak() -> float:
    """The peak memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1e-6 if sys.platform == "darwin" else 1024e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=("chunks", "checkpoint", "plain"), default="chunks")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--chunk", type=int, default=500, help="number of steps per chunk")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    steps, length = arguments.steps, arguments.chunk

    snn.utils.seed(arguments.seed)
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    train_by_chunks(net, torch.optim.SGD(net.parameters(), lr=0.0), length, length, 1)  # loads the kernels
    snn.utils.reset(net)
    data = () if arguments.way == "chunks" else whole(steps, arguments.seed)
    before, begin = peak(), time.perf_counter()
    if data:
        hits = train_at_once(net, optimizer, *data, length if arguments.way == "checkpoint" else None)
    else:
        hits = train_by_chunks(net, optimizer, steps, length, arguments.seed)
    last = hits[-max(1, len(hits) // 10) :]
    print(f"{steps} steps in {time.perf_counter() - begin:.1f} s, peak memory grew by {peak() - before:.0f} MB")
    part = "all steps, before the update" if data else "the last tenth of the steps"
    print(f"accuracy {sum(last) / len(last):.1%} in {part}")


if __name__ == "__main__":
    main()
