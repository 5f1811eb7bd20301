"""Tasks of working memory, after Bellec et al. 2018 and 2020: spikes of groups of neurons, noise, a decision."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..task import SPLITS, Data, Task, check

GROUP = 10
RATE, NOISE = 0.3, 0.01
"""Probability of a spike per step of a neuron whose group is active, and of every other neuron."""


def _spikes(active: Tensor, generator: torch.Generator) -> Tensor:
    """Spikes ``[N, T, groups * 10]`` of groups that are active at some steps, ``[N, T, groups]``."""
    rates = (NOISE + (RATE - NOISE) * active.float()).repeat_interleave(GROUP, 2)
    return (torch.rand(rates.shape, generator=generator) < rates).float()


def _split(task: int, make: Callable[[int, torch.Generator], Data]) -> Callable[[str], Data]:
    def load(split: str) -> Data:
        seed = 1000 * (task + 1) + SPLITS.index(check(split))
        return make(2000 if split == "train" else 500, torch.Generator().manual_seed(seed))

    return load


def store_recall(number: int, generator: torch.Generator) -> Data:
    """A bit with the store cue, later a random distractor bit, then the recall cue: the target is the first bit."""
    bit, distractor = torch.randint(2, (2, number), generator=generator)
    start = torch.randint(0, 10, (number,), generator=generator)
    step = torch.arange(60)
    stored = (step >= start[:, None]) & (step < start[:, None] + 8)
    later = (step >= start[:, None] + 18) & (step < start[:, None] + 26)
    active = torch.zeros(number, 60, 4, dtype=torch.bool)
    for value in (0, 1):
        active[..., value] = (stored & (bit == value)[:, None]) | (later & (distractor == value)[:, None])
    active[..., 2], active[..., 3] = stored, step >= 52
    return Data(_spikes(active, generator), bit)


def cue_accumulation(number: int, generator: torch.Generator) -> Data:
    """Seven cues to the left or right, a delay, then the decision: which side had more?"""
    sides = torch.randint(2, (number, 7), generator=generator)
    active = torch.zeros(number, 110, 4, dtype=torch.bool)
    for cue in range(7):
        for side in (0, 1):
            active[:, cue * 10 : cue * 10 + 7, side] = (sides[:, cue] == side)[:, None]
    active[:, 100:, 2] = True
    return Data(_spikes(active, generator), (sides.sum(1) > 3).long())


def delayed_match(number: int, generator: torch.Generator) -> Data:
    """One of four stimuli, a delay, a second stimulus, the same one in half of the trials: are they equal?"""
    first = torch.randint(4, (number,), generator=generator)
    same = torch.randint(2, (number,), generator=generator)
    other = (first + torch.randint(1, 4, (number,), generator=generator)) % 4
    second = torch.where(same == 1, first, other)
    active = torch.zeros(number, 60, 4, dtype=torch.bool)
    rows = torch.arange(number)
    active[rows, :10, first] = True
    active[rows, 40:50, second] = True
    return Data(_spikes(active, generator), same)


HOW = "2,000, 500 and 500 trials, generated with three seeds"
TASKS = {
    "store_recall": Task("Store-recall", _split(0, store_recall), HOW, 2, decide=8, mark="solved"),
    "cue_accumulation": Task("Cue accumulation", _split(1, cue_accumulation), HOW, 2, decide=10, mark="solved"),
    "delayed_match": Task("Delayed match", _split(2, delayed_match), HOW, 2, decide=10, mark="solved"),
}
