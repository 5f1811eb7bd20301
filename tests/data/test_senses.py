"""The inner ear, the level crossings and the camera, held against what their equations imply."""

import math

import numpy as np
import pytest
import torch

from spikeloom import data

RATE = 8000
second = np.arange(RATE // 4) / RATE


def test_the_membrane_is_tuned_to_places():
    """A place responds most a little below its resonance, sharply cut off above it; a travelling wave arrives later
    at the apex."""
    membrane = data.BasilarMembrane()
    places, f = membrane.places(200, 3000, 12), np.arange(10.0, 4000, 10)
    gains = membrane.gains(places, f)
    best = f[np.abs(gains).argmax(1)]
    resonances = np.sqrt(membrane.stiffness * np.exp(-membrane.alpha * places) / membrane.mass) / (2 * math.pi)
    assert ((best > 0.8 * resonances) & (best < resonances)).all()
    assert np.abs(gains).max() == pytest.approx(1)
    for gain, resonance in zip(np.abs(gains), resonances, strict=True):
        assert gain[f > 1.5 * resonance].max(initial=0) < 0.01
    delays = -np.diff(np.unwrap(np.angle(gains[:, f <= 150]), axis=1), axis=1)
    assert (np.diff(delays.mean(1)) > 0).all()


def test_the_wave_number_solves_its_equation():
    from spikeloom.data._ear import _wave_number

    membrane, x = data.BasilarMembrane(), 2.0
    omega = 2 * math.pi * np.arange(50.0, 3000, 50)
    stiffness = membrane.stiffness * math.exp(-membrane.alpha * x)
    damping = membrane.damping * math.exp(-membrane.alpha * x / 2)
    right = 0.2 * omega**2 / (stiffness - membrane.mass * omega**2 + 1j * omega * damping)
    k = _wave_number(right)
    resonance = math.sqrt(stiffness / membrane.mass)
    far = np.abs(omega / resonance - 1) > 0.1
    assert np.abs((k * np.tanh(k) - right) / right)[far].max() < 1e-3
    assert (k.imag <= 0).all()


def test_hair_cells_begin_at_rest():
    cell = data.HairCell()
    q, c, w = cell.at_rest()
    k = cell.g * cell.A / (cell.A + cell.B)
    assert cell.y * (1 - q) + cell.x * w - k * q == pytest.approx(0, abs=1e-9)
    assert k * q - (cell.l + cell.r) * c == pytest.approx(0, abs=1e-9)
    assert cell.r * c - cell.x * w == pytest.approx(0, abs=1e-9)


def test_tones_are_heard_at_their_places():
    torch.manual_seed(1)
    tones = [np.sin(2 * math.pi * f * second) for f in (300, 800, 2000)]
    heard = data.inner_ear(tones, RATE, channels=48)
    loudest = [np.bincount(events["x"], minlength=48).argmax() for events in heard]
    assert loudest[0] > loudest[1] + 5 > loudest[2] + 10, "low tones at the apex, the last channels"
    for events, tone in zip(heard, tones, strict=True):
        assert (np.diff(events["t"]) >= 0).all()
        assert events["t"].max() < len(tone) / RATE * 1e6
        assert len(events) > 20


def test_a_tone_adapts_and_silence_is_quiet():
    torch.manual_seed(2)
    tone, silence = data.inner_ear([np.sin(2 * math.pi * 500 * second), 0 * second], RATE, channels=48)
    early, late = (((tone["t"] >= a) & (tone["t"] < b)).sum() for a, b in ((0, 50_000), (150_000, 200_000)))
    assert early > late > 0
    assert len(silence) / (48 * 0.25) < 5  # spikes per second of a bushy cell


def test_the_ear_follows_the_seed_and_refuses_bad_sound():
    def heard(seed):
        return data.inner_ear(np.sin(2000 * second), RATE, channels=8, generator=torch.Generator().manual_seed(seed))

    assert np.array_equal(heard(1), heard(1))
    assert not np.array_equal(heard(1)["t"], heard(2)["t"])
    assert len(data.inner_ear([], RATE)) == 0
    for wrong in (np.zeros((2, 5)), np.array([1.0, math.nan])):
        with pytest.raises(ValueError, match=r"takes finite samples \[n\]"):
            data.inner_ear(wrong, RATE)
    with pytest.raises(ValueError, match="no places"):
        data.inner_ear(second, RATE, channels=4, high=1e6)
    with pytest.raises(TypeError, match="channel_count"):
        data.inner_ear(second, RATE, channel_count=4)


def test_level_crossings_carry_the_signal():
    """Up and down events, summed, follow the signal to within a level."""
    signal = np.cumsum(np.random.default_rng(3).normal(size=(50, 4)), 0)
    events = data.level_crossing(signal, delta=0.5, dt=1000.0)
    for step in (10, 49):
        until = events[events["t"] <= step * 1000]
        moved = np.bincount(until["x"], np.where(until["p"], 0.5, -0.5), minlength=4)
        assert (np.abs(signal[step] - signal[0] - moved) < 0.5 + 1e-9).all()
    assert (np.diff(events["t"]) >= 0).all()
    assert len(data.level_crossing(np.ones((5, 2)), 0.1)) == 0
    with pytest.raises(ValueError, match="delta > 0"):
        data.level_crossing(signal, 0)


def test_mel_bands():
    levels = data.mel_spectrogram(np.sin(2 * math.pi * 1000 * second), RATE, 20)
    assert levels.shape == (26, 20)
    band = int(levels.mean(0).argmax())
    mel = [2595 * math.log10(1 + f / 700) for f in (50, 1000, 4000)]
    assert abs(band + 1 - 21 * (mel[1] - mel[0]) / (mel[2] - mel[0])) < 1
    assert levels.isfinite().all()
    assert data.mel_spectrogram(0 * second, RATE).isfinite().all()
    chirp = np.sin(2 * math.pi * (300 + 5000 * second) * second)
    events = data.mel_events(chirp, RATE, 20, delta=0.5, hop=0.005)
    assert data.to_frames(events, (20, 1, 2), time_window=10_000).sum() == len(events) > 50


def test_camera_sends_one_event_per_threshold():
    """A pixel that brightens by a factor e sends 1 / threshold events, at interpolated times; darker ones are off."""
    light = np.ones((2, 1, 2)) * 0.2
    light[1, 0] = 0.2 * math.e, 0.2 / math.e
    events = data.EventCamera(threshold=0.3, floor=1e-12)(light, times=1000)
    on, off = (events[events["x"] == x] for x in (0, 1))
    assert on["p"].all()
    assert not off["p"].any()
    for sent in (on, off):
        assert sent["t"].tolist() == [300, 600, 900]
    assert len(data.EventCamera(threshold=(0.3, 0.6), floor=1e-12)(light, 1000)) == 4
    rested = data.EventCamera(threshold=0.3, floor=1e-12, refractory=400)(light, 1000)
    assert rested["t"].tolist() == [300, 300, 900, 900]
    assert len(data.EventCamera()(light[:1])) == 0


def test_camera_remembers_what_it_has_not_sent():
    """Small steps add up: the reference moves by thresholds only."""
    ramp = np.exp(np.linspace(0, 1, 101))[:, None, None] * 0.1
    assert len(data.EventCamera(threshold=0.25, floor=1e-12)(ramp, times=100)) == 4


def test_camera_noise_leak_and_mismatch():
    still = np.full((11, 8, 8), 0.5)
    drawn = torch.Generator().manual_seed(5)
    noise = data.EventCamera(noise_rate=10.0, generator=drawn)(still, 100_000)
    assert 500 < len(noise) < 780  # 64 pixels for a second
    assert 0.4 < noise["p"].mean() < 0.6
    leak = data.EventCamera(leak_rate=5.0)(still, 100_000)
    assert len(leak) in range(256, 321)
    assert leak["p"].all()
    brighter = still * np.linspace(0.1, 1, 11)[:, None, None]
    pixels = [
        np.bincount(data.EventCamera(0.2, mismatch=m, generator=drawn)(brighter, 1000)["x"], minlength=8).std()
        for m in (0.0, 0.3)
    ]
    assert pixels[0] == 0 < pixels[1]
    for wrong in ({"threshold": 0}, {"noise_rate": -1}):
        with pytest.raises(ValueError, match=r"must be 0 or more|positive"):
            data.EventCamera(**wrong)
    for frames, times in ((-still, 1), (still[0], 1), (still, np.zeros(11))):
        with pytest.raises(ValueError, match=r"frames \[T, H, W\]|as many times"):
            data.EventCamera()(frames, times)


def test_saccades_return_to_where_they_began():
    image = torch.zeros(9, 9)
    image[4, 4] = 1
    frames = data.saccades(image, steps=31, amplitude=3.0)
    assert frames.shape == (31, 9, 9)
    assert torch.allclose(frames[0], image, atol=1e-5)
    assert torch.allclose(frames[-1], image, atol=1e-5)
    where = [divmod(int(frames[step].argmax()), 9) for step in (10, 20)]
    assert where == [(4 + 3, 4 + 1), (4, 4 + 3)] or where == [(4 + 3, 4 + 2), (4, 4 + 3)]
    events = data.EventCamera()(frames, times=1000)
    assert data.to_frames(events, (9, 9, 2), n_time_bins=3).sum((1, 2, 3)).min() > 0
    with pytest.raises(ValueError, match="2 or more steps"):
        data.saccades(image, steps=1)


def test_the_times_of_mel_events_are_those_of_whole_samples():
    """A hop of 1.6 samples is one of 2: the last frame of 1000 samples at 1000 Hz is near 1 s, not 0.8 s."""
    sound = np.concatenate([np.zeros(990), np.ones(10)]) * np.sin(np.arange(1000))
    events = data.mel_events(sound, 1000, 4, hop=0.0016, window=0.016)
    assert 950_000 < events["t"].max() <= 1_000_000


def test_a_membrane_says_which_frequency_is_wrong():
    with pytest.raises(ValueError, match="low is 3000 Hz and high is 200 Hz"):
        data.BasilarMembrane().places(3000, 200, 4)
    with pytest.raises(ValueError, match="its base resonates at less"):
        data.BasilarMembrane().places(200, 1e6, 4)
