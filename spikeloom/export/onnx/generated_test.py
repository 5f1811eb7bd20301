"""A test that ships with the file: a Python file beside it, with inputs and the outputs of the network for them."""

import base64
import io
import json
import math
import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .._files import checked_path
from .file import CLOSE

MARK = "Written by spikeloom.export_onnx."
"""In the first lines of a test; another file of the same name is not replaced."""

SHARE = 0.01
"""Of the values that may differ before a network is assumed to be another one."""

NUMBERS, ROWS = 20_000, 4
"""How many numbers a test has at most in its largest array, and how many rows."""


def path_of(path: Path) -> Path:
    """Where the test of a file is, links followed.

    Raises:
        FileExistsError: if there is a file that is no such test.
        OSError: if no file can be written there, as for a folder.
    """
    beside = path.with_name(f"{path.stem}_test.py")
    try:
        test = checked_path(beside, beside.name)
    except OSError as error:
        raise type(error)(f"the test cannot be written to {beside}: {error}; or pass test=False") from error
    if test.parent != path.parent or test.name != beside.name:
        raise FileExistsError(f"{beside} is a link to {test}; remove it, or pass test=False")
    if test.exists() and not _is_ours(test):
        raise FileExistsError(
            f"{test} exists, and is not a test that export_onnx has written; pass test=False, or another path"
        )
    return test


def remove_stale(path: Path) -> None:
    """Remove the test of an earlier file of the same name, which does not fit the new one."""
    test = path.with_name(f"{path.stem}_test.py")
    if test.is_file() and not test.is_symlink() and _is_ours(test):
        test.unlink()


def _is_ours(test: Path) -> bool:
    """Whether a file is a test that `export_onnx` has written."""
    with test.open("rb") as file:
        return MARK in file.read(1000).decode("utf-8", "replace")


def part_of(
    args: tuple[Tensor, ...], steps: int | None, outputs: Mapping[str, Tensor]
) -> tuple[tuple[Tensor, ...], int | None]:
    """The first rows and steps of an example, as many as a test has.

    Args:
        args: [T, B, ...]; or [B, ...] with `steps`.
        steps: T of a static input.
        outputs: for all of the example.
    """
    length, batch = args[0].shape[:2] if steps is None else (steps, len(args[0]))
    sizes = [x.numel() // (batch * (length if steps is None else 1)) for x in args]
    sizes += [out.numel() // (batch * length) for out in outputs.values()]
    length = max(1, min(length, NUMBERS // max(*sizes, 1)))
    rows = max(1, min(ROWS, batch, NUMBERS // (max(*sizes, 1) * length)))
    if steps is not None:
        return tuple(x[:rows] for x in args), length
    return tuple(x[:length, :rows] for x in args), None


def source(path: Path, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], differing: int | None) -> str:
    """The text of a test.

    Args:
        path: the file.
        inputs, outputs: by name.
        differing: how many values differed at the export; None if onnxruntime was not installed. Single spikes may then
            differ by rounding, and the test accepts a share of `SHARE`.
    """
    allowed, why = differing, "the values that differed when the file was made"
    if allowed is None:
        allowed = math.ceil(SHARE * sum(x.numel() for x in outputs.values()))
        why = f"{SHARE:.0%} of the values, since onnxruntime was not installed when the file was made"
    kinds = {"in": inputs, "out": outputs}
    arrays: dict[str, Any] = {f"{k} {n}": x.detach().cpu().numpy() for k, xs in kinds.items() for n, x in xs.items()}
    data = io.BytesIO()
    np.savez_compressed(data, **arrays)
    text = "\n".join(textwrap.wrap(base64.b64encode(data.getvalue()).decode(), 116))
    absolute = max(CLOSE.get(x.dtype, 2e-3) for x in outputs.values())
    return TEMPLATE.format(
        name=_safe(path.name),
        test=_safe(shlex.quote(f"{path.stem}_test.py")),
        mark=MARK,
        model=json.dumps(path.name),
        absolute=absolute,
        allowed=allowed,
        why=why,
        data=text,
    )


def _safe(text: str) -> str:
    """Text within a docstring."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


TEMPLATE = '''\
"""Run {name} in onnxruntime on stored inputs, and compare its outputs with those of the network that it was made from.

    python {test}
    pytest {test}

It requires numpy and onnxruntime. {mark}
"""

import base64
import io
import sys
from pathlib import Path

import numpy as np
import onnxruntime

MODEL = Path(__file__).with_name({model})
CLOSE = {absolute}  # how far two values may be apart, absolutely and, ten times as far, relatively
ALLOWED = {allowed}  # {why}


def compared(model=MODEL):
    """How many values differ, and of how many."""
    assert Path(model).is_file(), f"there is no file {{model}}; export it again, or pass the path of the file"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    data = np.load(io.BytesIO(base64.b64decode(VECTORS)))
    inputs = {{key[3:]: data[key] for key in data.files if key.startswith("in ")}}
    wanted = {{key[4:]: data[key] for key in data.files if key.startswith("out ")}}
    differing = 0
    for (name, want), got in zip(wanted.items(), session.run(list(wanted), inputs)):
        assert got.shape == want.shape, f"{{name}} has shape {{got.shape}} instead of {{want.shape}}"
        close = np.isclose(got, want, rtol=10 * CLOSE, atol=CLOSE, equal_nan=True)
        differing += int(np.sum(~close))
    return differing, sum(want.size for want in wanted.values())


def test_outputs_are_those_of_the_network():
    differing, values = compared()
    assert differing <= ALLOWED, f"{{differing}} of {{values}} values differ; {{ALLOWED}} may"


VECTORS = """
{data}
"""


if __name__ == "__main__":
    differing, values = compared(*sys.argv[1:])
    print(f"{{differing}} of {{values}} values differ")
    sys.exit(differing > ALLOWED)
'''
