"""Files in the real formats, written byte by byte from the descriptions of the formats."""

import os
import struct
from pathlib import Path

import pytest

REAL = os.environ.get("SPIKELOOM_DATA")
needs_real = pytest.mark.skipif(REAL is None, reason="SPIKELOOM_DATA is not set")

EVENTS = [(10, 3, 7, True), (4000, 33, 0, False), (4000, 1, 2, True), (90_000, 30, 33, False)]
"""t, x, y, p."""


def nmnist(path: Path, events=EVENTS, overflow_at: int | None = None) -> Path:
    """Five bytes per event; with an overflow the clock starts again 2^13 microseconds later."""
    content, base = b"", 0
    for i, (t, x, y, p) in enumerate(events):
        if i == overflow_at:
            content += bytes([0, 240, 0, 0, 0])
            base = 2**13
        content += bytes([x, y]) + ((int(p) << 23) | (t - base)).to_bytes(3, "big")
    path.write_bytes(content)
    return path


def dat(path: Path, version: int = 2, events=EVENTS) -> Path:
    columns, rows = (14, 14) if version >= 2 else (9, 8)
    head = f"% Data file containing Event2D events.\n% Version {version}\n% Width 304\n".encode() + bytes([0, 8])
    body = (struct.pack("<II", t, x | y << columns | int(p) << columns + rows) for t, x, y, p in events)
    path.write_bytes(head + b"".join(body))
    return path


def aedat(path: Path, events=EVENTS, overflow: int = 0) -> Path:
    """AEDAT 3.1: a packet of another kind, one of polarity events of which the second is invalid, one of the rest."""
    content = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    content += struct.pack("<hh6i", 0, 1, 8, 4, 0, 1, 1, 1) + b"#" * 8
    unseen = struct.pack("<Ii", 5 << 17 | 6 << 2 | 2, 99)
    for some, more in ((events[:2], [unseen]), (events[2:], [])):
        body = [struct.pack("<Ii", x << 17 | y << 2 | int(p) << 1 | 1, t) for t, x, y, p in some]
        body[1:1] = more
        content += struct.pack("<hh6i", 1, 1, 8, 4, overflow, len(body), len(body), len(some)) + b"".join(body)
    path.write_bytes(content)
    return path


def stmnist(path: Path) -> Path:
    """Taxel 23 is pressed at 1 ms and released at 2 ms; taxel 99 is pressed at 2 ms."""
    import numpy as np
    from scipy.io import savemat

    train = np.zeros((101, 3))
    train[100] = 0.001, 0.002, 0.002
    train[23, 0], train[23, 1], train[99, 2] = 1, -1, 1
    savemat(path, {"spiketrain": train})
    return path


def shd(path: Path) -> Path:
    """Three recordings as in SHD: float16 times, uint16 units."""
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (3,), h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (3,), h5py.vlen_dtype(np.uint16))
        for i, (seconds, channels) in enumerate((([0.125, 0.5], [3, 699]), ([], []), ([0.25], [0]))):
            times[i], units[i] = np.array(seconds, np.float16), np.array(channels, np.uint16)
        file["labels"] = np.array([4, 0, 19], np.uint16)
        file["extra/speaker"] = np.array([0, 1, 1], np.uint16)
        file["extra/keys"] = np.array([b"null", b"eins"])
    return path
