"""A small network learns handwritten digits from each code, to the accuracy stated, in seconds."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom import demo, spikegen

HIDDEN = 100


@dataclass(frozen=True)
class Learner:
    """A code and what is learned from it.

    Args:
        encode: pixels [B, 64], 0 to 1, to spikes [T, B, features].
        features: what a step of it has per digit.
        accuracy: the share of test digits that are known afterwards; chance is 0.1.
        epochs: rounds over the 1,437 training digits.
        beta: decay of the hidden neurons.
    """

    encode: Callable[[Tensor], Tensor]
    features: int
    accuracy: float
    epochs: int = 6
    beta: float | Tensor = 0.9


def swept(pixels: Tensor) -> Tensor:
    """Digits [B, 64] as a sequence: at each of 8 steps one row and one column of the image, [8, B, 16]."""
    images = pixels.unflatten(1, (8, 8))
    return torch.cat([images.movedim(1, 0), images.movedim(2, 0)], dim=2)


LEARNERS = {
    "rate": Learner(spikegen.Rate(15), 64, accuracy=0.92),
    "latency": Learner(spikegen.Latency(10, normalize=True, linear=True, clip=True), 64, accuracy=0.88, epochs=8),
    "delta": Learner(
        lambda x: spikegen.delta(swept(x), threshold=0.2, off_spike=True),
        16,
        accuracy=0.85,
        epochs=14,
        beta=torch.linspace(0.2, 0.98, HIDDEN),
    ),
    "population": Learner(lambda x: spikegen.population(x, 8, num_neurons=4).flatten(2), 256, accuracy=0.93),
    "phase": Learner(spikegen.Phase(8), 64, accuracy=0.88),
    "burst": Learner(spikegen.Burst(10, max_spikes=4), 64, accuracy=0.90),
}


@pytest.fixture(scope="module")
def digits() -> demo.Digits:
    return demo.load()


def counts(net: nn.Module, spk: Tensor) -> Tensor:
    """How often each of the ten output neurons fires, [B, 10]."""
    snn.utils.reset(net)
    return snn.unroll(net, spk)[0].sum(0)


def test_the_guess_without_training_is_chance(digits):
    """Guards the test below: what it measures is learned."""
    assert accuracy(network(LEARNERS["rate"]), LEARNERS["rate"], digits) < 0.3


@pytest.mark.parametrize("name", LEARNERS)
def test_digits_are_learned(name, digits):
    learner = LEARNERS[name]
    net = network(learner)
    optimizer = torch.optim.Adam(net.parameters(), lr=8e-3)
    for _ in range(learner.epochs):
        for batch in torch.randperm(len(digits.train)).split(96):
            fired = counts(net, learner.encode(digits.train[batch]))
            optimizer.zero_grad()
            nn.functional.cross_entropy(fired, digits.train_labels[batch]).backward()
            optimizer.step()
    assert accuracy(net, learner, digits) >= learner.accuracy


def network(learner: Learner) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(learner.features, HIDDEN),
        snn.Leaky(beta=learner.beta, init_hidden=True),
        nn.Linear(HIDDEN, 10),
        snn.Leaky(beta=0.9, init_hidden=True, output=True),
    )


@torch.no_grad()
def accuracy(net: nn.Module, learner: Learner, digits: demo.Digits) -> float:
    guesses = counts(net, learner.encode(digits.test)).argmax(1)
    return (guesses == digits.test_labels).float().mean().item()
