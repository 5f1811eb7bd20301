"""Our utils against those of snnTorch 1.0.0: the same parts of the same datasets."""

import importlib
import inspect

import numpy as np
import pytest
import torch

from spikeloom import utils

from ..each import for_each
from .running import snntorch

theirs = importlib.import_module(f"{snntorch.__name__}.utils")
KINDS = {"tensors": torch.arange, "arrays": np.arange}


class Dataset:
    """Holds its entries as torchvision's MNIST does."""

    def __init__(self, kind: str, entries: int, begin: int = 0):
        self.data = KINDS[kind](begin, begin + entries)
        self.targets = self.data * 10

    def __len__(self) -> int:
        return len(self.data)


def contents(*datasets: Dataset) -> list[tuple[type, list[int]]]:
    return [(type(part), part.tolist()) for one in datasets for part in (one.data, one.targets)]


@for_each("kind", KINDS)
@for_each(("subset", "idx"), [(0, 0), (1, 0), (2, 0), (3, 0), (3, 2), (3, 3), (10, 9)])
def test_a_subset_is_the_same(kind, subset, idx):
    one, other = Dataset(kind, 10), Dataset(kind, 10)
    assert utils.data_subset(one, subset, idx) is one
    theirs.data_subset(other, subset, idx)
    assert contents(one) == contents(other)


@for_each("kind", KINDS)
@for_each("seed", [0, 3])
@for_each("split", [0, 0.05, 0.1, 0.25, 0.29, 0.5, 2 / 3, 0.99, 1])
@for_each("entries", [7, 10, 100])
def test_a_split_is_the_same(kind, seed, split, entries):
    ours = Dataset(kind, entries), Dataset(kind, entries, begin=1000)
    wanted = Dataset(kind, entries), Dataset(kind, entries, begin=1000)
    got = utils.valid_split(*ours, split, seed)
    theirs.valid_split(*wanted, split, seed)
    assert all(a is b for a, b in zip(got, ours, strict=True))
    assert contents(*ours) == contents(*wanted)


@pytest.mark.parametrize("split", [-0.1, 2])
def test_a_split_that_is_no_share_is_refused_by_the_same_error(split):
    for library in (utils, theirs):
        with pytest.raises(ValueError):  # noqa: PT011
            library.valid_split(Dataset("tensors", 10), Dataset("tensors", 10), split)


@pytest.mark.parametrize("name", ["reset", "data_subset", "valid_split"])
def test_the_arguments_have_the_same_names_order_and_defaults(name):
    ours, wanted = (inspect.signature(getattr(module, name)).parameters for module in (utils, theirs))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in wanted.values()]
