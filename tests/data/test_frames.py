"""Frames count every event once; batches are padded; augmentations do what they say; tonic's arrays and names fit."""

import math

import numpy as np
import pytest
import torch

import spikeloom as snn
from spikeloom import data
from spikeloom.alias import _Alias


def recording(n: int = 200, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    t = random.integers(0, 10_000, n)
    return data.make_events(t, random.integers(0, 5, n), random.integers(0, 4, n), random.random(n) < 0.5)


SENSOR = (5, 4, 2)


def counted(events, frame_of, number: int) -> torch.Tensor:
    """Frames by a plain loop over the events."""
    frames = torch.zeros(number, 2, 4, 5)
    for i, event in enumerate(events):
        frames[frame_of(i, int(event["t"])), int(event["p"]), int(event["y"]), int(event["x"])] += 1
    return frames


def test_frames_are_those_of_a_plain_loop():
    events, n = recording(), 200
    first, last = int(events["t"][0]), int(events["t"][-1])
    cases = {
        "time_window": (1500, lambda i, t: (t - first) // 1500, (last - first) // 1500 + 1),
        "event_count": (30, lambda i, t: i // 30, 7),
        "n_time_bins": (7, lambda i, t: (t - first) * 7 // (last - first + 1), 7),
        "n_event_bins": (7, lambda i, t: i * 7 // n, 7),
    }
    for name, (value, frame_of, number) in cases.items():
        frames = data.to_frames(events, SENSOR, **{name: value})
        assert torch.equal(frames, counted(events, frame_of, number)), name
        shuffled = np.random.default_rng(2).permutation(events)
        if name in ("time_window", "n_time_bins"):
            assert torch.equal(data.to_frames(shuffled, SENSOR, **{name: value}), frames), name


def test_options_of_frames():
    events = recording()
    whole = data.to_frames(events, SENSOR, event_count=30)
    assert torch.equal(data.to_frames(events, SENSOR, event_count=30, include_incomplete=False), whole[:6])
    assert data.to_frames(events, SENSOR, event_count=30, steps=9).shape == (9, 2, 4, 5)
    assert torch.equal(data.to_frames(events, SENSOR, event_count=30, steps=3), whole[:3])
    assert data.to_frames(events, SENSOR, event_count=30, binary=True).max() == 1
    assert data.to_frames(events, SENSOR, n_time_bins=3, dtype=torch.uint8).dtype == torch.uint8
    late = data.to_frames(events, SENSOR, time_window=1000, start=5000)
    assert late.sum() == (events["t"] >= 5000).sum()
    flat = data.make_events([0, 10], [3, 699])
    assert data.to_frames(flat, (700,), time_window=5, start=-5).shape == (4, 700)
    nothing = events[:0]
    assert data.to_frames(nothing, SENSOR, n_time_bins=3).shape == (3, 2, 4, 5)
    assert data.to_frames(nothing, SENSOR, time_window=3).shape == (0, 2, 4, 5)


def test_times_in_seconds_are_not_rounded():
    seconds = np.array([(0.1, 0), (0.35, 1), (0.75, 2)], dtype=[("t", float), ("x", int)])
    assert data.to_frames(seconds, (3,), n_time_bins=2).tolist() == [[1, 1, 0], [0, 0, 1]]
    assert data.to_frames(seconds, (3,), time_window=0.2).argmax(1).tolist() == [0, 1, 0, 2]


def test_wrong_arguments_are_sentences():
    events = recording()
    cases = [
        (lambda: data.to_frames(events, SENSOR), ValueError, "exactly one of time_window, event_count"),
        (lambda: data.to_frames(events, SENSOR, time_window=1, event_count=1), ValueError, "got time_window, event"),
        (lambda: data.to_frames(events, SENSOR, time_window=0), ValueError, "pass a positive number"),
        (lambda: data.to_frames(events, SENSOR, n_time_bins=2.5), ValueError, "pass a positive integer"),
        (lambda: data.to_frames(events, SENSOR, time_window=math.nan), ValueError, "pass a positive number"),
        (lambda: data.to_frames(events, SENSOR, time_window=1e-9), ValueError, "pass a longer time_window"),
        (lambda: data.make_events([math.nan], [1]), ValueError, "not finite"),
        (lambda: data.make_events([1], [1.5]), ValueError, "no integers"),
        (lambda: data.collate([torch.ones(3, 2)]), ValueError, "pairs of a sequence and a target"),
        (lambda: data.collate([(torch.ones(3), torch.ones(i)) for i in (1, 2)]), ValueError, "the targets have"),
        (lambda: data.to_frames(events, (4, 4, 2), time_window=9), ValueError, "x goes from 0 to 4, outside"),
        (lambda: data.to_frames(events, (4, 4), time_window=9), ValueError, r"pass \(W, H, P\)"),
        (lambda: data.to_frames(np.zeros((3, 4)), SENSOR, time_window=9), TypeError, "Make one by spikeloom.data.make"),
        (lambda: data.make_events([1, 2], [1, 2, 3]), ValueError, "one value per event"),
        (lambda: data.make_events([1], [70_000]), ValueError, "an address has 16 bits"),
        (lambda: data.EventDrop(1.5), ValueError, "ratio is 1.5"),
        (lambda: data.EventDrop(how="all"), ValueError, "choose 'random'"),
        (lambda: data.TimeJitter(-1.0), ValueError, "std is -1.0"),
        (lambda: data.SpatialShift((4,), -1), ValueError, "max_shift is -1"),
        (lambda: data.collate([]), ValueError, "at least one sample"),
        (lambda: data.collate([(torch.ones(2, 3), 0), (torch.ones(2, 4), 0)]), ValueError, "dimension 0, time, alone"),
        (lambda: data.mask_of(torch.rand(3)), ValueError, "pass integers"),
    ]
    for call, kind, message in cases:
        with pytest.raises(kind, match=message):
            call()


def test_batches_are_padded_and_go_into_the_losses():
    samples = [(torch.ones(2, 3), 1), (np.ones((4, 3), np.float32), 2)]
    x, y, lengths = batch = data.collate(samples)
    assert (x.shape, y.tolist(), lengths.tolist()) == ((4, 2, 3), [1, 2], [2, 4])
    assert x[2:, 0].abs().sum() == 0
    assert batch.mask.tolist() == [[True, True], [True, True], [False, True], [False, True]]
    assert data.collate(samples, steps=3).lengths.tolist() == [2, 3]
    assert data.collate(samples, steps=6).x.shape == (6, 2, 3)
    loss = snn.functional.ce_count_loss()
    assert torch.equal(loss(x, y, lengths=lengths), loss(x, y, mask=batch.mask))


def test_augmentations():
    events, drawn = recording(2000), torch.Generator().manual_seed(3)
    kept = data.EventDrop(0.3, generator=drawn)(events)
    assert 0.65 < len(kept) / len(events) < 0.75
    late = data.EventDrop(0.25, "time", generator=drawn)(events)
    gone = events[~np.isin(events["t"], late["t"])]["t"]
    assert 0.2 < len(gone) / len(events) < 0.3
    assert gone.max() - gone.min() <= 2500
    area = data.EventDrop(0.5, "area", SENSOR, generator=drawn)(events)
    assert 0.6 < len(area) / len(events) < 0.95
    assert len({len(data.EventDrop((0.1, 0.5), "any", generator=drawn)(events)) for _ in range(9)}) > 2

    jittered = data.TimeJitter(50.0, generator=drawn)(events)
    assert (np.diff(jittered["t"]) >= 0).all()
    assert 1900 < len(jittered) <= 2000
    assert np.array_equal(data.TimeJitter(0.0)(events), events)
    assert data.TimeJitter(1e6, clip=False, generator=drawn)(events)["t"].min() < 0

    for _ in range(5):
        moved = data.SpatialShift(SENSOR, 2, generator=drawn)(events)
        assert 0 < len(moved) <= len(events)
        assert data.to_frames(moved, SENSOR, n_time_bins=1).sum() == len(moved)
    assert np.array_equal(data.SpatialShift(SENSOR, 0)(events), events)
    assert {int(data.SpatialShift((9,), 2)(data.make_events([0], [4]))["x"][0]) for _ in range(50)} == {2, 3, 4, 5, 6}
    line = data.make_events(np.arange(9), np.arange(9))
    for _ in range(9):
        moved = data.SpatialShift((9,), 4, generator=drawn)(line)
        (shift,) = set((moved["x"] - moved["t"]).tolist())
        assert len(moved) == 9 - abs(shift), "events that leave the sensor are left out"
    assert len(recording(2000)) == len(events)
    assert np.array_equal(recording(2000), events), "augmentations change a copy"


def test_augmentations_follow_the_seed():
    events = recording()
    for transform in (data.EventDrop(0.5), data.TimeJitter(9.0), data.SpatialShift(SENSOR)):
        torch.manual_seed(4)
        first = transform(events)
        torch.manual_seed(4)
        assert np.array_equal(first, transform(events)), transform


def test_events_of_tonic_fit():
    """tonic's recordings have fields in another order, of other dtypes, and none for the row of a cochlea."""
    theirs = np.zeros(4, np.dtype([("t", int), ("x", int), ("p", int)]))
    theirs["t"], theirs["x"], theirs["p"] = [0, 5, 5, 9], [1, 699, 2, 2], 1
    assert data.to_frames(theirs, (700, 1, 1), time_window=5).shape == (2, 1, 1, 700)
    assert data.to_frames(theirs, (700,), time_window=5).sum() == 4
    assert len(data.SpatialShift((700,), 1)(data.TimeJitter(0.0)(data.EventDrop(0.0)(theirs)))) in (3, 4)
    tonic = pytest.importorskip("tonic")
    events = recording()
    ours = data.to_frames(events, SENSOR, event_count=40)
    assert np.array_equal(ours, tonic.transforms.ToFrame(SENSOR, event_count=40)(events))
    pipeline = tonic.transforms.Compose(
        [data.EventDrop(0.1), tonic.transforms.RandomFlipPolarity(0.5), tonic.transforms.Denoise(10_000)]
    )
    assert len(pipeline(events)) <= len(events)
    spatial = tonic.transforms.RandomFlipLR(SENSOR, p=1.0)(events.copy())
    assert torch.equal(
        data.to_frames(spatial, SENSOR, n_time_bins=1), data.to_frames(events, SENSOR, n_time_bins=1).flip(3)
    )


def test_names_of_spikevision_say_where_to_go():
    import spikeloom.spikevision as theirs

    with pytest.raises(ImportError, match=r"read event files with spikeloom\.data"):
        from spikeloom.spikevision import spikedata  # noqa: F401
    assert not hasattr(theirs, "__path__")
    with pytest.raises(ModuleNotFoundError, match=r"tonic, whose events spikeloom\.data"):
        _Alias().find_spec("snntorch.spikevision", None)  # as `import snntorch.spikevision` does within `as_snntorch`
    assert "data" in dir(snn)


def test_what_would_be_lost_is_refused():
    with pytest.raises(ValueError, match=r"the dtypes torch.float32, torch.int64; they must be equal"):
        data.collate([(torch.ones(2, 1).long(), 0), (torch.ones(2, 1), 1)])
    for steps in (0, -1):
        with pytest.raises(ValueError, match="pass 1 or more"):
            data.collate([(torch.ones(2, 1), 0)], steps=steps)
    many = data.make_events(np.arange(300), np.zeros(300, int))
    with pytest.raises(ValueError, match=r"300 events at one place, more than torch.uint8 holds"):
        data.to_frames(many, (1,), n_time_bins=1, dtype=torch.uint8)
    for options in ({"dtype": torch.bool}, {"dtype": torch.uint8, "binary": True}):
        assert data.to_frames(many, (1,), n_time_bins=1, **options) == 1
    for wrong in ("much", None, (0.1,), (0.1, "b")):
        with pytest.raises(ValueError, match="pass a share from 0 to 1, or a pair"):
            data.EventDrop(wrong)
    with pytest.raises(ValueError, match="sensor_size is 3"):
        data.EventDrop(0.1, sensor_size=3)
