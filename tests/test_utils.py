"""What is written by hand around every network: seeds and parts of datasets. Reset and detach are in tests/neurons."""

import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import spikeloom as snn
from spikeloom import utils

# -- seed --------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def generators_as_before():
    before = random.getstate(), np.random.get_state()
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])


def drawn() -> list[float]:
    """A number of every generator, and the order of a shuffled DataLoader."""
    shuffled = DataLoader(TensorDataset(torch.arange(20)), batch_size=20, shuffle=True)
    ((order,),) = list(shuffled)
    return [random.random(), float(np.random.rand()), torch.rand(()).item(), *order.tolist()]


@pytest.mark.parametrize("number", [0, 7, 2**32 - 1, np.int64(5)])
def test_the_same_seed_draws_the_same(number):
    assert utils.seed(number) == number
    first = drawn()
    assert drawn() != first
    utils.seed(number)
    assert drawn() == first


def test_each_generator_is_seeded_by_itself():
    utils.seed(1)
    one = drawn()
    utils.seed(2)
    assert all(a != b for a, b in zip(one[:3], drawn()[:3], strict=True))


def test_a_seed_that_nobody_chose_is_new_and_draws_the_same_again():
    random.seed(0)
    torch.manual_seed(0)
    numbers = {utils.seed() for _ in range(3)}
    assert len(numbers) == 3
    number = utils.seed()
    first = drawn()
    assert utils.seed(number) == number
    assert drawn() == first


@pytest.mark.parametrize(
    ("number", "error"), [(-1, ValueError), (2**32, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_what_is_no_seed_is_refused_before_anything_is_seeded(number, error):
    before = torch.get_rng_state(), random.getstate()
    with pytest.raises(error, match=f"seed got {number}"):
        utils.seed(number)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


# -- parts of datasets -------------------------------------------------------------------------------------------------

KINDS = {"tensors": torch.arange, "arrays": np.arange, "lists": lambda n: list(range(n))}


def dataset(kind: str) -> SimpleNamespace:
    return SimpleNamespace(data=KINDS[kind](10), targets=KINDS[kind](10))


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_together_are_the_whole(kind):
    parts = [utils.data_subset(dataset(kind), 3, idx) for idx in range(4)]
    assert [int(entry) for part in parts for entry in part.data] == list(range(10))
    assert [len(part.targets) for part in parts] == [3, 3, 3, 1]
    assert {type(part.data) for part in parts} == {type(dataset(kind).data)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_deals_out_every_entry_once_with_its_target(kind):
    random_before = np.random.get_state()[1].copy()
    train, valid = utils.valid_split(dataset(kind), SimpleNamespace(), split=0.3)
    assert sorted(int(entry) for part in (train, valid) for entry in part.data) == list(range(10))
    assert (len(train.data), len(valid.data)) == (7, 3)
    for part in (train, valid):
        assert list(part.data) == list(part.targets)
        assert type(part.data) is type(dataset(kind).data)
    assert np.array_equal(np.random.get_state()[1], random_before), "it has a generator of its own"


def test_images_keep_their_shape():
    images = SimpleNamespace(data=torch.rand(10, 1, 4, 4), targets=torch.arange(10))
    train, valid = utils.valid_split(images, SimpleNamespace(), split=0.2)
    assert (train.data.shape, valid.data.shape) == ((8, 1, 4, 4), (2, 1, 4, 4))


@pytest.mark.parametrize(("subset", "idx"), [(3, 4), (3, -1), (20, 0)])
def test_a_part_with_nothing_in_it_is_refused_and_nothing_changes(subset, idx):
    digits = dataset("tensors")
    with pytest.raises(ValueError, match=rf"part {idx} of 10 entries in {subset} parts is empty"):
        utils.data_subset(digits, subset, idx)
    assert len(digits.data) == len(digits.targets) == 10


@pytest.mark.parametrize("split", [-0.1, 1.5])
def test_a_split_that_is_no_share_is_refused_and_nothing_changes(split):
    digits = dataset("tensors")
    with pytest.raises(ValueError, match=f"split is {split}"):
        utils.valid_split(digits, SimpleNamespace(), split)
    assert len(digits.data) == 10


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda ds: utils.data_subset(ds, 2.5), ValueError, "subset is 2.5; pass an integer"),
        (lambda ds: utils.data_subset(ds, float("nan")), ValueError, "subset is nan"),
        (lambda ds: utils.data_subset(ds, "2"), TypeError, "subset is '2'; pass a number"),
        (lambda ds: utils.data_subset(ds, None), TypeError, "subset is None"),
        (lambda ds: utils.data_subset(ds, 2, 0.5), TypeError, "idx is 0.5"),
        (lambda ds: utils.valid_split(ds, SimpleNamespace(), "half"), TypeError, "split is 'half'"),
        (lambda ds: utils.valid_split(ds, SimpleNamespace(), float("nan")), ValueError, "split is nan"),
        (lambda ds: utils.valid_split(ds, SimpleNamespace(), 0.5, seed=-1), ValueError, "seed is -1"),
        (lambda ds: utils.valid_split(ds, SimpleNamespace(), 0.5, seed=0.5), TypeError, "seed is 0.5"),
        (lambda ds: utils.reset([ds]), TypeError, "pass a network"),
        (lambda ds: utils.detach(None), TypeError, "pass a network"),
    ],
)
def test_what_is_of_another_type_is_refused_in_a_sentence_and_nothing_changes(call, error, message):
    digits = dataset("tensors")
    with pytest.raises(error, match=message):
        call(digits)
    assert len(digits.data) == len(digits.targets) == 10


def test_a_dataset_with_fewer_targets_than_entries_is_refused():
    lame = SimpleNamespace(data=torch.arange(10), targets=torch.arange(9))
    for part in (lambda: utils.data_subset(lame, 2), lambda: utils.valid_split(lame, lame, 0.5)):
        with pytest.raises(ValueError, match=r"10 entries in \.data and 9 in \.targets"):
            part()


def test_a_whole_number_of_parts_may_be_a_float():
    assert len(utils.data_subset(dataset("tensors"), 5.0).data) == 2


def test_a_dataset_of_another_kind_gets_the_advice_what_to_use():
    other = TensorDataset(torch.arange(3))
    for part in (lambda: utils.data_subset(other, 2), lambda: utils.valid_split(other, other, 0.5)):
        with pytest.raises(AttributeError, match=r"TensorDataset has no .data and .targets; .*random_split"):
            part()


def test_pickles_name_public_classes_by_the_package():
    """A file of the package may move, and old pickles still load."""
    public = {name: thing for name, thing in vars(snn).items() if isinstance(thing, type) and name in snn.__all__}
    elsewhere = [name for name, thing in public.items() if thing.__module__ != "spikeloom"]
    assert elsewhere == []
    assert b"neurons" not in pickle.dumps(snn.Leaky)
