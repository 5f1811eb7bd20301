"""From events to frames: a tensor [T, C, H, W] of counts, by time or by number of events."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._events import Events, checked, inside, sizes, times

MOST = 2**34
"""Elements of frames; more is a mistake in the unit of time."""


def to_frames(
    events: Events,
    sensor_size: tuple[int, ...],
    *,
    time_window: float | None = None,
    event_count: int | None = None,
    n_time_bins: int | None = None,
    n_event_bins: int | None = None,
    start: float | None = None,
    steps: int | None = None,
    include_incomplete: bool = True,
    binary: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Count the events of a recording in frames, by time or by number.

    Pass exactly one of the first four options; the names are tonic's.

    Args:
        events: structured array with the fields t and x, and y and p where the sensor has them.
        sensor_size: (W, H, P) for frames ``[T, P, H, W]``, or (N,) for frames ``[T, N]``, as of a cochlea.
        time_window: duration of a frame, in the unit of t.
        event_count: number of events per frame.
        n_time_bins: number of frames, of equal duration.
        n_event_bins: number of frames, whose numbers of events differ by at most one.
        start: time at which the first frame begins; earlier events are left out. Default: the first event.
        steps: cut, or pad with empty frames, to this many.
        include_incomplete: keep the last frame of `time_window` or `event_count` even if the recording ends within it.
        binary: 1 where there is an event, instead of the number of events.
        dtype: of the frames.

    Returns:
        Frames ``[T, P, H, W]`` or ``[T, N]``. The order of events within a frame is lost.

    Raises:
        ValueError: if not exactly one option is given, if one is not positive, if an event is outside of the sensor, or
            if `dtype` cannot hold a count.
        TypeError: if the events are no structured array.

        >>> from spikeloom import data
        >>> events = data.make_events(t=[0, 900, 1000, 2500], x=[0, 1, 1, 2])
        >>> data.to_frames(events, (3,), time_window=1000)
        tensor([[1., 1., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    events, size = checked(events, "to_frames"), sizes(sensor_size)
    options = {"time_window": time_window, "event_count": event_count}
    options |= {"n_time_bins": n_time_bins, "n_event_bins": n_event_bins}
    given = {name: value for name, value in options.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"to_frames takes exactly one of {', '.join(options)}; got {', '.join(given) or 'none'}")
    for name, value in (*given.items(), *(() if steps is None else (("steps", steps),))):
        if not 0 < value < np.inf or (name != "time_window" and value != int(value)):
            kind = "number" if name == "time_window" else "integer"
            raise ValueError(f"{name} is {value}; pass a positive {kind}")
    if start is not None:
        events = events[events["t"] >= start]
    x, y, p = inside(events, size, "to_frames")
    given = {name: value if name == "time_window" else int(value) for name, value in given.items()}
    frame, number = _cut(times(events), start, include_incomplete, **given)
    number = number if steps is None else int(steps)
    shape = (number, size[2], size[1], size[0]) if len(size) == 3 else (number, size[0])
    w, h = (size[0], size[1]) if len(size) == 3 else (size[0], 1)
    if np.prod(shape, dtype=float) > MOST:
        raise ValueError(f"the frames would have the shape {shape}; pass a longer time_window, in the unit of t")
    cell = ((frame * (size[2] if len(size) == 3 else 1) + p) * h + y) * w + x
    counts = np.bincount(cell[frame < number], minlength=int(np.prod(shape))).reshape(shape)
    counts = np.minimum(counts, 1) if binary else counts
    most = 0 if dtype == torch.bool else (torch.finfo if dtype.is_floating_point else torch.iinfo)(dtype).max
    if most and counts.max(initial=0) > most:
        raise ValueError(f"a frame has {counts.max()} events at one place, more than {dtype} holds; pass another dtype")
    return torch.from_numpy(counts).to(dtype)


def _cut(t: NDArray[Any], start: float | None, include_incomplete: bool, **given: Any) -> tuple[NDArray[np.int64], int]:
    """The frame of each event, and the number of frames."""
    ((how, amount),) = given.items()
    if how.startswith("n_"):
        if how == "n_event_bins":
            return _rank(t) * amount // max(len(t), 1), amount
        since = t - (t.min() if start is None else start) if len(t) else t
        last = since.max() if len(t) else 0
        if np.issubdtype(t.dtype, np.floating):
            return np.minimum((since * (amount / (last or 1))).astype(np.int64), amount - 1), amount
        return (since * amount // (last + 1)).astype(np.int64), amount
    if not len(t):
        return np.empty(0, np.int64), 0
    if how == "event_count":
        frame, full = _rank(t) // amount, len(t) % amount == 0
    else:
        since = t - (t.min() if start is None else start)
        # an event at the end of a window belongs to the next one: no recording is known to end with a full window
        frame, full = (since // amount).astype(np.int64), False
    number = int(frame.max()) + 1
    return frame, number if include_incomplete or full else number - 1


def _rank(t: NDArray[Any]) -> NDArray[np.int64]:
    """The place of each event in time."""
    rank = np.empty(len(t), np.int64)
    rank[np.argsort(t, kind="stable")] = np.arange(len(t))
    return rank
