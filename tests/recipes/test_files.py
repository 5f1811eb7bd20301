"""Files of the user are read batch by batch, so that a split larger than the memory can be trained on."""

import numpy as np
import pytest
import torch

from recipes import __main__ as command
from recipes.store import stored
from recipes.task import SPLITS, Lazy
from recipes.tasks import TASKS
from spikeloom import data
from tests.data import files


def test_sequences_are_read_when_they_are_indexed():
    read: list[int] = []

    def one(i: int) -> torch.Tensor:
        read.append(i)
        return torch.full((4, 2), i, dtype=torch.uint8)

    x = Lazy(one, 1000, (4, 2))
    assert (len(x), tuple(x.shape), read) == (1000, (1000, 4, 2), [])
    batch = x[torch.tensor([7, 3])]
    assert (batch.dtype, batch[:, 0, 0].tolist(), read) == (torch.float32, [7.0, 3.0], [7, 3])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKELOOM_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKELOOM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_files_of_ssc_and_nmnist_are_read_batch_by_batch(folder, capsys):
    drawn = np.random.default_rng(1)
    for name in ("ssc_train.h5", "ssc_valid.h5", "ssc_test.h5"):
        recordings = [data.make_events(drawn.integers(0, 900_000, 90), drawn.integers(0, 700, 90)) for _ in range(3)]
        data.write_shd(folder / name, recordings, [4, 0, 34])
    for part in ("Train", "Test"):
        for digit in (0, 7):
            (folder / part / str(digit)).mkdir(parents=True)
            for i in range(10):
                files.nmnist(folder / part / str(digit) / f"{i:05}.bin")
    for name, sizes, shape in (("ssc", [3, 3, 3], (100, 700)), ("nmnist", [18, 2, 20], (15, 2, 34, 34))):
        parts = [TASKS[name].load(split) for split in SPLITS]
        assert [len(part) for part in parts] == sizes, name
        for part in parts:
            assert isinstance(part.x, Lazy), name
            assert part.x[torch.arange(2)].shape == (2, *shape), name
    x = TASKS["ssc"].load("train").x[torch.tensor([1])]
    assert x.sum() == 90
    assert set(TASKS["nmnist"].load("test").y.tolist()) == {0, 7}
    given = ["--epochs", "1", "--quiet", "--folder", str(folder / "runs")]
    assert command.main(["run", "ssc", "lif", *given]) == 0, capsys.readouterr().err
    assert stored(folder / "runs")[0]["sizes"] == [100, 700, 35]


def test_files_of_dvs_gesture_are_cut_into_gestures(folder):
    """Every recording has two gestures of which the second has no event."""
    own = folder / "DvsGesture"
    own.mkdir()
    names = [f"user{user:02}_led.aedat" for user in (1, 2, 24)]
    (own / "trials_to_train.txt").write_text("\n".join(names[:2]))
    (own / "trials_to_test.txt").write_text(names[2] + "\n")
    events = [(100, 0, 0, True), (200, 127, 4, False), (900, 64, 127, True)]
    for name in names:
        files.aedat(own / name, events)
        labels = (own / name).with_name(name.replace(".aedat", "_labels.csv"))
        labels.write_text("class,startTime_usec,endTime_usec\n3,100,901\n11,5000,6000\n")
    for split in SPLITS:
        part = TASKS["dvs_gesture"].load(split)
        assert part.x.shape == (2, 20, 2, 32, 32), split
        assert part.y.tolist() == [2, 10], split
        where = [tuple(place) for place in part.x[0].nonzero().tolist()]
        assert where == [(0, 1, 0, 0), (2, 0, 1, 31), (19, 1, 31, 16)], split
        assert part.x[1].sum() == 0
