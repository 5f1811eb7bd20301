"""Augmentations of events: objects that are called with the events of one recording and return new ones."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ._events import Events, checked, field, sizes


def _uniform(*shape: int, generator: torch.Generator | None) -> NDArray[np.float32]:
    """Draws from torch's generator, which `snn.utils.seed` seeds, differently in each worker of a DataLoader."""
    drawn: NDArray[np.float32] = torch.rand(*shape, generator=generator).numpy()
    return drawn


@dataclass(frozen=True)
class EventDrop:
    """Drop events at random, in a random interval of time, or in a random area (Gu et al. 2021, EventDrop).

    Args:
        ratio: share of events, of the duration, or of each side of the sensor. A pair (low, high) is drawn from.
        how: "random", "time", "area", or "any": one of the three, drawn for each recording, or none (as in the paper).
        sensor_size: (W, H, P) or (N,), for "area" and "any". Default: the extent of the events.
        generator: of torch. Default: torch's global one.

        >>> from spikeloom import data
        >>> import numpy as np
        >>> events = data.make_events(t=np.arange(1000), x=np.arange(1000) % 34, y=5)
        >>> len(data.EventDrop(1.0)(events)), len(data.EventDrop(0.0)(events))
        (0, 1000)
    """

    ratio: float | tuple[float, float] = 0.1
    how: str = "random"
    sensor_size: tuple[int, ...] | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        try:
            low, high = map(float, self._range())
        except (TypeError, ValueError):
            low = high = -1.0
        if not 0 <= low <= high <= 1:
            raise ValueError(f"ratio is {self.ratio!r}; pass a share from 0 to 1, or a pair of them")
        if self.how not in ("random", "time", "area", "any"):
            raise ValueError(f"how is {self.how!r}; choose 'random', 'time', 'area' or 'any'")
        if self.sensor_size is not None:
            sizes(self.sensor_size)

    def _range(self) -> tuple[float, float]:
        low, high = self.ratio if isinstance(self.ratio, tuple | list) else (self.ratio, self.ratio)
        return low, high

    def __call__(self, events: Events) -> Events:
        """The remaining events."""
        events, (low, high) = checked(events, "EventDrop"), self._range()
        drawn = _uniform(5, generator=self.generator)
        ratio, how = low + (high - low) * float(drawn[0]), self.how
        if how == "any":
            how = ("none", "random", "time", "area")[min(int(drawn[1] * 4), 3)]
        if how == "random":
            return events[_uniform(len(events), generator=self.generator) >= ratio]
        if how == "none" or not len(events):
            return events.copy()
        if how == "time":
            return events[~_within(field(events, "t"), ratio, float(drawn[2]))]
        size = None if self.sensor_size is None else sizes(self.sensor_size)
        gone = _within(field(events, "x"), ratio, float(drawn[2]), None if size is None else size[0])
        if "y" in (events.dtype.names or ()):
            height = None if size is None else (size[1] if len(size) == 3 else 1)
            if height != 1:
                gone &= _within(field(events, "y"), ratio, float(drawn[3]), height)
        return events[~gone]


def _within(values: NDArray[np.int64], ratio: float, place: float, extent: int | None = None) -> NDArray[np.bool_]:
    """Whether each value is in an interval of this share of the extent, at a position from 0 (start) to 1 (end)."""
    first = 0 if extent is not None else int(values.min())
    extent = extent if extent is not None else int(values.max()) - first + 1
    begin = first + place * (1 - ratio) * extent
    return (values >= begin) & (values < begin + ratio * extent)


@dataclass(frozen=True)
class TimeJitter:
    """Move the time of every event by a normal deviate, rounded; the events stay sorted (as in tonic).

    Args:
        std: standard deviation, in the unit of t.
        clip: leave out events that move before time 0; otherwise they keep their negative times.
        generator: of torch. Default: torch's global one.
    """

    std: float
    clip: bool = True
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if not self.std >= 0:
            raise ValueError(f"std is {self.std}; pass 0 or more, in the unit of t")

    def __call__(self, events: Events) -> Events:
        """The moved events."""
        moved = checked(events, "TimeJitter").copy()
        deviates = torch.randn(len(moved), generator=self.generator, dtype=torch.float64).numpy()
        moved["t"] = np.rint(moved["t"] + self.std * deviates)
        moved = moved[np.argsort(moved["t"], kind="stable")]
        return moved[moved["t"] >= 0] if self.clip else moved


@dataclass(frozen=True)
class SpatialShift:
    """Shift a whole recording on the sensor by a random number of pixels (rolling in NDA, Li et al. 2022).

    Args:
        sensor_size: (W, H, P), or (N,) for a cochlea, whose channels are shifted.
        max_shift: the largest shift, to each side; a pair is (columns, rows).
        generator: of torch. Default: torch's global one.

    Events that leave the sensor are left out.
    """

    sensor_size: tuple[int, ...]
    max_shift: int | tuple[int, int] = 3
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        sizes(self.sensor_size)
        if min(self._shifts()) < 0:
            raise ValueError(f"max_shift is {self.max_shift}; pass 0 or more pixels")

    def _shifts(self) -> tuple[int, int]:
        return self.max_shift if isinstance(self.max_shift, tuple) else (self.max_shift, self.max_shift)

    def __call__(self, events: Events) -> Events:
        """The shifted events."""
        moved, size = checked(events, "SpatialShift").copy(), sizes(self.sensor_size)
        sides = (("x", size[0]), ("y", size[1])) if len(size) == 3 else (("x", size[0]),)
        stays = np.ones(len(moved), np.bool_)
        for (name, side), most in zip(sides, self._shifts(), strict=False):
            if name in (moved.dtype.names or ()):
                place = field(moved, name) + int(torch.randint(-most, most + 1, (), generator=self.generator))
                stays &= (place >= 0) & (place < side)
                moved[name] = np.clip(place, 0, side - 1)
        return moved[stays]
