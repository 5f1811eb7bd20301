"""Train on handwritten digits in several processes, with torchrun and DistributedDataParallel.

On one machine with two processes:

    torchrun --nproc_per_node 2 examples/distributed_digits.py

On several machines, run the same command on each, with the address of the first:

    torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint first.machine:29500 \
        examples/distributed_digits.py

It requires scikit-learn and tqdm (`pip install scikit-learn tqdm`). Each process uses one GPU if there are any.
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
    """The network over all steps. A wrapped module must reset and unroll in its own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, images: Tensor) -> Tensor:
        return counts(self.net, images)


def start() -> torch.device:
    """Join the process group that torchrun describes in the environment; return the device."""
    dist.init_process_group()  # NCCL among GPUs, gloo among CPUs
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def shares(dataset: Dataset, shuffle: bool) -> DataLoader:
    """This process's part of a dataset, in batches of BATCH over all processes."""
    sampler = DistributedSampler(dataset, shuffle=shuffle)
    return DataLoader(dataset, BATCH // dist.get_world_size(), sampler=sampler)


def train(net: nn.Module, batches: DataLoader, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Train for one epoch, with a progress bar in process 0."""
    net.train()
    for images, labels in tqdm(batches, desc="training", disable=dist.get_rank() > 0):
        loss = nn.functional.cross_entropy(net(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()  # also averages the gradients over all processes
        optimizer.step()


@torch.no_grad()
def accuracy(net: nn.Module, batches: DataLoader, device: torch.device) -> float:
    """Share of digits whose output neuron fires most, over all processes."""
    net.eval()
    right = torch.zeros(2, device=device)
    for images, labels in batches:
        hits = net(images.to(device)).argmax(1) == labels.to(device)
        right += torch.stack([hits.sum(), torch.tensor(len(hits), device=device)])
    dist.all_reduce(right)
    return (right[0] / right[1]).item()


def state(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """The content of a checkpoint. It has no states of neurons, since every batch starts from the initial state."""
    model, optim = get_state_dict(net, optimizer)
    return {"net": model, "optimizer": optim}


def run(epochs: int, seed: int, load: Path | None, save: Path | None) -> None:
    """Train, in each process."""
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
        batches.sampler.set_epoch(epoch)  # another order in each epoch
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
    parser.add_argument("--load", type=Path, help="checkpoint to continue from, saved by any number of processes")
    parser.add_argument("--save", type=Path, help="folder of the checkpoint, accessible from all processes")
    run(**vars(parser.parse_args()))
    # Only after the wrapped network is deleted: destroying the group while it holds a reference would deadlock.

    dist.destroy_process_group()


if __name__ == "__main__":
    main()
