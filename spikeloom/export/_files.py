"""Write a file as a whole or not at all, and never in the place of a device, a pipe or a link."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from tempfile import TemporaryDirectory

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Why a file cannot be written to the end."""


def checked_path(path: str | os.PathLike[str], example: str) -> Path:
    """Where a file can be written, links followed; before any work is done.

    Args:
        path: where the file is to be.
        example: a name that messages suggest.

    Raises:
        TypeError: if the path is not text.
        ValueError: if it has characters that no path has.
        OSError: if it is a folder, a device or a pipe, its name is too long, or its folder does not exist.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"the path is {path!r}; pass the path of a file, such as {example!r}")
    try:
        goal = Path(os.path.realpath(path))
        mode = goal.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    except OSError as error:
        raise type(error)(f"the path {os.fspath(path)!r} cannot be used: {error.strerror}; pass another") from error
    except ValueError as error:
        raise ValueError(f"the path {os.fspath(path)!r} cannot be used: {error}; pass another") from error
    if S_ISDIR(mode):
        raise IsADirectoryError(f"{goal} is a folder; pass the path of a file in it, such as {str(goal / example)!r}")
    if mode and not S_ISREG(mode):
        raise FileExistsError(f"{goal} is a device or a pipe, and would be replaced; pass the path of a file")
    if not goal.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {goal.parent}; create it, or pass another path")
    return goal


@contextmanager
def replacing(goal: Path) -> Iterator[Path]:
    """A temporary path; its file, and those next to it, replace the goal at the end if no error was raised.

    Raises:
        OSError: if the folder of the goal cannot be written to, or is full.
    """
    try:
        new = TemporaryDirectory(prefix=".spikeloom-", dir=goal.parent)
    except OSError as error:
        raise type(error)(f"{goal.parent} cannot be written to ({error}); pass a path in another folder") from error
    with new as folder:
        try:
            yield Path(folder, goal.name)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise OSError(
                f"{str(goal)!r} cannot be written: {error.strerror}; pass a path in another folder"
            ) from error
        for file in sorted(os.listdir(folder), reverse=True):  # net.onnx.data before net.onnx
            os.replace(Path(folder, file), goal.parent / file)
