"""Every family of losses teaches a small network scikit-learn's handwritten digits, to nine in ten and more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom import functional

datasets = pytest.importorskip("sklearn.datasets")

STEPS, CLASSES, TRAINED_ON = 15, 10, 1400
WANTED = 0.9
"""Share of the 397 digits not trained on that must be classified correctly; by chance it is 0.1."""


def digits() -> tuple[Tensor, Tensor]:
    """Images [1797, 64] between 0 and 1, and their labels, shuffled the same way each time."""
    images, labels = datasets.load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    return torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]


def fires_most(spk: Tensor, mem: Tensor, labels: Tensor) -> float:
    return float(functional.accuracy_rate(spk, labels))


def fires_first(spk: Tensor, mem: Tensor, labels: Tensor) -> float:
    return float(functional.accuracy_temporal(spk, labels))


def population_fires_most(spk: Tensor, mem: Tensor, labels: Tensor) -> float:
    return float(functional.accuracy_rate(spk, labels, population_code=True, num_classes=CLASSES))


def comes_highest(spk: Tensor, mem: Tensor, labels: Tensor) -> float:
    """The highest membranes, as a sequence of one step."""
    return float(functional.accuracy_rate(mem.amax(0, keepdim=True), labels))


@dataclass(frozen=True)
class Lesson:
    """A loss, and how what was learned is read from the output."""

    loss: str
    options: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[Tensor, Tensor, Tensor], float] = fires_most
    outputs: int = CLASSES
    epochs: int = 12

    def __str__(self) -> str:
        return f"{self.loss}({', '.join(self.options)})"


POPULATION = {"population_code": True, "num_classes": CLASSES}
RATES = {"correct_rate": 0.8, "incorrect_rate": 0.2}
TRAIN = {"multi_spike": True, "on_target": [2, 5, 8], "off_target": [-3, -2, -1]}
LESSONS = [
    Lesson("ce_rate_loss"),
    Lesson("ce_count_loss"),
    Lesson("ce_count_loss", {"weight": torch.linspace(0.5, 1.5, CLASSES), "normalize_weight": True}),
    Lesson("mse_count_loss", RATES),
    Lesson("ce_max_membrane_loss", {}, comes_highest),
    Lesson("mse_membrane_loss", {}, comes_highest),
    Lesson("mse_membrane_loss", {"on_target": 1.5, "off_target": -0.5}, comes_highest),
    Lesson("ce_temporal_loss", {}, fires_first),
    Lesson("ce_temporal_loss", {"inverse": "reciprocal"}, fires_first, epochs=24),  # late spikes differ little
    Lesson("mse_temporal_loss", {}, fires_first),
    Lesson("mse_temporal_loss", {"on_target": 2, "tolerance": 2}, fires_first),
    Lesson("mse_temporal_loss", TRAIN, fires_first),
    Lesson("ce_rate_loss", POPULATION, population_fires_most, 5 * CLASSES),
    Lesson("ce_count_loss", POPULATION, population_fires_most, 5 * CLASSES),
    Lesson("mse_count_loss", {**POPULATION, **RATES}, population_fires_most, 5 * CLASSES),
]


def network(outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, 100),
        snn.Leaky(beta=0.9, init_hidden=True),
        nn.Linear(100, outputs),
        snn.Leaky(beta=0.9, init_hidden=True, output=True),
    )


def learn(net: nn.Module, loss_of: Callable[[Tensor], Tensor], epochs: int = 12) -> None:
    """Adam on the training part in batches of 128; `loss_of` gets the indices of a batch."""
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(epochs):
        for batch in torch.randperm(TRAINED_ON).split(128):
            snn.utils.reset(net)
            optimizer.zero_grad()
            loss_of(batch).backward()
            optimizer.step()
    snn.utils.reset(net)


FURTHER = (2, 6, 8, 10, 12, 13)
"""Lessons of a loss with other options, which the tests of its values compare too."""


@pytest.mark.parametrize(
    "lesson",
    [pytest.param(lesson, marks=[pytest.mark.slow] * (i in FURTHER)) for i, lesson in enumerate(LESSONS)],
    ids=str,
)
def test_learns_the_digits(lesson):
    images, labels = digits()
    net, loss = network(lesson.outputs), getattr(functional, lesson.loss)(**lesson.options)
    on_membranes = "membrane" in lesson.loss

    def loss_of(batch: Tensor) -> Tensor:
        spk, mem = snn.unroll(net, images[batch], steps=STEPS)
        return loss(mem if on_membranes else spk, labels[batch])

    learn(net, loss_of, lesson.epochs)
    with torch.no_grad():
        spk, mem = snn.unroll(net, images[TRAINED_ON:], steps=STEPS)
    assert lesson.read(spk, mem, labels[TRAINED_ON:]) > WANTED


@pytest.mark.parametrize("with_lengths", [True, False], ids=["with lengths", "without lengths"])
def test_learns_sequences_of_different_lengths(with_lengths):
    """After a digit come others, for most of the time; only who knows where it ends can learn it."""
    images, labels = digits()
    lengths = torch.randint(2, STEPS // 2, labels.shape)
    others = images[torch.randperm(len(images))]
    shown = (torch.arange(STEPS).unsqueeze(1) < lengths).unsqueeze(2)
    sequences = torch.where(shown, images, others)
    net, loss = network(CLASSES), functional.ce_max_membrane_loss()

    def loss_of(batch: Tensor) -> Tensor:
        _, mem = snn.unroll(net, sequences[:, batch])
        return loss(mem, labels[batch], lengths=lengths[batch] if with_lengths else None)

    learn(net, loss_of, epochs=6)
    with torch.no_grad():
        _, mem = snn.unroll(net, sequences[:, TRAINED_ON:])
    known = mem.masked_fill(~shown[:, TRAINED_ON:], -torch.inf) if with_lengths else mem
    assert (comes_highest(mem, known, labels[TRAINED_ON:]) > WANTED) == with_lengths


def test_a_penalty_spares_spikes_at_the_same_accuracy():
    images, labels = digits()
    rates = {}
    for strength in (0.0, 5.0):
        torch.manual_seed(0)
        net, loss, penalty = network(CLASSES), functional.ce_count_loss(), functional.rate_upper_bound(0.02, strength)

        def loss_of(batch: Tensor, net=net, loss=loss, penalty=penalty) -> Tensor:
            spk, _ = snn.unroll(net, images[batch], steps=STEPS)
            return loss(spk, labels[batch]) + 10 * penalty(spk)

        learn(net, loss_of)
        with torch.no_grad():
            spk, mem = snn.unroll(net, images[TRAINED_ON:], steps=STEPS)
        rates[strength] = spk.mean().item()
        assert fires_most(spk, mem, labels[TRAINED_ON:]) > WANTED
    assert rates[5.0] < 0.7 * rates[0.0]
