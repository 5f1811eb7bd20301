"""Recorded sequences: spoken digits, a smartwatch, three datasets of aeon, and event files of the user."""

import io
import wave
import zipfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikeloom import data

from ..task import Data, Lazy, Task, cached, check, data_file, needs, standardized

# -- spoken digits -----------------------------------------------------------------------------------------------------

SPEAKERS = {"train": ("george", "jackson", "lucas", "nicolas"), "validation": ("theo",), "test": ("yweweler",)}
CHANNELS, STEP, LONGEST = 128, 10_000, 100


def spoken_digits(split: str) -> Data:
    """Spikes of the inner ear in steps of 10 ms, at most one second; the speakers of the splits differ."""
    path, speakers = data_file("fsdd.zip"), SPEAKERS[check(split)]

    def make() -> dict[str, Any]:
        drawn = torch.Generator().manual_seed(11)
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if n.endswith(".wav") and n.split("_")[1] in speakers)
            sounds = [_samples(archive.read(name)) for name in names]
        order = sorted(range(len(names)), key=lambda i: len(sounds[i]))  # recordings of one length go together
        frames: dict[int, Tensor] = {}
        for start in range(0, len(order), 50):
            some = order[start : start + 50]
            for i, events in zip(
                some, data.inner_ear([sounds[i] for i in some], 8000, CHANNELS, generator=drawn), strict=True
            ):
                frames[i] = data.to_frames(events, (CHANNELS,), time_window=STEP, start=0, dtype=torch.uint8)
        labels = [int(Path(name).name[0]) for name in names]
        batch = data.collate([(frames[i], labels[i]) for i in range(len(names))], steps=LONGEST)
        return {"x": batch.x.transpose(0, 1).numpy(), "y": batch.y.numpy(), "lengths": batch.lengths.numpy()}

    made = cached(f"spoken-{split}", make, path, channels=CHANNELS, step=STEP, longest=LONGEST, speakers=speakers)
    x, y, lengths = (torch.tensor(made[name]) for name in ("x", "y", "lengths"))
    return Data(x.float(), y, lengths.clamp(min=1))


def _samples(content: bytes) -> Any:
    with wave.open(io.BytesIO(content)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


# -- inertial measurements and other series ----------------------------------------------------------------------------


@cache
def _watch() -> tuple[Tensor, Tensor, Tensor]:
    """Windows of two seconds, [N, 100, 6], every second; exercises; subjects."""
    loaded = needs("seglearn.datasets").load_watch()
    windows, labels, subjects = [], [], []
    for series, label, subject in zip(loaded["X"], loaded["y"], loaded["subject"], strict=True):
        for start in range(0, len(series) - 99, 50):
            windows.append(series[start : start + 100])
            labels.append(label)
            subjects.append(subject)
    return torch.tensor(np.array(windows)).float(), torch.tensor(labels).long(), torch.tensor(subjects)


def watch(split: str) -> Data:
    """Six axes of a smartwatch at 50 Hz; seven exercises; the splits have subjects 1 to 6, 7 and 8, 9 and 10."""
    x, y, subjects = _watch()
    known = subjects.unique()
    groups = {"train": known[:6], "validation": known[6:8], "test": known[8:]}
    chosen = torch.isin(subjects, groups[check(split)])
    return Data(standardized(x[chosen], x[torch.isin(subjects, groups["train"])]), y[chosen])


@cache
def _sequences(name: str, split: str) -> Data:
    """The bundled split; every fifth sequence of its training set validates."""
    load = needs("aeon.datasets").load_classification
    classes = sorted(set(load(name, split="train")[1]))
    x, y = load(name, split="test" if check(split) == "test" else "train")
    held_out = np.arange(len(y)) % 5 == 4
    chosen = np.ones(len(y), bool) if split == "test" else held_out if split == "validation" else ~held_out
    pairs = [(torch.tensor(x[i]).float().T, classes.index(y[i])) for i in np.flatnonzero(chosen)]
    longest = {"JapaneseVowels": 29, "BasicMotions": 100, "PickupGestureWiimoteZ": 361}[name]
    batch = data.collate(pairs, steps=longest)
    return Data(batch.x.transpose(0, 1), batch.y, batch.lengths)


def _aeon(name: str, split: str) -> Data:
    """Sequences, standardized per channel by the statistics of the training data, and padded with zeros."""
    known, own = _sequences(name, "train"), _sequences(name, split)
    assert known.lengths is not None
    assert own.lengths is not None
    assert isinstance(known.x, Tensor)
    assert isinstance(own.x, Tensor)
    steps = torch.cat([x[:n] for x, n in zip(known.x, known.lengths.tolist(), strict=True)])
    scaled = (own.x - steps.mean(0)) / steps.std(0).clamp(min=1e-6)
    return Data(scaled * data.mask_of(own.lengths, own.x.shape[1]).T[..., None], own.y, own.lengths)


def japanese_vowels(split: str) -> Data:
    """Twelve cepstral coefficients of a vowel; nine speakers."""
    return _aeon("JapaneseVowels", split)


def basic_motions(split: str) -> Data:
    """Six axes of a smartwatch; four activities."""
    return _aeon("BasicMotions", split)


def pickup_gesture(split: str) -> Data:
    """The vertical axis of a remote control; ten gestures."""
    return _aeon("PickupGestureWiimoteZ", split)


# -- files of the user: read batch by batch ----------------------------------------------------------------------------


def shd(split: str) -> Data:
    """shd_train.h5 and shd_test.h5 of the user, 10 ms a step; two speakers of the training set validate."""
    file = data.read_shd(data_file("shd_test.h5" if check(split) == "test" else "shd_train.h5"), _shd_frames)
    assert file.speakers is not None
    held_out = np.isin(file.speakers, np.unique(file.speakers)[-2:])
    chosen = np.ones(len(file), bool) if split == "test" else held_out if split == "validation" else ~held_out
    return _heidelberg(file, np.flatnonzero(chosen))


def ssc(split: str) -> Data:
    """ssc_train.h5, ssc_valid.h5 and ssc_test.h5 of the user, 10 ms a step."""
    name = {"train": "ssc_train.h5", "validation": "ssc_valid.h5", "test": "ssc_test.h5"}[check(split)]
    file = data.read_shd(data_file(name), _shd_frames)
    return _heidelberg(file, np.arange(len(file)))


def _shd_frames(events: Any) -> Tensor:
    return data.to_frames(events, (700,), time_window=STEP, start=0, steps=LONGEST, dtype=torch.uint8)


def _heidelberg(file: Any, chosen: Any) -> Data:
    x = Lazy(lambda i: file[int(chosen[i])][0], len(chosen), (LONGEST, 700))
    return Data(x, torch.tensor(file.labels[chosen].astype(np.int64)))


def nmnist(split: str) -> Data:
    """N-MNIST's folders Train/0 ... 9 and Test/0 ... 9 of the user, 15 frames; every tenth file of Train validates."""
    files = sorted(data_file("Test" if check(split) == "test" else "Train").glob("[0-9]/*.bin"))
    place = np.arange(len(files)) % 10 == 9
    chosen = np.ones(len(files), bool) if split == "test" else place if split == "validation" else ~place
    kept = [files[i] for i in np.flatnonzero(chosen)]

    def read(i: int) -> Tensor:
        return data.to_frames(data.read_nmnist(kept[i]), (34, 34, 2), n_time_bins=15)

    return Data(Lazy(read, len(kept), (15, 2, 34, 34)), torch.tensor([int(file.parent.name) for file in kept]))


DVS_FRAMES, DVS_SIDE = 20, 32


def dvs_gesture(split: str) -> Data:
    """DVS128 Gesture's folder DvsGesture of the user: 20 frames of 32 x 32; the last sixth of its trainees validate."""
    folder = data_file("DvsGesture")
    listed = (folder / f"trials_to_{'test' if check(split) == 'test' else 'train'}.txt").read_text().split()
    users = sorted({name.partition("_")[0] for name in listed})
    held_out = users[-max(1, len(users) // 6) :]
    chosen = [name for name in listed if split == "test" or (name.partition("_")[0] in held_out) == (split != "train")]
    parts = [cached(f"dvs-{Path(name).stem}", partial(_trials, folder / name), folder / name) for name in chosen]
    x, y = (torch.tensor(np.concatenate([part[key] for part in parts])) for key in ("x", "y"))
    return Data(x.float(), y.long())


def _trials(path: Path) -> dict[str, Any]:
    """Frames and classes of the gestures in a recording, by its table of classes, first and last microseconds."""
    events = data.read_aedat(path)
    events["x"], events["y"] = events["x"] * DVS_SIDE // 128, events["y"] * DVS_SIDE // 128
    table = np.loadtxt(path.with_name(f"{path.stem}_labels.csv"), np.int64, delimiter=",", skiprows=1, ndmin=2)
    size, frames = (DVS_SIDE, DVS_SIDE, 2), []
    for _, first, last in table:
        own = events[(events["t"] >= first) & (events["t"] < last)]
        frames.append(data.to_frames(own, size, n_time_bins=DVS_FRAMES).clamp(max=255).to(torch.uint8))
    return {"x": torch.stack(frames).numpy(), "y": table[:, 0] - 1}


NEAREST = "nearest neighbor by dynamic time warping, the archive's baseline, computed with aeon"
BUNDLED = "the split of the archive; every fifth training sequence validates"
TASKS = {
    "spoken_digits": Task(
        "Spoken digits as spikes, held-out speakers",
        spoken_digits,
        "four speakers train, theo validates, yweweler tests; 500 recordings each",
        10,
        mark="a GRU of the same size on the same spikes",
    ),
    "watch": Task(
        "Watch, held-out subjects",
        watch,
        "6 subjects train, 2 validate, 2 test; windows of 2 s",
        7,
        mark="a GRU of the same size",
    ),
    "japanese_vowels": Task("JapaneseVowels", japanese_vowels, BUNDLED, 9, mark=f"94.9 % ({NEAREST})", epochs=3),
    "basic_motions": Task("BasicMotions", basic_motions, BUNDLED, 4, mark=f"97.5 % ({NEAREST})", epochs=6),
    "pickup_gesture": Task("PickupGesture", pickup_gesture, BUNDLED, 10, mark=f"70.0 % ({NEAREST})", epochs=6),
    "shd": Task("SHD", shd, "two speakers of the training set validate", 20, mark="93.8 % (DCLS, with validation)"),
    "ssc": Task("SSC", ssc, "its own", 35, mark="82.6 % (DelRec)"),
    "nmnist": Task("N-MNIST", nmnist, "every tenth training file validates", 10, mark="99.5 %", images=True),
    "dvs_gesture": Task(
        "DVS128 Gesture",
        dvs_gesture,
        "users 1 to 23 train, the last sixth of them validates; 24 to 29 test",
        11,
        mark="a spiking CNN of the literature: 93 to 97 %",
        images=True,
    ),
}
