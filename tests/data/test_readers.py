"""Readers return what the bytes say, refuse what is cut off, and read the real samples."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from spikeloom import data
from tests.data import files
from tests.data.files import EVENTS, REAL, needs_real


def tuples(events) -> list[tuple[int, int, int, bool]]:
    return [(int(e["t"]), int(e["x"]), int(e["y"]), bool(e["p"])) for e in events]


def test_events_are_read_as_they_were_written(tmp_path):
    for overflow in (None, 3):
        assert tuples(data.read_nmnist(files.nmnist(tmp_path / "a.bin", overflow_at=overflow))) == EVENTS, overflow
    for version in (1, 2):
        assert tuples(data.read_dat(files.dat(tmp_path / "a.dat", version))) == EVENTS, version
    assert tuples(data.read_aedat(files.aedat(tmp_path / "a.aedat"))) == EVENTS, "the invalid event is skipped"
    later = [(t + 2**31, *rest) for t, *rest in EVENTS]
    assert tuples(data.read_aedat(files.aedat(tmp_path / "a.aedat", overflow=1))) == later
    pressed = [(1000, 3, 2, True), (2000, 3, 2, False), (2000, 9, 9, True)]
    assert tuples(data.read_stmnist(files.stmnist(tmp_path / "a.mat"))) == pressed


def test_files_without_events_are_empty_recordings(tmp_path):
    (tmp_path / "empty.bin").write_bytes(b"")
    assert len(data.read_nmnist(tmp_path / "empty.bin")) == 0
    assert len(data.read_dat(files.dat(tmp_path / "empty.dat", events=[]))) == 0
    (tmp_path / "empty.aedat").write_bytes(b"#!AER-DAT3.1\r\n#!END-HEADER\r\n")
    assert len(data.read_aedat(tmp_path / "empty.aedat")) == 0


def test_broken_files_are_refused_in_a_sentence(tmp_path):
    from scipy.io import savemat

    broken = tmp_path / "broken"
    broken.write_bytes(files.nmnist(tmp_path / "a.bin").read_bytes()[:-2])
    with pytest.raises(ValueError, match="18 bytes; an N-MNIST file has five bytes per event"):
        data.read_nmnist(broken)
    broken.write_bytes(files.dat(tmp_path / "a.dat").read_bytes()[:-3])
    with pytest.raises(ValueError, match="ends inside an event: 5 bytes are left over"):
        data.read_dat(broken)
    broken.write_bytes(b"% Version 2\n" + bytes([12, 16]) + bytes(16))
    with pytest.raises(ValueError, match="events of 16 bytes"):
        data.read_dat(broken)
    whole = files.aedat(tmp_path / "a.aedat").read_bytes()
    for cut in (3, 30, 60):  # inside an event, a packet's events, a packet's beginning
        broken.write_bytes(whole[:-cut])
        with pytest.raises(ValueError, match="ends inside a packet"):
            data.read_aedat(broken)
    broken.write_bytes(whole[:-48] + whole[-48:].replace(b"\x08", b"\x02", 1))
    with pytest.raises(ValueError, match="polarity events of 2 bytes"):
        data.read_aedat(broken)
    broken.write_bytes(b"#!AER-DAT2.0\r\n")
    with pytest.raises(ValueError, match=r"begins with b'#!AER-DAT2.0'; an AEDAT 3.1 file begins with '#!AER-DAT3.1'"):
        data.read_aedat(broken)
    savemat(tmp_path / "other.mat", {"other": np.zeros((3, 3))})
    with pytest.raises(ValueError, match=r"an ST-MNIST file has spiketrain, \[101, n\]"):
        data.read_stmnist(tmp_path / "other.mat")


def test_a_file_of_shd_is_a_dataset(tmp_path):
    file = data.read_shd(files.shd(tmp_path / "shd.h5"))
    assert (len(file), file.labels.tolist(), file.speakers.tolist()) == (3, [4, 0, 19], [0, 1, 1])
    assert file.keys == ["null", "eins"]
    events, label = file[0]
    assert tuples(events) == [(125_000, 3, 0, True), (500_000, 699, 0, True)]
    assert label == 4
    assert len(file[1][0]) == 0
    assert tuples(file[-1][0]) == [(250_000, 0, 0, True)]
    assert [label for _, label in file] == [4, 0, 19]
    with pytest.raises(IndexError, match="recording 3 of 3"):
        file[3]
    copy = pickle.loads(pickle.dumps(file))
    file.close()
    assert tuples(copy[0][0]) == tuples(file[0][0]) == tuples(events)


def test_a_forked_process_opens_its_own_file(tmp_path, monkeypatch):
    file = data.read_shd(files.shd(tmp_path / "shd.h5"))
    parents = file._content()
    assert file._content() is parents
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert file._content() is not parents
    assert len(file[0][0]) == 2


def frames(events):
    return data.to_frames(events, (700,), time_window=100_000, start=0)


def test_workers_read_a_file_of_shd_in_padded_batches(tmp_path):
    file = data.read_shd(files.shd(tmp_path / "shd.h5"), transform=frames)
    file[0]  # the parent's handle is open when the workers are forked
    loader = DataLoader(file, batch_size=3, collate_fn=data.collate, num_workers=1)
    (batch,) = loader
    assert batch.x.shape == (6, 3, 700)
    assert batch.lengths.tolist() == [6, 0, 3]
    assert batch.x.sum((0, 2)).tolist() == [2, 0, 1]
    assert batch.mask.sum(0).tolist() == [6, 0, 3]


def test_what_is_written_in_the_layout_of_shd_is_read_again(tmp_path):
    recordings = [data.make_events([5, 70_001], [1, 2]), data.make_events([], [])]
    data.write_shd(tmp_path / "own.h5", recordings, [1, 0], speakers=[3, 4], keys=["a", "b"])
    file = data.read_shd(tmp_path / "own.h5")
    assert [tuples(events) for events, _ in file] == [tuples(events) for events in recordings]
    assert (file.speakers.tolist(), file.keys) == ([3, 4], ["a", "b"])
    with pytest.raises(ValueError, match="pass one per recording"):
        data.write_shd(tmp_path / "own.h5", recordings, [1])


def test_another_hdf5_file_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["labels"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"has no spikes/times, spikes/units; it is not in the layout of SHD"):
        data.read_shd(tmp_path / "other.h5")


@needs_real
def test_real_samples():
    folder = Path(REAL) / "events"
    digit = data.read_nmnist(folder / "sample_nmnist.bin")
    car = data.read_dat(folder / "sample_ncars.dat")
    touch = data.read_stmnist(folder / "sample_stmnist.mat")
    assert data.to_frames(digit, (34, 34, 2), n_time_bins=10).sum() == len(digit) == 4325
    assert (np.diff(digit["t"]) >= 0).all()
    assert 250_000 < digit["t"][-1] < 350_000  # three saccades of 100 ms
    assert data.to_frames(car, (120, 100, 2), n_time_bins=10).sum() == len(car)
    assert car["t"][-1] <= 100_000  # 100 ms
    assert data.to_frames(touch, (10, 10, 2), n_time_bins=10).sum() == len(touch)
    assert 0 < touch["t"][-1] < 2_000_000
    assert torch.is_tensor(data.to_frames(touch, (10, 10, 2), event_count=100))


@needs_real
def test_real_samples_are_read_as_by_others():
    folder = Path(REAL) / "events"
    tonic, wizard = pytest.importorskip("tonic"), pytest.importorskip("expelliarmus").Wizard(encoding="dat")
    wizard.set_file(str(folder / "sample_ncars.dat"))
    for ours, theirs in (
        (
            data.read_nmnist(folder / "sample_nmnist.bin"),
            tonic.io.read_mnist_file(folder / "sample_nmnist.bin", data.make_events([], []).dtype),
        ),
        (data.read_dat(folder / "sample_ncars.dat"), wizard.read()),
    ):
        for name in ("x", "y", "t", "p"):
            assert np.array_equal(ours[name], theirs[name]), name


def test_polarities_of_minus_one_are_off():
    assert data.make_events([1, 2, 3], [0, 0, 0], p=[-1, 1, 0])["p"].tolist() == [False, True, False]
    with pytest.raises(ValueError, match="other values than -1, 0 and 1"):
        data.make_events([1], [0], p=[2])
    with pytest.raises(ValueError, match="an integer of 64 bits"):
        data.make_events([1e19], [0])
    assert data.make_events([2**62 + 1], [0])["t"] == 2**62 + 1


def test_write_shd_refuses_what_the_layout_cannot_hold(tmp_path):
    path, good = tmp_path / "a.h5", data.make_events([1], [2])
    data.write_shd(path, [good], [3])
    before = path.read_bytes()
    for events, labels, speakers, message in (
        (good, [-1], None, "labels goes from -1 to -1"),
        (good, [0.5], None, "labels has the dtype float64"),
        (good, [0], [65536], "speakers goes from 65536"),
        (data.make_events([1], [-1]), [0], None, "x of recording 0 goes from -1"),
        (data.make_events([1], [1], y=1), [0], None, "recording 0 has rows or polarities"),
        (data.make_events([1], [1], p=False), [0], None, "recording 0 has rows or polarities"),
    ):
        with pytest.raises(ValueError, match=message):
            data.write_shd(path, [events], labels, speakers)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_another_kind_are_named(tmp_path):
    other = tmp_path / "other"
    other.write_text("no such file, but text of some length " * 20)
    with pytest.raises(ValueError, match=r"read_stmnist: .*other cannot be read as a MATLAB file"):
        data.read_stmnist(other)
    with pytest.raises(OSError, match=r"read_shd: .*other cannot be read as HDF5"):
        data.read_shd(other)
