"""Readers of event files: N-MNIST, ATIS and Prophesee, AEDAT 3.1, ST-MNIST. Each returns one recording's events."""

import os
import struct
from pathlib import Path

import numpy as np

from ._events import EVENT, Events

Name = str | os.PathLike[str]

NMNIST_OVERFLOW = 240
"""The row of an entry that is not an event, but advances the clock by 2^13 microseconds."""


def read_nmnist(path: Name) -> Events:
    """Read an N-MNIST ``.bin`` file (N-Caltech101's are of the same format).

    An event has five bytes: column, row, and 24 bits of which the first is the polarity and the others the time in
    microseconds (Orchard et al. 2015). The sensor is 34 x 34 pixels with two polarities: ``sensor_size=(34, 34, 2)``;
    the recordings of N-Caltech101 differ in size, up to 240 x 180.

    Args:
        path: the file.

    Returns:
        Structured array with the fields x, y, t, p.

    Raises:
        ValueError: if the size of the file is not a multiple of five bytes.
    """
    raw = np.frombuffer(Path(path).read_bytes(), np.uint8)
    if len(raw) % 5:
        raise ValueError(
            f"read_nmnist: {os.fspath(path)} has {len(raw):,} bytes; an N-MNIST file has five bytes per event"
        )
    x, y, high, middle, low = raw.reshape(-1, 5).T.astype(np.int64)
    clock = y == NMNIST_OVERFLOW
    events = np.empty(len(x), EVENT)
    events["x"], events["y"], events["p"] = x, y, high >> 7
    events["t"] = ((high & 0x7F) << 16 | middle << 8 | low) + 2**13 * np.cumsum(clock)
    rest: Events = events[~clock]
    return rest


def read_dat(path: Name) -> Events:
    """Read a ``.dat`` file of an ATIS or Prophesee camera, such as N-Cars and the Prophesee automotive sets.

    After comment lines, a byte for the type of the events and one for their size, an event has eight bytes: 32 bits of
    time in microseconds, then from the lowest bit 14 of the column, 14 of the row and the polarity. Files before
    version 2 have 9 bits of the column, 8 of the row and the polarity.

    Args:
        path: the file.

    Returns:
        Structured array with the fields x, y, t, p.

    Raises:
        ValueError: if the file ends inside an event, or has events of another size.
    """
    data, start, version = Path(path).read_bytes(), 0, 0
    while data[start : start + 1] == b"%":
        end = data.find(b"\n", start) + 1 or len(data)
        words = data[start:end].split()
        if len(words) > 2 and words[1].lower() == b"version" and words[2].isdigit():
            version = int(words[2])
        start = end
    if start:  # files without comments have no type and size bytes
        size = data[start + 1] if len(data) > start + 1 else 8
        if size != 8:
            raise ValueError(
                f"read_dat: {os.fspath(path)} has events of {size} bytes; this reads change events, of eight"
            )
        start += 2
    if max(len(data) - start, 0) % 8:
        raise ValueError(
            f"read_dat: {os.fspath(path)} ends inside an event: {(len(data) - start) % 8} bytes are left over"
        )
    columns, rows = (14, 14) if version >= 2 else (9, 8)
    time, address = np.frombuffer(data[start:], "<u4").reshape(-1, 2).T.astype(np.int64)
    events = np.empty(len(time), EVENT)
    events["t"] = time
    events["x"] = address & (1 << columns) - 1
    events["y"] = address >> columns & (1 << rows) - 1
    events["p"] = address >> columns + rows & 1
    return events


def read_aedat(path: Name) -> Events:
    """Read the polarity events of an AEDAT 3.1 file, such as DVS128 Gesture.

    After comment lines, packets of events follow. A packet begins with 28 bytes: the kind of its events, their source,
    their size, the place of the time in an event, the overflows of the clock, and three numbers of events. A polarity
    event has eight bytes: a validity bit, the polarity, 15 bits of the row, 15 of the column, then 32 bits of time in
    microseconds. Events of other kinds (frames, inertial measurements) and invalid ones are skipped. The sensor of
    DVS128 Gesture is 128 x 128 pixels: ``sensor_size=(128, 128, 2)``.

    Args:
        path: the file.

    Returns:
        Structured array with the fields x, y, t, p, in the order of the file.

    Raises:
        ValueError: if it is no AEDAT 3.1 file, or ends inside a packet.
    """
    data, name = Path(path).read_bytes(), os.fspath(path)
    first = data[: data.find(b"\n")].strip()
    if first[:10].upper() != b"#!AER-DAT3":
        raise ValueError(f"read_aedat: {name} begins with {first[:20]!r}; an AEDAT 3.1 file begins with '#!AER-DAT3.1'")
    start = 0
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start) + 1 or len(data)
        last = data[start:end].strip().upper() == b"#!END-HEADER"
        start = end
        if last:  # a packet may begin with the byte of a comment
            break
    packets = [np.empty(0, EVENT)]
    while start < len(data):
        body = start + 28
        kind, _, size, _, overflow, _, number, _ = _PACKET.unpack(data[start:body].ljust(28, b"\0"))
        start = body + size * number
        if size < 0 or number < 0 or start > len(data):
            raise ValueError(f"read_aedat: {name} ends inside a packet, after {len(data):,} bytes; copy the file again")
        if kind == POLARITY and size != 8:
            raise ValueError(f"read_aedat: {name} has polarity events of {size} bytes; in AEDAT 3.1 they have eight")
        if kind == POLARITY:
            packets.append(_polarity(data[body:start], overflow))
    events: Events = np.concatenate(packets)
    return events


POLARITY, _PACKET = 1, struct.Struct("<hh6i")
"""The kind of a packet of polarity events, and the beginning of each packet."""


def _polarity(packet: bytes, overflow: int) -> Events:
    address, time = np.frombuffer(packet, "<u4").reshape(-1, 2).T.astype(np.int64)
    events = np.empty(len(time), EVENT)
    events["t"] = time + (overflow << 31)
    events["x"], events["y"], events["p"] = address >> 17, address >> 2 & 0x7FFF, address >> 1 & 1
    kept: Events = events[(address & 1) == 1]
    return kept


def read_stmnist(path: Name) -> Events:
    """Read an ST-MNIST ``.mat`` file: a digit written on 10 x 10 taxels (See et al. 2020).

    The variable `spiketrain` has a row per taxel, 1 where it is pressed and -1 where it is released, and a last row
    with the times in seconds. Taxel k is at x = k % 10, y = k // 10: ``sensor_size=(10, 10, 2)``.

    Args:
        path: the file.

    Returns:
        Structured array with the fields x, y, t, p; t in microseconds.

    Raises:
        ImportError: without scipy (``pip install 'spikeloom[data]'``).
        ValueError: if it is no MATLAB file, or has no such variable.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError("ST-MNIST files need scipy; pip install 'spikeloom[data]'") from error

    try:
        content = loadmat(os.fspath(path))
    except FileNotFoundError:
        raise
    except Exception as error:  # SciPy has many for a file of another kind
        raise ValueError(f"read_stmnist: {os.fspath(path)} cannot be read as a MATLAB file: {error}") from error
    train = content.get("spiketrain")
    if train is None or train.ndim != 2 or train.shape[0] != 101:
        found = {name: getattr(value, "shape", None) for name, value in content.items() if not name.startswith("__")}
        raise ValueError(f"read_stmnist: {os.fspath(path)} has {found}; an ST-MNIST file has spiketrain, [101, n]")
    column, taxel = np.nonzero(train[:100].T)
    events = np.empty(len(taxel), EVENT)
    events["x"], events["y"] = taxel % 10, taxel // 10
    events["t"] = np.rint(train[100, column] * 1e6)
    events["p"] = train[taxel, column] > 0
    return events[np.argsort(events["t"], kind="stable")]
