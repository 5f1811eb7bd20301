"""Handwritten digits on several processes, by torchrun and DistributedDataParallel.

On one machine, here with two processes:

    torchrun --nproc_per_node 2 examples/distributed_digits.py

On several machines, the same line on each, with the address of the first:

    torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint first.machine:29500 \
        examples/distributed_digits.py

It needs scikit-learn and tqdm (`pip install 'spikeloom[demo]'`). Each process takes a GPU where there are any.
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from plain_loop import counts, data, network
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from tqdm import tqdm

import spikeloom as snn

BATCH = 64  # over all processes


class Counting(nn.Module):
    """The network over all its steps: what is wrapped for many processes resets and unrolls by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, images: Tensor) -> Tensor:
        return counts(self.net, images)


def start() -> torch.device:
    """Join the other processes, of which torchrun has told in the environment."""
    dist.init_process_group()  # NCCL among GPUs, gloo among CPUs
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def shares(dataset: Dataset, shuffle: bool) -> DataLoader:
    """This process's share of a dataset, in batches that make BATCH over all processes."""
    sampler = DistributedSampler(dataset, shuffle=shuffle)
    return DataLoader(dataset, BATCH // dist.get_world_size(), sampler=sampler)


def train(net: nn.Module, batches: DataLoader, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """One epoch, with a bar in process 0."""
    net.train()
    for images, labels in tqdm(batches, desc="training", disable=dist.get_rank() > 0):
        loss = nn.functional.cross_entropy(net(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()  # the gradients are averaged over all processes on the way
        optimizer.step()


@torch.no_grad()
def accuracy(net: nn.Module, batches: DataLoader, device: torch.device) -> float:
    """The share of digits whose neuron fires most, over all processes."""
    net.eval()
    right = torch.zeros(2, device=device)
    for images, labels in batches:
        hits = net(images.to(device)).argmax(1) == labels.to(device)
        right += torch.stack([hits.sum(), torch.tensor(len(hits), device=device)])
    dist.all_reduce(right)
    return (right[0] / right[1]).item()


def state(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """What a checkpoint holds; the neurons' states are not in it, since every batch begins afresh."""
    model, optim = get_state_dict(net, optimizer)
    return {"net": model, "optimizer": optim}


def run(epochs: int, seed: int, load: Path | None, save: Path | None) -> None:
    """The training, in each process."""
    device = start()
    snn.utils.seed(seed)
    training, held_out = (loader.dataset for loader in data(seed))
    batches, valid = shares(training, shuffle=True), shares(held_out, shuffle=False)
    net = DistributedDataParallel(Counting().to(device))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    if load:
        saved = state(net, optimizer)
        dcp.load(saved, checkpoint_id=load)
        set_state_dict(net, optimizer, model_state_dict=saved["net"], optim_state_dict=saved["optimizer"])

    first, sizes = dist.get_rank() == 0, f"{len(training)} digits to train, {len(held_out)} to validate"
    if first:
        print(f"seed {seed}: {sizes}, on {dist.get_world_size()} processes")
    for epoch in range(1, epochs + 1):
        batches.sampler.set_epoch(epoch)  # shuffles anew
        train(net, batches, optimizer, device)
        reached = accuracy(net, valid, device)
        if first:
            print(f"epoch {epoch:2}   validation accuracy {reached:.1%}")
    if save:
        dcp.save(state(net, optimizer), checkpoint_id=save)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="the same in every process")
    parser.add_argument("--load", type=Path, help="go on from here; any number of processes may have saved it")
    parser.add_argument("--save", type=Path, help="a folder that all processes see")
    run(**vars(parser.parse_args()))
    # Only now that the wrapped network is gone: the last to let go of the processes' connection would wait for itself.
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
