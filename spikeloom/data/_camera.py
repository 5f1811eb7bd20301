"""A simulated event camera, and saccades, by which it records a still image."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ._events import EVENT, Events


@dataclass(frozen=True)
class EventCamera:
    """Simulated event camera: each pixel sends an event when its log intensity has changed by a threshold.

    Between frames the log intensity is interpolated linearly, so events occur between frames
    (Rebecq et al. 2018, ESIM). Mismatch of thresholds, leak and shot noise are those of v2e (Hu et al. 2021).

    Args:
        threshold: change of the log intensity for an event; a pair is (on, off).
        mismatch: standard deviation of the thresholds of the pixels, as a share of the threshold.
        refractory: microseconds after an event in which a pixel sends no other.
        leak_rate: "on" events per pixel and second without any change, from the leak of the reset switch.
        noise_rate: events of random polarity per pixel and second.
        floor: added to the intensity before the logarithm.
        generator: of torch, for mismatch and noise. Default: torch's global one.

    A call takes the frames ``[T, H, W]``, intensities from 0 to 1, and `times`, ``[T]`` in microseconds, increasing, or
    the time from frame to frame. It returns a structured array of events; ``sensor_size=(W, H, 2)``.

        >>> from spikeloom import data
        >>> import torch
        >>> frames = torch.tensor([0.1, 0.1, 0.8]).view(3, 1, 1).expand(3, 1, 2)
        >>> events = data.EventCamera(threshold=0.5)(frames, times=1000)
        >>> len(events), bool(events["p"].all()), int(events["t"].min()) > 1000
        (8, True, True)
    """

    threshold: float | tuple[float, float] = 0.2
    mismatch: float = 0.0
    refractory: float = 0.0
    leak_rate: float = 0.0
    noise_rate: float = 0.0
    floor: float = 1e-3
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if not (min(self._thresholds()) > 0 and self.floor > 0):
            raise ValueError(f"threshold is {self.threshold} and floor is {self.floor}; pass positive numbers")
        if min(self.mismatch, self.refractory, self.leak_rate, self.noise_rate) < 0:
            raise ValueError("mismatch, refractory, leak_rate and noise_rate must be 0 or more")

    def _thresholds(self) -> tuple[float, float]:
        return self.threshold if isinstance(self.threshold, tuple) else (self.threshold, self.threshold)

    def __call__(self, frames: Any, times: Any = 1000.0) -> Events:
        """The events of a recording."""
        light, clock = self._checked(frames, times)
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=self.generator)))
        size = light.shape[1:]
        spread = [np.maximum(1 + self.mismatch * random.standard_normal(size), 0.1) for _ in range(2)]
        on, off = (limit * factor for limit, factor in zip(self._thresholds(), spread, strict=True))
        level = np.log(light + self.floor)
        reference = level[0].copy()
        found: list[Events] = []
        for step in range(1, len(level)):
            start, span = clock[step - 1], clock[step] - clock[step - 1]
            reference -= on * self.leak_rate * span * 1e-6
            found += self._crossings(level[step - 1], level[step], reference, on, off, start, span)
            number = random.poisson(self.noise_rate * span * 1e-6, size)
            y, x = (np.repeat(axis.ravel(), number.ravel()) for axis in np.indices(size))
            found.append(_events(start + span * random.random(len(x)), x, y, random.random(len(x)) < 0.5))
        events = np.concatenate(found) if found else np.empty(0, EVENT)
        events = events[np.argsort(events["t"], kind="stable")]
        return events[_rested(events, self.refractory, size[1])] if self.refractory else events

    def _crossings(self, before: Any, after: Any, reference: Any, on: Any, off: Any, start: float, span: float) -> Any:
        """Events between two frames; moves the reference of each pixel by a threshold per event."""
        change = after - before
        for up, limit in ((True, on), (False, off)):
            sign = 1 if up else -1
            # a change by an exact multiple of the threshold must not depend on rounding
            number = np.floor(np.maximum(sign * (after - reference) / limit, 0) + 1e-9).astype(np.int64)
            y, x = np.nonzero(number)
            many = number[y, x]
            y, x = np.repeat(y, many), np.repeat(x, many)
            rank = np.arange(len(x)) - np.repeat(np.cumsum(many) - many, many) + 1
            crossing = reference[y, x] + sign * rank * limit[y, x]
            slope = np.where(change[y, x] == 0, 1, change[y, x])
            share = np.clip((crossing - before[y, x]) / slope, 0, 1)
            reference += sign * number * limit
            yield _events(start + share * span, x, y, np.full(len(x), up))

    def _checked(self, frames: Any, times: Any) -> tuple[Any, Any]:
        light = np.asarray(frames.detach().cpu() if isinstance(frames, Tensor) else frames, np.float64)
        if light.ndim != 3 or not len(light) or not np.isfinite(light).all() or (light.size and light.min() < 0):
            raise ValueError(f"the camera takes intensities of 0 or more, frames [T, H, W], got shape {light.shape}")
        clock = np.asarray(times, np.float64)
        clock = np.arange(len(light)) * clock if clock.ndim == 0 else clock
        if clock.shape != (len(light),) or (np.diff(clock) <= 0).any():
            raise ValueError(f"{len(light)} frames need as many times, increasing, or one time from frame to frame")
        return light, clock


def _events(t: Any, x: Any, y: Any, p: Any) -> Events:
    events = np.empty(len(t), EVENT)
    events["t"], events["x"], events["y"], events["p"] = np.rint(t), x, y, p
    return events


def _rested(events: Events, refractory: float, width: int) -> Any:
    """Whether each event is outside of its pixel's refractory time."""
    last: dict[int, int] = {}
    sent = np.zeros(len(events), np.bool_)
    pixels = events["y"].astype(np.int64) * width + events["x"]
    for i, (pixel, t) in enumerate(zip(pixels.tolist(), events["t"].tolist(), strict=True)):
        if pixel not in last or t - last[pixel] >= refractory:
            sent[i], last[pixel] = True, t
    return sent


def saccades(image: Any, steps: int = 30, amplitude: float = 2.0) -> Tensor:
    """Move a still image along three straight saccades that form a triangle, similar to the recording of N-MNIST.

    Args:
        image: intensities, ``[H, W]``.
        steps: number of frames.
        amplitude: length of a side of the triangle, in pixels.

    Returns:
        ``[steps, H, W]``: the image, shifted with bilinear interpolation, zero outside of it.
    """
    picture = torch.as_tensor(image, dtype=torch.float32)
    if picture.ndim != 2 or steps < 2:
        raise ValueError(f"saccades takes an image [H, W] and 2 or more steps, got {tuple(picture.shape)} and {steps}")
    corners = torch.tensor([[0.0, 0.0], [0.5, math.sqrt(0.75)], [1.0, 0.0], [0.0, 0.0]]) * amplitude
    along = torch.linspace(0, 3, steps)
    leg = along.long().clamp(max=2)
    shift = corners[leg] + (along - leg)[:, None] * (corners[leg + 1] - corners[leg])
    h, w = picture.shape
    moves = torch.eye(2, 3).repeat(steps, 1, 1)
    moves[:, :, 2] = -2 * shift / torch.tensor([float(w), float(h)])
    grid = functional.affine_grid(moves, [steps, 1, h, w], align_corners=False)
    frames = picture.expand(steps, 1, h, w)
    return functional.grid_sample(frames, grid, align_corners=False)[:, 0]
