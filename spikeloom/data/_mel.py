"""Sound to events by a mel spectrogram and level crossings."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._events import EVENT, Events


def mel_spectrogram(
    audio: Any, sample_rate: float, n_mels: int = 40, *, window: float = 0.025, hop: float = 0.01, low: float = 50.0
) -> Tensor:
    """Compute the logarithm of the power in bands that are evenly spaced in mel.

    mel(f) = 2595 log10(1 + f / 700); the bands are triangles that overlap by half (Davis and Mermelstein 1980).

    Args:
        audio: samples ``[n]``.
        sample_rate: in hertz.
        n_mels: number of bands, from `low` to half the sample rate.
        window: length of the Hann window, in seconds.
        hop: time from one frame to the next, in seconds.
        low: lower end of the first band, in hertz.

    Returns:
        ``[T, n_mels]``, float32: log10(power + 1e-6 of the largest), T = 1 + n // (hop sample_rate).

    Raises:
        ValueError: if the samples are not ``[n]``, or an option is not positive.
    """
    samples = torch.as_tensor(np.asarray(audio, np.float32))
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"mel_spectrogram takes samples [n], got shape {tuple(samples.shape)}")
    if min(sample_rate, n_mels, window, hop) <= 0 or not 0 <= low < sample_rate / 2:
        raise ValueError("sample_rate, n_mels, window and hop are positive, and low is below half the sample rate")
    width, step = max(2, round(window * sample_rate)), _hop(hop, sample_rate)
    length = 2 ** math.ceil(math.log2(width))
    samples = torch.nn.functional.pad(samples, (length // 2, length // 2))
    hann = torch.hann_window(width)
    power = torch.stft(samples, length, step, width, hann, center=False, return_complex=True).abs().square()

    def mel(f: float) -> float:
        return 2595 * math.log10(1 + f / 700)

    corners = 700 * (10 ** (torch.linspace(mel(low), mel(sample_rate / 2), n_mels + 2) / 2595) - 1)
    f = torch.linspace(0, sample_rate / 2, length // 2 + 1)[:, None]
    rise, fall = (f - corners[:-2]) / corners.diff()[:-1], (corners[2:] - f) / corners.diff()[1:]
    bands = power.T @ torch.minimum(rise, fall).clamp(min=0)
    return torch.log10(bands + 1e-6 * bands.max() + torch.finfo().tiny)


def level_crossing(values: Any, delta: float, dt: float = 1.0) -> Events:
    """Send an event whenever a signal has changed by `delta` since the last event of its channel (send on delta).

    A step in which a signal changes by several deltas has as many events, at evenly spaced times within the step.

    Args:
        values: signals, ``[T, N]``.
        delta: size of a level.
        dt: time from one step to the next, in microseconds.

    Returns:
        Structured array of events: x is the channel, p is True on the way up; ``sensor_size=(N, 1, 2)``.

    Raises:
        ValueError: if delta is not positive, or the values are not ``[T, N]`` and finite.

        >>> from spikeloom import data
        >>> data.level_crossing([[0.0], [1.2], [0.9], [0.1]], delta=0.5)[["t", "p"]]
        array([(0,  True), (1,  True), (3, False)],
              dtype=...)
    """
    signal = np.asarray(values, np.float64)
    if signal.ndim != 2 or not np.isfinite(signal).all() or not delta > 0:
        raise ValueError(f"level_crossing takes finite values [T, N] and delta > 0, got {signal.shape} and {delta}")
    times, channels, ups = [], [], []
    level = signal[0].copy() if len(signal) else signal
    for step in range(1, len(signal)):
        moved = np.trunc((signal[step] - level) / delta)
        level += delta * moved
        number = np.abs(moved).astype(np.int64)
        channel = np.repeat(np.arange(signal.shape[1]), number)
        place = np.arange(len(channel)) - np.repeat(np.cumsum(number) - number, number)
        times.append((step - 1 + (place + 1) / number[channel]) * dt)
        channels.append(channel)
        ups.append(moved[channel] > 0)
    events = np.zeros(sum(map(len, times)), EVENT)
    if len(events):
        events["t"], events["x"] = np.floor(np.concatenate(times)), np.concatenate(channels)
        events["p"] = np.concatenate(ups)
    return events[np.argsort(events["t"], kind="stable")]


def mel_events(audio: Any, sample_rate: float, n_mels: int = 40, delta: float = 0.3, **options: Any) -> Events:
    """Convert sound to events: level crossings of a mel spectrogram.

    Args:
        audio: samples ``[n]``.
        sample_rate: in hertz.
        n_mels: number of bands.
        delta: size of a level, in powers of ten (0.3 is 3 dB).
        options: those of `mel_spectrogram`; `hop` is the time between its frames, rounded to samples.

    Returns:
        Structured array of events, times in microseconds; ``sensor_size=(n_mels, 1, 2)``.
    """
    bands = mel_spectrogram(audio, sample_rate, n_mels, **options)
    return level_crossing(bands, delta, dt=_hop(options.get("hop", 0.01), sample_rate) / sample_rate * 1e6)


def _hop(hop: float, sample_rate: float) -> int:
    """Samples from one frame to the next."""
    return max(1, round(hop * sample_rate))
