"""Train on handwritten digits by a plain PyTorch loop, with a validation split.

Run `python examples/plain_loop.py`. It requires scikit-learn (`pip install scikit-learn`).
"""

import argparse
from types import SimpleNamespace

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import spikeloom as snn

STEPS = 25
BATCH = 64


def data(seed: int) -> tuple[DataLoader, DataLoader]:
    """Return batches of (images [B, 64], labels [B]): four fifths to train, one fifth to validate."""
    pixels, labels = load_digits(return_X_y=True)
    train = SimpleNamespace(data=torch.tensor(pixels / 16, dtype=torch.float32), targets=torch.tensor(labels))
    train, valid = snn.utils.valid_split(train, SimpleNamespace(), split=0.2, seed=seed)
    return (
        DataLoader(TensorDataset(train.data, train.targets), BATCH, shuffle=True),
        DataLoader(TensorDataset(valid.data, valid.targets), BATCH),
    )


def network() -> nn.Sequential:
    """64 pixels, 128 hidden neurons, 10 output neurons; the one that fires most is the prediction."""
    return nn.Sequential(
        nn.Linear(64, 128),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(128, 10),
        snn.Leaky(beta=0.9, init_hidden=True, output=True),
    )


def counts(net: nn.Module, images: Tensor) -> Tensor:
    """Spike counts of the output neurons, [B, 10], over STEPS steps of a static image."""
    snn.utils.reset(net)
    spk, _ = snn.unroll(net, images, steps=STEPS)
    return spk.sum(0)


def train(net: nn.Module, batches: DataLoader, optimizer: torch.optim.Optimizer) -> float:
    """Train for one epoch; return the mean loss."""
    net.train()
    total = 0.0
    for images, labels in batches:
        loss = nn.functional.cross_entropy(counts(net, images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
    return total / len(batches.dataset)


@torch.no_grad()
def accuracy(net: nn.Module, batches: DataLoader) -> float:
    """Share of digits whose output neuron fires most."""
    net.eval()
    right = sum(int((counts(net, images).argmax(1) == labels).sum()) for images, labels in batches)
    return right / len(batches.dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, help="seed of all random numbers (default: a new one)")

    arguments = parser.parse_args()

    seed = snn.utils.seed(arguments.seed)
    batches, held_out = data(seed)
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    print(f"seed {seed}: {len(batches.dataset)} digits to train, {len(held_out.dataset)} to validate")
    for epoch in range(1, arguments.epochs + 1):
        loss = train(net, batches, optimizer)
        print(f"epoch {epoch:2}   loss {loss:.3f}   validation accuracy {accuracy(net, held_out):.1%}")
    images, _ = next(iter(held_out))
    print(f"\n{snn.utils.summary(net, images, steps=STEPS)}")


if __name__ == "__main__":
    main()
