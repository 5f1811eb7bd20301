"""Events: structured arrays with a time and an address each, and their validation."""

import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Events = NDArray[Any]
"""Events of one recording: a structured array with the fields t and x, and y and p if the sensor has them."""

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.bool_)])
"""The fields of an event, as tonic has them: column, row, time (in microseconds for all readers) and polarity."""


def make_events(t: ArrayLike, x: ArrayLike, y: ArrayLike = 0, p: ArrayLike = True) -> Events:
    """Make a structured array of events, sorted by time, from one array per field.

    Args:
        t: times, ``[n]``, in microseconds; rounded to integers.
        x: columns, or channels, ``[n]``.
        y: rows, ``[n]`` or one for all.
        p: polarities, ``[n]`` or one for all; True or 1 is "on", False, 0 or -1 is "off".

    Raises:
        ValueError: if the lengths differ, if a time is not finite or beyond 64 bits, if an address is no integer of
            16 bits, or if a polarity is none of -1, 0 and 1.

        >>> from spikeloom import data
        >>> data.make_events(t=[20, 10], x=[1, 2])
        array([(2, 0, 10,  True), (1, 0, 20,  True)],
              dtype=[('x', '<i2'), ('y', '<i2'), ('t', '<i8'), ('p', '?')])
    """
    times = np.atleast_1d(np.asarray(t))
    fields = {"x": np.asarray(x), "y": np.asarray(y), "p": np.asarray(p)}
    wrong = [name for name, field in fields.items() if field.ndim and field.shape != times.shape]
    if times.ndim != 1 or wrong:
        shapes = {"t": times.shape, **{name: field.shape for name, field in fields.items()}}
        raise ValueError(f"the fields have the shapes {shapes}; pass one value per event, or one y or p for all")
    if not np.isfinite(times).all():
        raise ValueError("t has values that are not finite; an event has a time in microseconds")
    if times.size and not -(2**63) <= int(times.min()) <= int(times.max()) < 2**63:
        raise ValueError(f"t goes from {times.min()} to {times.max()}; a time is an integer of 64 bits")
    if not np.isin(fields["p"], (-1, 0, 1)).all():
        raise ValueError("p has other values than -1, 0 and 1; a polarity is on (1) or off (0 or -1)")
    fields["p"] = fields["p"] > 0
    limits = np.iinfo(np.int16)
    for name in ("x", "y"):
        if (fields[name] != np.rint(fields[name])).any():
            raise ValueError(
                f"{name} has values that are no integers; an address is a number of a column, row or channel"
            )
        if fields[name].size and not limits.min <= fields[name].min() <= fields[name].max() <= limits.max:
            raise ValueError(f"{name} goes from {fields[name].min()} to {fields[name].max()}; an address has 16 bits")
    events = np.empty(len(times), EVENT)
    events["t"] = times if times.dtype.kind in "iu" else np.rint(times)
    for name, field in fields.items():
        events[name] = field
    return events[np.argsort(events["t"], kind="stable")]


def checked(events: Any, taker: str) -> Events:
    """Return the events if they are a structured array with times and addresses."""
    names = getattr(getattr(events, "dtype", None), "names", None) or ()
    if not isinstance(events, np.ndarray) or events.ndim != 1 or not {"t", "x"} <= set(names):
        given = f"an array of dtype {events.dtype}" if isinstance(events, np.ndarray) else type(events).__name__
        raise TypeError(
            f"{taker} takes a structured array of events with the fields t and x, one recording; got {given}. "
            "Make one by spikeloom.data.make_events"
        )
    return events


def field(events: Events, name: str) -> NDArray[np.int64]:
    """A field as integers; zeros if the sensor has none, such as the row of a cochlea."""
    if name in (events.dtype.names or ()):
        return np.asarray(events[name], np.int64)
    return np.zeros(len(events), np.int64)


def times(events: Events) -> NDArray[Any]:
    """The times; floating-point times, such as seconds, are returned unchanged."""
    t = np.asarray(events["t"])
    return t if np.issubdtype(t.dtype, np.floating) else t.astype(np.int64)


def sizes(sensor_size: Any) -> tuple[int, int, int] | tuple[int]:
    """(W, H, P), or (N,) for a sensor with one row of channels and one polarity."""
    try:
        size = tuple(operator.index(side) for side in sensor_size)
    except TypeError:
        size = ()
    if len(size) not in (1, 3) or min(size) < 1:
        raise ValueError(
            f"sensor_size is {sensor_size!r}; pass (W, H, P), such as (34, 34, 2), or (N,), such as (700,)"
        )
    return size  # type: ignore[return-value]


def inside(events: Events, size: tuple[int, ...], taker: str) -> tuple[NDArray[np.int64], ...]:
    """x, y and p of all events; raises an error if one is outside of the sensor."""
    w, h, polarities = size if len(size) == 3 else (size[0], 1, 1)
    x, y = field(events, "x"), field(events, "y")
    p = field(events, "p") if polarities > 1 else np.zeros(len(events), np.int64)
    p = np.maximum(p, 0)  # some files have -1 for "off"
    for name, values, limit in (("x", x, w), ("y", y, h), ("p", p, polarities)):
        if len(values) and not 0 <= values.min() <= values.max() < limit:
            raise ValueError(
                f"{taker}: {name} goes from {values.min()} to {values.max()}, outside of the sensor, which has "
                f"{limit}; sensor_size is (W, H, P) = {size}"
            )
    return x, y, p
