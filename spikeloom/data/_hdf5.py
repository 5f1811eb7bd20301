"""HDF5 files in the layout of the Heidelberg spiking datasets: SHD and SSC."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._events import Events, checked, field, make_events
from ._readers import Name


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("HDF5 files need h5py; pip install 'spikeloom[data]'") from error
    return h5py


class SpikeFile:
    """HDF5 file in the layout of SHD and SSC, as a dataset: ``file[i]`` is (events, label).

    The file holds `spikes/times` (seconds) and `spikes/units` (channels), one array per recording, `labels`, and for
    SHD `extra/speaker` and `extra/keys` (Cramer et al. 2020). Each access reads one recording from the file.
    Workers of a DataLoader open the file themselves.

    Args:
        path: the file, such as ``shd_train.h5``; decompress a ``.gz`` first.
        transform: a function of the events, such as ``functools.partial(snn.data.to_frames, ...)``, or None.

    Attributes:
        labels: ``[n]``, int64.
        speakers: ``[n]``, int64, or None: split by them, so that no speaker is in two splits.
        keys: names of the classes, or None.

    Raises:
        ImportError: without h5py.
        ValueError: if the file has another layout.
    """

    def __init__(self, path: Name, transform: Any = None):
        self.path, self.transform = os.fspath(path), transform
        self._open: tuple[int, Any] | None = None
        content = self._content()
        missing = [name for name in ("spikes/times", "spikes/units", "labels") if name not in content]
        if missing:
            raise ValueError(f"read_shd: {self.path} has no {', '.join(missing)}; it is not in the layout of SHD")
        self.labels: NDArray[np.int64] = np.asarray(content["labels"], np.int64)
        speakers = content.get("extra/speaker")
        keys = content.get("extra/keys", ())
        self.speakers = None if speakers is None else np.asarray(speakers, np.int64)
        self.keys = [key.decode() if isinstance(key, bytes) else str(key) for key in keys] or None

    def _content(self) -> Any:
        if self._open is None or self._open[0] != os.getpid():  # a worker must not read through its parent's handle
            h5py = _h5py()
            try:
                self._open = (os.getpid(), h5py.File(self.path, "r"))
            except FileNotFoundError:
                raise
            except OSError as error:
                raise OSError(f"read_shd: {self.path} cannot be read as HDF5: {error}") from error
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"recording {index} of {len(self)}")
        spikes, index = self._content()["spikes"], index % len(self)
        seconds = np.asarray(spikes["times"][index], np.float64)
        try:
            events: Any = make_events(seconds * 1e6, np.asarray(spikes["units"][index], np.int64))
        except ValueError as error:
            raise ValueError(f"read_shd: recording {index} of {self.path}: {error}") from error
        return (events if self.transform is None else self.transform(events)), int(self.labels[index])

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return (self[i] for i in range(len(self)))

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None


def read_shd(path: Name, transform: Any = None) -> SpikeFile:
    """Open an HDF5 file in the layout of SHD and SSC, as a dataset of (events, label).

    Args:
        path: the file.
        transform: a function of the events, or None.

    Returns:
        `SpikeFile`. SHD and SSC have 700 channels: ``sensor_size=(700,)``.
    """
    return SpikeFile(path, transform)


def write_shd(
    path: Name,
    recordings: Sequence[Events],
    labels: ArrayLike,
    speakers: ArrayLike | None = None,
    keys: Sequence[str] = (),
) -> None:
    """Write recordings to an HDF5 file in the layout of SHD, for example those of `inner_ear`.

    Args:
        path: the file; replaced if it exists.
        recordings: events, times in microseconds. The layout has channels alone: y is 0 and p True.
        labels: ``[n]``, integers of 0 to 65535.
        speakers: ``[n]``, integers of 0 to 65535, or None.
        keys: names of the classes.

    Raises:
        ImportError: without h5py.
        ValueError: if the lengths differ, or if the layout cannot hold a value. A file that exists then stays.
    """
    groups = {"labels": np.asarray(labels), **({} if speakers is None else {"speakers": np.asarray(speakers)})}
    for name, values in groups.items():
        if values.shape != (len(recordings),):
            raise ValueError(
                f"{len(recordings)} recordings, and {name} of shape {values.shape}; pass one per recording"
            )
        _sixteen_bits(values, name)
    for i, events in enumerate(recordings):
        named = checked(events, "write_shd").dtype.names or ()
        _sixteen_bits(events["x"], f"x of recording {i}")
        if field(events, "y").any() or ("p" in named and not (events["p"] > 0).all()):
            raise ValueError(
                f"write_shd: recording {i} has rows or polarities; the layout has channels alone, so y is 0 and p True"
            )
    h5py = _h5py()
    part = Path(f"{os.fspath(path)}.part")
    try:
        _write(h5py, part, recordings, groups, keys)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _sixteen_bits(values: NDArray[Any], name: str) -> None:
    if values.dtype.kind not in "iub" and values.size:
        raise ValueError(f"write_shd: {name} has the dtype {values.dtype}; pass integers")
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < 2**16:
        raise ValueError(f"write_shd: {name} goes from {values.min()} to {values.max()}; the layout has 0 to 65535")


def _write(
    h5py: Any, path: Path, recordings: Sequence[Events], groups: dict[str, NDArray[Any]], keys: Sequence[str]
) -> None:
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (len(recordings),), h5py.vlen_dtype(np.float64))
        units = file.create_dataset("spikes/units", (len(recordings),), h5py.vlen_dtype(np.uint16))
        for i, events in enumerate(recordings):
            times[i], units[i] = field(events, "t") / 1e6, field(events, "x").astype(np.uint16)
        file["labels"] = groups["labels"].astype(np.uint16)
        if "speakers" in groups:
            file["extra/speaker"] = groups["speakers"].astype(np.uint16)
        if keys:
            file["extra/keys"] = np.array([key.encode() for key in keys])
